/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "sshkey.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

#define BLANKS " \t\r"

static const char *const plain_key_types[] = {
    "ssh-ed25519",
    "ssh-rsa",
    "ssh-dss",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
};

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

static const char *find_key_type(const char *text, size_t length) {
	for (size_t i = 0; i < EF_ARRAY_SIZE(plain_key_types); i++)
		if (strlen(plain_key_types[i]) == length &&
		    !strncmp(plain_key_types[i], text, length))
			return plain_key_types[i];
	return NULL;
}

int ef_sshkey_parse(const char *text, struct ef_sshkey *key) {
	size_t type_length = strcspn(text, BLANKS), size;
	const char *type = find_key_type(text, type_length);
	const char *body = text + type_length + strspn(text + type_length, BLANKS);
	_cleanup_free_ uint8_t *data = NULL;
	struct ef_wire blob, type_in_blob;

	if (!type)
		return -1;
	data = ef_base64_decode(body, strcspn(body, BLANKS), "", &size);
	if (!data)
		return -1;
	blob = (struct ef_wire){data, size};
	*key = (struct ef_sshkey){.is_ed25519 = !strcmp(type, "ssh-ed25519")};
	if (key->is_ed25519)
		return ef_wire_ed25519(blob, key->ed25519, EF_ED25519_KEY);
	if (ef_wire_string(&blob, &type_in_blob) || !ef_wire_equals(&type_in_blob, type))
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
