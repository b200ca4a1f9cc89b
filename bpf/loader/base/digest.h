/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_DIGEST_H
#define EF_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define EF_SHA256_SIZE 32
#define EF_SHA256_HEX (2 * EF_SHA256_SIZE + 1)

void ef_sha256(const void *data, size_t size, uint8_t digest[EF_SHA256_SIZE]);

/* SHA-256 from the descriptor's position to its end. 0 or -errno. */
int ef_sha256_fd(int fd, uint8_t digest[EF_SHA256_SIZE]);

/* Lower-case hex with a final 0. */
void ef_sha256_hex(const uint8_t digest[EF_SHA256_SIZE], char hex[EF_SHA256_HEX]);

/* Exactly 64 lower-case hex digits and nothing else: 0, else -1. */
int ef_sha256_from_hex(const char *hex, uint8_t digest[EF_SHA256_SIZE]);

#endif
