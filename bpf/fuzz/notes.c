/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ELF notes, as of /sys/kernel/notes: the build id among them. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz.h"
#include "kernel/kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	_cleanup_free_ uint8_t *exact = malloc(size ? size : 1);
	char hex[EF_BUILD_ID_HEX];

	if (!exact)
		abort();
	if (size)
		memcpy(exact, data, size);
	if (ef_build_id_parse(exact, size, hex) != (strlen(hex) == EF_BUILD_ID_HEX - 1))
		abort();
	return 0;
}
