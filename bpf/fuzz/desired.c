/* SPDX-License-Identifier: GPL-3.0-or-later */
/* desired.json; the bundle's digest is 64 times "a". */
#include "control/desired.h"

#include "fuzz.h"

#define DIGEST "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct ef_desired desired;
	char error[256];

	ef_desired_read(fuzz_file(data, size), DIGEST, &desired, error, sizeof(error));
	ef_desired_find(&desired, "runqlat");
	ef_desired_free(&desired);
	return 0;
}
