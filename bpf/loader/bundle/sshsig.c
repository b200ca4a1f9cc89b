/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/sshsig.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define ARMOR_BEGIN "-----BEGIN SSH SIGNATURE-----\n"
#define ARMOR_END "\n-----END SSH SIGNATURE-----\n"
#define MAGIC "SSHSIG"
#define MAGIC_SIZE 6
#define SIGNED_ROOM 512

/* What an SSHSIG holds; the strings point into the decoded blob. */
struct sshsig {
	uint8_t key[EF_ED25519_KEY];
	uint8_t signature[EF_ED25519_SIGNATURE];
	struct ef_wire namespace;
	struct ef_wire hash;
};

/* The decoded blob, which the caller frees, or NULL. */
static uint8_t *dearmor(const char *text, size_t size, size_t *blob_size) {
	const size_t begin = strlen(ARMOR_BEGIN), end = strlen(ARMOR_END);

	if (size < begin + end || memcmp(text, ARMOR_BEGIN, begin) ||
	    memcmp(text + size - end, ARMOR_END, end))
		return NULL;
	return ef_base64_decode(text + begin, size - begin - end, "\n", blob_size);
}

static int parse_blob(struct ef_wire blob, struct sshsig *sig) {
	struct ef_wire key, reserved, signature;
	uint32_t version;

	if (blob.left < MAGIC_SIZE || memcmp(blob.at, MAGIC, MAGIC_SIZE))
		return -1;
	blob.at += MAGIC_SIZE;
	blob.left -= MAGIC_SIZE;
	if (ef_wire_u32(&blob, &version) || version != 1 || ef_wire_string(&blob, &key) ||
	    ef_wire_string(&blob, &sig->namespace) || ef_wire_string(&blob, &reserved) ||
	    ef_wire_string(&blob, &sig->hash) || ef_wire_string(&blob, &signature) || blob.left)
		return -1;
	/* OpenSSH signs an empty reserved field, so a filled one is not what was signed. */
	if (reserved.left || ef_wire_ed25519(key, sig->key, EF_ED25519_KEY))
		return -1;
	return ef_wire_ed25519(signature, sig->signature, EF_ED25519_SIGNATURE);
}

/* The message's digest, or 0 when the hash is not one of the two that SSHSIG allows. */
static size_t hash_message(const struct ef_wire *name, const void *message, size_t size,
			   uint8_t digest[crypto_hash_sha512_BYTES]) {
	if (ef_wire_equals(name, "sha512")) {
		crypto_hash_sha512(digest, message, size);
		return crypto_hash_sha512_BYTES;
	}
	if (ef_wire_equals(name, "sha256")) {
		crypto_hash_sha256(digest, message, size);
		return crypto_hash_sha256_BYTES;
	}
	return 0;
}

static uint8_t *put_string(uint8_t *at, const void *data, size_t size) {
	uint32_t length = htonl((uint32_t)size);

	memcpy(at, &length, sizeof(length));
	if (size)
		memcpy(at + sizeof(length), data, size);
	return at + sizeof(length) + size;
}

/* What is signed: the magic, namespace, reserved, hash name and digest. */
static size_t build_signed(const struct sshsig *sig, const uint8_t *digest, size_t digest_size,
			   uint8_t out[SIGNED_ROOM]) {
	uint8_t *at = out + MAGIC_SIZE;

	memcpy(out, MAGIC, MAGIC_SIZE);
	at = put_string(at, sig->namespace.at, sig->namespace.left);
	at = put_string(at, NULL, 0);
	at = put_string(at, sig->hash.at, sig->hash.left);
	at = put_string(at, digest, digest_size);
	return (size_t)(at - out);
}

static int check_signature(const struct sshsig *sig, const void *message, size_t message_size,
			   const char *file, struct ef_refusal *why) {
	uint8_t digest[crypto_hash_sha512_BYTES], data[SIGNED_ROOM];
	size_t digest_size = hash_message(&sig->hash, message, message_size, digest);

	if (!digest_size)
		return ef_refuse(why, "EF_SIG_MALFORMED", file,
				 "%s: its message hash is neither sha512 nor sha256; sign again "
				 "with ssh-keygen -Y sign",
				 file);
	if (!ef_wire_equals(&sig->namespace, EF_RELEASE_NAMESPACE))
		return ef_refuse(why, "EF_SIG_NAMESPACE", file,
				 "%s: signed for another purpose (namespace %.*s); sign with "
				 "ssh-keygen -Y sign -n " EF_RELEASE_NAMESPACE,
				 file, sig->namespace.left > 64 ? 64 : (int)sig->namespace.left,
				 (const char *)sig->namespace.at);
	if (crypto_sign_verify_detached(sig->signature, data,
					build_signed(sig, digest, digest_size, data), sig->key))
		return ef_refuse(why, "EF_SIG_BAD", file,
				 "%s: not the signature of this manifest.json: one of the two was "
				 "altered; fetch the bundle again",
				 file);
	return 0;
}

int ef_sshsig_verify(const void *signature, size_t signature_size, const void *message,
		     size_t message_size, const char *file, uint8_t signer[EF_ED25519_KEY],
		     struct ef_refusal *why) {
	size_t blob_size = 0;
	_cleanup_free_ uint8_t *blob = dearmor(signature, signature_size, &blob_size);
	struct sshsig sig;

	if (!blob || parse_blob((struct ef_wire){blob, blob_size}, &sig))
		return ef_refuse(why, "EF_SIG_MALFORMED", file,
				 "%s: not an armored SSH signature by an ed25519 key; sign again "
				 "with ssh-keygen -Y sign",
				 file);
	if (check_signature(&sig, message, message_size, file, why))
		return -1;
	memcpy(signer, sig.key, EF_ED25519_KEY);
	return 0;
}
