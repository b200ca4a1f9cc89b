/* SPDX-License-Identifier: GPL-3.0-or-later */
/* mark.json; a bundle of digest 64 times "a" and sequence 1. */
#include "bundle/mark.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct ef_bundle bundle = {.sequence = 1};
	struct ef_refusal why = {0};
	struct ef_mark mark;
	char sentence[120];

	memset(bundle.digest, 'a', 64);
	if (ef_mark_read(fuzz_file(data, size), &mark, &why))
		return 0;
	if (mark.sequence < 1 || mark.seen < 0)
		abort(); /* there is a file, and it told nothing */
	ef_mark_sentence(&mark, sentence, sizeof(sentence));
	ef_mark_check(&mark, &bundle, &why);
	return 0;
}
