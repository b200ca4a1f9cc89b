/* SPDX-License-Identifier: GPL-3.0-or-later */
/* allowed_signers, and behind a line of "%%%" revoked_keys, as real files. */
#include "bundle/trust.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/util.h"
#include "fuzz.h"

static char allowed[512], revoked[512];

static void remove_files(void) {
	unlink(allowed);
	unlink(revoked);
}

static void name_files(void) {
	if (*allowed)
		return;
	snprintf(allowed, sizeof(allowed), "%s/allowed_signers", fuzz_folder());
	snprintf(revoked, sizeof(revoked), "%s/revoked_keys", fuzz_folder());
	atexit(remove_files);
}

static void put(const char *path, const uint8_t *data, size_t size) {
	_cleanup_fclose_ FILE *file = fopen(path, "we");

	if (!file || fwrite(data, 1, size, file) != size || fchmod(fileno(file), 0644))
		abort();
}

/* No one without a line of his own may sign. */
static void judge(const struct ef_trust *trust) {
	static const uint8_t stranger[EF_ED25519_KEY] = {1, 2, 3};
	struct ef_refusal why = {0};
	static const struct ef_moment moments[] = {{1800000000, true}, {0, false}};
	const char *principal;

	for (size_t i = 0; i < trust->n_signers; i++)
		for (size_t j = 0; j < EF_ARRAY_SIZE(moments); j++)
			ef_trust_judge(trust, trust->signers[i].key, "ebpf-fleet-release",
				       &moments[j], "f", &principal, &why);
	ef_trust_judge(trust, stranger, "ebpf-fleet-release", &moments[0], "f", &principal, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct fuzz_halves halves = fuzz_split(data, size);
	struct ef_trust_paths paths = {.allowed_signers = allowed, .revoked_keys = revoked};
	struct ef_refusal why = {0};
	struct ef_trust trust;

	name_files();
	put(allowed, halves.first, halves.first_size);
	put(revoked, halves.second, halves.second_size);
	if (!ef_trust_load(&paths, &trust, &why))
		judge(&trust);
	ef_trust_clear(&trust);
	return 0;
}
