/* SPDX-License-Identifier: GPL-3.0-or-later */
/* lease.json; the bundle's digest is 64 times "a". */
#include "control/lease.h"

#include <stdlib.h>

#include "fuzz.h"

#define DIGEST "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define BOOT "00000000-0000-0000-0000-000000000000"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct ef_reason why;
	struct ef_lease lease;

	ef_lease_read(fuzz_file(data, size), DIGEST, BOOT, &lease);
	if (lease.unusable && !ef_lease_expired(&lease, 0))
		abort(); /* what is not understood keeps nothing going */
	ef_lease_reason(&lease, &why);
	json_decref(ef_lease_json(&lease, 1));
	return 0;
}
