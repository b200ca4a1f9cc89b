/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static enum ef_log_level log_level = EF_LOG_INFO;

void ef_log_set_level(enum ef_log_level level) {
	log_level = level;
}

static void mask_control_characters(char *text) {
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

void ef_log(enum ef_log_level level, const char *format, ...) {
	int saved_errno = errno;
	char message[4096];
	va_list args;

	if (level > log_level)
		return;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	mask_control_characters(message);
	if (getenv("JOURNAL_STREAM"))
		fprintf(stderr, "<%d>%s\n", level, message);
	else
		fprintf(stderr, "ebpf-loader: %s\n", message);
	errno = saved_errno;
}
