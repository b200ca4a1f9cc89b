/* SPDX-License-Identifier: GPL-3.0-or-later */
/* btf/index.json, and behind a line of "%%%" the BTF file that it names. */
#include "bundle/btfindex.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle/manifest.h"
#include "fuzz.h"

#define BUILD_ID "0123456789abcdef0123456789abcdef01234567"

/* The index frees the data of all that lies below btf/. */
static struct ef_file file_of(const char *path, const uint8_t *data, size_t size) {
	return (struct ef_file){
	    .path = (char *)path, .data = (uint8_t *)fuzz_text(data, size), .size = size};
}

static void choose(const struct fuzz_halves *halves, const char *build_id) {
	struct ef_file files[] = {
	    file_of(EF_BTF_INDEX, halves->first, halves->first_size),
	    file_of("btf/x86_64/a.btf", halves->second, halves->second_size),
	};
	struct ef_bundle bundle = {.n_files = 2, .files = files};
	struct ef_kernel kernel = {
	    .btf = EF_BTF_MISSING, .btf_fd = -1, .machine = "x86_64", .release = "6.1.0"};

	strcpy(kernel.build_id, build_id);
	ef_btf_choose(&bundle, &kernel);
	ef_kernel_clear(&kernel);
	if (files[0].data || files[1].data)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct fuzz_halves halves = fuzz_split(data, size);

	choose(&halves, BUILD_ID);
	choose(&halves, "");
	return 0;
}
