/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/prom.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/text.h"

/* In HELP a quote stands for itself, in a label's value it does not. */
static void put_escaped(FILE *out, const char *text, size_t size, bool quoted) {
	const unsigned char *s = (const unsigned char *)text;
	size_t length = strnlen(text, size);

	for (size_t i = 0; i < length;) {
		size_t n = ef_utf8_length(s + i, length - i);

		if (s[i] == '\n')
			fputs("\\n", out);
		else if (s[i] == '\\' || (quoted && s[i] == '"'))
			fprintf(out, "\\%c", s[i]);
		else if (n)
			fwrite(s + i, 1, n, out);
		else
			fputs("\xef\xbf\xbd", out);
		i += n ? n : 1;
	}
}

void ef_prom_head(FILE *out, const char *name, const char *type, const char *help) {
	fprintf(out, "# HELP ebpf_fleet_%s ", name);
	put_escaped(out, help, strlen(help), false);
	fprintf(out, "\n# TYPE ebpf_fleet_%s %s\n", name, type);
}

void ef_prom_quoted(FILE *out, const char *value, size_t size) {
	fputc('"', out);
	put_escaped(out, value, size, true);
	fputc('"', out);
}

void ef_prom_label(FILE *out, const char *value) {
	ef_prom_quoted(out, value, strlen(value));
}

void ef_prom_decimal(FILE *out, uint64_t n, int digits) {
	uint64_t unit = 1, rest;
	char fraction[32];

	for (int i = 0; i < digits; i++)
		unit *= 10;
	fprintf(out, "%" PRIu64, n / unit);
	rest = n % unit;
	if (!rest)
		return;
	snprintf(fraction, sizeof(fraction), "%0*" PRIu64, digits > 18 ? 18 : digits, rest);
	for (size_t end = strlen(fraction); end && fraction[end - 1] == '0'; end--)
		fraction[end - 1] = 0;
	fprintf(out, ".%s", fraction);
}
