/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/sshkey.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define BLANKS " \t"
#define TYPE_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789@.-"
#define TYPE_MAX 64

int ef_wire_u32(struct ef_wire *wire, uint32_t *value) {
	if (wire->left < 4)
		return -1;
	*value = (uint32_t)wire->at[0] << 24 | (uint32_t)wire->at[1] << 16 |
		 (uint32_t)wire->at[2] << 8 | wire->at[3];
	wire->at += 4;
	wire->left -= 4;
	return 0;
}

int ef_wire_string(struct ef_wire *wire, struct ef_wire *string) {
	uint32_t length;

	if (ef_wire_u32(wire, &length) || length > wire->left)
		return -1;
	string->at = wire->at;
	string->left = length;
	wire->at += length;
	wire->left -= length;
	return 0;
}

bool ef_wire_equals(const struct ef_wire *string, const char *text) {
	return string->left == strlen(text) && !memcmp(string->at, text, string->left);
}

int ef_wire_ed25519(struct ef_wire blob, uint8_t *value, size_t size) {
	struct ef_wire type, body;

	if (ef_wire_string(&blob, &type) || ef_wire_string(&blob, &body))
		return -1;
	if (!ef_wire_equals(&type, "ssh-ed25519") || body.left != size || blob.left)
		return -1;
	memcpy(value, body.at, size);
	return 0;
}

/* libsodium takes some bytes beyond ASCII for letters; OpenSSH does not. */
static bool is_base64_text(const char *text, size_t length, const char *ignore) {
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";

	for (size_t i = 0; i < length; i++)
		if (!text[i] || !(strchr(letters, text[i]) || strchr(ignore, text[i])))
			return false;
	return true;
}

uint8_t *ef_base64_decode(const char *text, size_t length, const char *ignore, size_t *size) {
	size_t room = length / 4 * 3 + 3;
	_cleanup_free_ uint8_t *data = malloc(room);
	const char *end;

	if (!data || !is_base64_text(text, length, ignore))
		return NULL;
	if (sodium_base642bin(data, room, text, length, ignore, size, &end,
			      sodium_base64_VARIANT_ORIGINAL) ||
	    end != text + length)
		return NULL;
	return TAKE_PTR(data);
}

static bool is_plain_type(const char *type, size_t length) {
	return length && length <= TYPE_MAX && strspn(type, TYPE_LETTERS) >= length &&
	       !memmem(type, length, "-cert-", strlen("-cert-"));
}

int ef_sshkey_parse(const char *text, struct ef_sshkey *key) {
	size_t type_length = strcspn(text, BLANKS), size;
	const char *body = text + type_length + strspn(text + type_length, BLANKS);
	_cleanup_free_ uint8_t *data = NULL;
	struct ef_wire blob, type;

	if (!is_plain_type(text, type_length))
		return -1;
	data = ef_base64_decode(body, strcspn(body, BLANKS), "", &size);
	if (!data)
		return -1;
	blob = (struct ef_wire){data, size};
	*key = (struct ef_sshkey){0};
	if (!ef_wire_ed25519(blob, key->ed25519, EF_ED25519_KEY)) {
		key->is_ed25519 = true;
		return type_length == strlen("ssh-ed25519") &&
			       !strncmp(text, "ssh-ed25519", type_length)
			   ? 0
			   : -1;
	}
	if (ef_wire_string(&blob, &type) || type.left != type_length ||
	    memcmp(type.at, text, type_length) || ef_wire_equals(&type, "ssh-ed25519"))
		return -1;
	return blob.left ? 0 : -1;
}

const char *ef_sshkey_skip_field(const char *text) {
	bool quoted = false;

	for (; *text && (quoted || !strchr(BLANKS, *text)); text++) {
		if (*text == '\\' && text[1] == '"')
			text++;
		else if (*text == '"')
			quoted = !quoted;
	}
	return quoted ? NULL : text + strspn(text, BLANKS);
}
