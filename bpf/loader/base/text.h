/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_TEXT_H
#define EF_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed UTF-8 sequence (RFC 3629) at the start of s, 1 to 4; 0: there is none.
 */
size_t ef_utf8_length(const unsigned char *s, size_t left);

/* A line in a buffer that does not grow. */
struct ef_text {
	char *at;
	size_t size; /* of the buffer */
	size_t used; /* more than size: it did not fit */
};

void ef_text_add(struct ef_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* As many bytes as they are, unchecked. */
void ef_text_add_bytes(struct ef_text *text, const void *bytes, size_t n);

/* A number in decimal; what printf would take most of a record's time for. */
void ef_text_add_uint(struct ef_text *text, uint64_t value);

/* Adds at most size bytes of a string that ends at its first 0, quoted and all ASCII: other
 * characters are escaped, what is not UTF-8 becomes U+FFFD. */
void ef_text_add_string(struct ef_text *text, const char *string, size_t size);

#endif
