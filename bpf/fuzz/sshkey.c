/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One line with a public key, its base64 and the wire format within. */
#include "bundle/sshkey.h"

#include "base/util.h"
#include "bundle/signers.h"
#include "fuzz.h"

static void read_wire(const uint8_t *data, size_t size) {
	struct ef_wire wire = {data, size}, string;
	uint8_t value[EF_ED25519_SIGNATURE];
	uint32_t number;

	ef_wire_ed25519(wire, value, EF_ED25519_KEY);
	ef_wire_ed25519(wire, value, EF_ED25519_SIGNATURE);
	ef_wire_u32(&wire, &number);
	while (!ef_wire_string(&wire, &string))
		ef_wire_equals(&string, "ssh-ed25519");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	_cleanup_free_ char *text = fuzz_text(data, size);
	_cleanup_free_ uint8_t *decoded = NULL;
	struct ef_signer signer;
	struct ef_sshkey key;
	const char *why;
	size_t length;

	read_wire(data, size);
	decoded = ef_base64_decode(text, size, "\n", &length);
	ef_sshkey_parse(text, &key);
	ef_sshkey_skip_field(text);
	if (ef_signer_parse(text, &signer, &why) == EF_SIGNER_OK)
		ef_signer_clear(&signer);
	ef_pattern_list_matches(text, "ebpf-fleet-release");
	return 0;
}
