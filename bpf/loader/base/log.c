/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"

static bool never_wait;

void ef_log_never_wait(void) {
	never_wait = true;
}

/* A pipe or socket that is ready takes PIPE_BUF bytes at once. */
static bool is_ready(void) {
	struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};

	return !never_wait || poll(&out, 1, 0) > 0;
}

static void put(const char *text, size_t size) {
	while (size && is_ready()) {
		ssize_t n = write(STDERR_FILENO, text, size < PIPE_BUF ? size : PIPE_BUF);

		if (n < 0 && errno != EINTR)
			return;
		text += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
}

static void put_line(enum ef_log_level level, const char *prefix, const char *text) {
	_cleanup_free_ char *line = NULL;
	int size;

	if (getenv("JOURNAL_STREAM"))
		size = asprintf(&line, "<%d>%s\n", level, text);
	else
		size = asprintf(&line, "%s%s\n", prefix, text);
	if (size < 0)
		line = NULL; /* asprintf leaves it undefined */
	else
		put(line, (size_t)size);
}

void ef_log_line(enum ef_log_level level, const char *prefix, const char *text) {
	static unsigned lost;
	char line[64];

	if (!is_ready()) {
		lost++;
		return;
	}
	if (lost) {
		snprintf(line, sizeof(line), "%u messages were lost: no one read them", lost);
		put_line(EF_LOG_WARNING, "ebpf-loader: ", line);
	}
	lost = 0;
	put_line(level, prefix, text);
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

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	mask_control_characters(message);
	ef_log_line(level, "ebpf-loader: ", message);
	errno = saved_errno;
}
