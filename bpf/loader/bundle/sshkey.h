/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SSHKEY_H
#define EF_SSHKEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EF_ED25519_KEY 32
#define EF_ED25519_SIGNATURE 64

/* A reader of SSH's wire format (RFC 4251, section 5); it owns nothing. */
struct ef_wire {
	const uint8_t *at;
	size_t left;
};

/* Each moves the reader on and returns 0, or -1 when the data ends too early. */
int ef_wire_u32(struct ef_wire *wire, uint32_t *value);
int ef_wire_string(struct ef_wire *wire, struct ef_wire *string);

bool ef_wire_equals(const struct ef_wire *string, const char *text);

/*
 * Read string "ssh-ed25519" and a string of `size` bytes, and nothing behind
 * them, from a blob: a public key (32) or a signature (64). 0 or -1.
 */
int ef_wire_ed25519(struct ef_wire blob, uint8_t *value, size_t size);

/*
 * Decode strict base64 (padded, canonical); the characters of `ignore` (""
 * for none) are skipped. A malloc'ed buffer that the caller frees, or NULL.
 */
uint8_t *ef_base64_decode(const char *text, size_t length, const char *ignore, size_t *size);

struct ef_sshkey {
	bool is_ed25519;
	uint8_t ed25519[EF_ED25519_KEY]; /* when is_ed25519 */
};

/*
 * Parse "TYPE BASE64 [COMMENT]". 0 with *key, or -1: TYPE is not the name of a
 * plain public key's type (a certificate is another thing), or BASE64 is not a
 * blob of that type. Types that we do not know yet pass: they are not ed25519.
 */
int ef_sshkey_parse(const char *text, struct ef_sshkey *key);

/*
 * The text behind a leading field and the white space that ends it; white
 * space within "..." does not end it. NULL when a quote is left open.
 */
const char *ef_sshkey_skip_field(const char *text);

#endif
