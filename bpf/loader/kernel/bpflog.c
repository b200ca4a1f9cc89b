/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/bpflog.h"

#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

static char tail[EF_BPFLOG_TAIL + 1];
static char first[256];

static void make_printable(char *text) {
	for (; *text; text++)
		if ((*text < ' ' || *text > '~') && *text != '\n')
			*text = ' ';
}

static void keep_tail(const char *text, size_t length) {
	size_t have = strlen(tail);

	if (length >= EF_BPFLOG_TAIL) {
		text += length - EF_BPFLOG_TAIL;
		length = EF_BPFLOG_TAIL;
	}
	if (have + length > EF_BPFLOG_TAIL) {
		size_t cut = have + length - EF_BPFLOG_TAIL;

		memmove(tail, tail + cut, have - cut);
		have -= cut;
	}
	memcpy(tail + have, text, length);
	tail[have + length] = 0;
}

static void keep_first(const char *text) {
	if (first[0])
		return;
	if (!strncmp(text, "libbpf: ", 8))
		text += 8;
	snprintf(first, sizeof(first), "%.*s", (int)strcspn(text, "\n"), text);
}

static int on_message(enum libbpf_print_level level, const char *format, va_list args) {
	_cleanup_free_ char *text = NULL;
	int length;

	if (level != LIBBPF_WARN)
		return 0;
	length = vasprintf(&text, format, args);
	if (length < 0) {
		text = NULL; /* vasprintf leaves it undefined */
		return 0;
	}
	make_printable(text);
	keep_first(text);
	keep_tail(text, (size_t)length);
	return 0;
}

void ef_bpflog_start(void) {
	libbpf_set_print(on_message);
}

void ef_bpflog_reset(void) {
	tail[0] = first[0] = 0;
}

const char *ef_bpflog_tail(void) {
	return tail;
}

const char *ef_bpflog_first(void) {
	return first;
}
