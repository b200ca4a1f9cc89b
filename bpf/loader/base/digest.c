/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/digest.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

void ef_sha256(const void *data, size_t size, uint8_t digest[EF_SHA256_SIZE]) {
	crypto_hash_sha256(digest, data, size);
}

int ef_sha256_fd(int fd, uint8_t digest[EF_SHA256_SIZE]) {
	crypto_hash_sha256_state state;
	uint8_t chunk[16384];

	crypto_hash_sha256_init(&state);
	for (;;) {
		ssize_t got = read(fd, chunk, sizeof(chunk));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		crypto_hash_sha256_update(&state, chunk, (size_t)got);
	}
	crypto_hash_sha256_final(&state, digest);
	return 0;
}

void ef_sha256_hex(const uint8_t digest[EF_SHA256_SIZE], char hex[EF_SHA256_HEX]) {
	sodium_bin2hex(hex, EF_SHA256_HEX, digest, EF_SHA256_SIZE);
}

int ef_sha256_from_hex(const char *hex, uint8_t digest[EF_SHA256_SIZE]) {
	size_t length = strlen(hex);

	if (length != EF_SHA256_HEX - 1 || strspn(hex, "0123456789abcdef") != length)
		return -1;
	return sodium_hex2bin(digest, EF_SHA256_SIZE, hex, length, NULL, NULL, NULL);
}
