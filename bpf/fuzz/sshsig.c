/* SPDX-License-Identifier: GPL-3.0-or-later */
/* manifest.json.sig: the bytes as armored text, and as the blob that the armor holds. */
#include "bundle/sshsig.h"

#include <sodium.h>
#include <stdio.h>

#include "base/util.h"
#include "fuzz.h"

#define BEGIN "-----BEGIN SSH SIGNATURE-----\n"
#define END "\n-----END SSH SIGNATURE-----\n"

static void verify(const void *signature, size_t size) {
	uint8_t signer[EF_ED25519_KEY];
	struct ef_refusal why = {0};

	ef_sshsig_verify(signature, size, "{}\n", 3, "manifest.json.sig", signer, &why);
}

static void verify_blob(const uint8_t *blob, size_t size) {
	size_t room = sodium_base64_encoded_len(size, sodium_base64_VARIANT_ORIGINAL);
	_cleanup_free_ char *base64 = malloc(room), *text = NULL;

	if (!base64 || !sodium_bin2base64(base64, room, blob, size, sodium_base64_VARIANT_ORIGINAL))
		abort();
	if (asprintf(&text, BEGIN "%s" END, base64) < 0)
		abort();
	verify(text, sizeof(BEGIN END) - 1 + room - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	verify(data, size);
	verify_blob(data, size);
	return 0;
}
