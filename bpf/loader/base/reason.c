/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/reason.h"

#include <stdarg.h>
#include <stdio.h>

void ef_reason_set(struct ef_reason *reason, const char *code, const char *format, ...) {
	va_list args;

	reason->code = code;
	va_start(args, format);
	vsnprintf(reason->text, sizeof(reason->text), format, args);
	va_end(args);
	for (char *c = reason->text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = ' ';
}

const char *ef_reason_code(const struct ef_reason *reason) {
	return reason->code;
}

const char *ef_reason_text(const struct ef_reason *reason) {
	return reason->text;
}
