/* SPDX-License-Identifier: GPL-3.0-or-later */
/* policy.json. */
#include "control/policy.h"

#include <stdlib.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	const struct ef_amounts contract = {{1, 1, 1, 1, 1, 1}};
	struct ef_policy policy;
	char error[1024];

	ef_policy_read(fuzz_file(data, size), &policy, error, sizeof(error));
	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_policy_limits(&policy, "runqlat", &contract).of[i] > 1)
			abort(); /* policy.json loosens nothing */
	ef_policy_free(&policy);
	return 0;
}
