/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/labels.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/prom.h"

static bool hidden(const struct ef_field *field) {
	return !*field->name || *field->name == '_' || !strncmp(field->name, "pad", 3);
}

static void put_field(FILE *out, const struct ef_field *field, const void *key) {
	const uint8_t *at = (const uint8_t *)key + field->offset;

	fprintf(out, "%s=", field->name);
	if (field->kind == EF_FIELD_CHARS) {
		ef_prom_quoted(out, (const char *)at, field->size);
		return;
	}
	fputc('"', out);
	if (field->kind == EF_FIELD_UINT)
		fprintf(out, "%" PRIu64, ef_field_uint(field, key));
	else if (field->kind == EF_FIELD_INT)
		fprintf(out, "%" PRId64, ef_field_int(field, key));
	for (uint32_t i = 0; field->kind == EF_FIELD_BYTES && i < field->size; i++)
		fprintf(out, "%02x", at[i]);
	fputc('"', out);
}

void ef_labels_print(FILE *out, const struct ef_format *format, const void *key) {
	bool first = true;

	for (size_t i = 0; i < format->n_fields; i++) {
		if (hidden(&format->fields[i]))
			continue;
		if (!first)
			fputc(',', out);
		put_field(out, &format->fields[i], key);
		first = false;
	}
}
