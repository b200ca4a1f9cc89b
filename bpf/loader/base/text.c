/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void ef_text_add(struct ef_text *text, const char *format, ...) {
	size_t left = text->used < text->size ? text->size - text->used : 0;
	va_list args;

	va_start(args, format);
	text->used += (size_t)vsnprintf(left ? text->at + text->used : NULL, left, format, args);
	va_end(args);
}

void ef_text_add_bytes(struct ef_text *text, const void *bytes, size_t n) {
	if (text->used + n < text->size)
		memcpy(text->at + text->used, bytes, n);
	text->used += n;
}

size_t ef_utf8_length(const unsigned char *s, size_t left) {
	size_t n = s[0] < 0x80			  ? 1
		   : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
		   : (s[0] & 0xf0) == 0xe0	  ? 3
						  : 0;

	if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	if (!n || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* Bytes at the start of s that stand for themselves in a JSON string. */
static size_t plain_run(const unsigned char *s, size_t left) {
	size_t n = 0;

	while (n < left && s[n] >= ' ' && s[n] < 0x7f && s[n] != '"' && s[n] != '\\')
		n++;
	return n;
}

/* The character of a well-formed sequence of n bytes. */
static uint32_t decode(const unsigned char *s, size_t n) {
	static const unsigned char first[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
	uint32_t character = s[0] & first[n];

	for (size_t i = 1; i < n; i++)
		character = character << 6 | (s[i] & 0x3f);
	return character;
}

/* As JSON writes what is not ASCII: two halves beyond the first 65536. */
static void add_escape(struct ef_text *text, uint32_t character) {
	if (character < 0x10000) {
		ef_text_add(text, "\\u%04x", character);
		return;
	}
	character -= 0x10000;
	ef_text_add(text, "\\u%04x\\u%04x", 0xd800 | character >> 10, 0xdc00 | (character & 0x3ff));
}

/*
 * One character that does not. A line is all ASCII: a user chooses the name of a
 * program, and a terminal that shows the file must not obey it (C0, C1, directions
 * of text, characters that cannot be seen). Returns its bytes.
 */
static size_t add_odd(struct ef_text *text, const unsigned char *s, size_t left) {
	size_t n = ef_utf8_length(s, left);

	if (*s == '"' || *s == '\\')
		ef_text_add(text, "\\%c", *s);
	else if (n)
		add_escape(text, decode(s, n));
	else
		ef_text_add_bytes(text, "\\ufffd", 6);
	return n ? n : 1;
}

void ef_text_add_string(struct ef_text *text, const char *string, size_t size) {
	const unsigned char *s = (const unsigned char *)string;
	size_t left = strnlen(string, size);

	ef_text_add_bytes(text, "\"", 1);
	while (left) {
		size_t n = plain_run(s, left);

		if (n)
			ef_text_add_bytes(text, s, n);
		else
			n = add_odd(text, s, left);
		s += n;
		left -= n;
	}
	ef_text_add_bytes(text, "\"", 1);
}

void ef_text_add_uint(struct ef_text *text, uint64_t value) {
	char digits[20]; /* of 2^64 - 1 */
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	ef_text_add_bytes(text, digits + at, sizeof(digits) - at);
}
