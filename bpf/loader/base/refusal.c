/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/refusal.h"

#include <stdarg.h>
#include <stdio.h>

/* jansson takes only valid UTF-8, and a terminal should see no escape sequence. */
static void mask_unprintable(char *text) {
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

int ef_refuse(struct ef_refusal *why, const char *code, const char *file, const char *format, ...) {
	va_list args;

	why->code = code;
	snprintf(why->file, sizeof(why->file), "%s", file ? file : "");
	va_start(args, format);
	vsnprintf(why->reason, sizeof(why->reason), format, args);
	va_end(args);
	mask_unprintable(why->file);
	mask_unprintable(why->reason);
	return -1;
}

json_t *ef_refusal_json(const struct ef_refusal *why) {
	return json_pack("{s:b, s:s, s:s, s:s?}", "ok", 0, "reason_code", why->code, "reason",
			 why->reason, "file", why->file[0] ? why->file : NULL);
}
