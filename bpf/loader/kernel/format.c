/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/format.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"
#include "base/util.h"

static const char *const kind_names[] = {"uint", "int", "chars", "bytes"};

#define PICKED_BYTES_MAX 65536
#define TYPEDEFS_MAX 32 /* as btf__resolve_size() */

/*
 * What libbpf takes as BTF may still name itself as its own type, or lie about
 * where a name is (libbpf 1.1 looks at neither): nothing is believed here.
 */

/* The type behind typedefs and const, or NULL. */
static const struct btf_type *resolve(const struct btf *btf, __u32 id) {
	const struct btf_type *type = btf__type_by_id(btf, id);

	for (int i = 0; type && (btf_is_mod(type) || btf_is_typedef(type)); i++)
		type = i < TYPEDEFS_MAX ? btf__type_by_id(btf, type->type) : NULL;
	return type;
}

/* A field's name becomes a key and a label as it is: a word of C, or "". */
static bool is_word(const char *name) {
	static const char letters[] = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

	if (!name || (*name && !strchr(letters, *name)))
		return false;
	for (; *name; name++)
		if (!strchr(letters, *name) && (*name < '0' || *name > '9'))
			return false;
	return true;
}

static bool is_number(const struct btf_type *type) {
	return (btf_is_int(type) || btf_is_enum(type)) &&
	       (type->size == 1 || type->size == 2 || type->size == 4 || type->size == 8);
}

/* "char" by its name: its encoding is that of a signed integer. */
static bool is_char(const struct btf *btf, const struct btf_type *type) {
	const char *name = type ? btf__name_by_offset(btf, type->name_off) : NULL;

	return name && btf_is_int(type) && type->size == 1 && !strcmp(name, "char");
}

static enum ef_field_kind kind_of(const struct btf *btf, const struct btf_type *type) {
	if (is_number(type)) {
		bool is_signed = btf_is_int(type) && (btf_int_encoding(type) & BTF_INT_SIGNED);

		return is_signed ? EF_FIELD_INT : EF_FIELD_UINT;
	}
	if (btf_is_array(type) && is_char(btf, resolve(btf, btf_array(type)->type)))
		return EF_FIELD_CHARS;
	return EF_FIELD_BYTES;
}

/*
 * What stands before a field's value, made once and not for each record. A name
 * that the line has already gets a "_": two equal keys make it unreadable to most.
 */
static void make_key(struct ef_field *field, bool first) {
	static const char *const taken[] = {"time", "feature", "event", "aggregated"};
	const char *comma = first ? "" : ", ";
	bool again = false;
	int length;

	for (size_t i = 0; i < EF_ARRAY_SIZE(taken); i++)
		again |= !strcmp(field->name, taken[i]);
	if (*field->name)
		length =
		    asprintf(&field->key, "%s\"%s%s\": ", comma, field->name, again ? "_" : "");
	else
		length = asprintf(&field->key, "%s\"at_%u\": ", comma, field->offset);
	if (length < 0)
		field->key = NULL;
	field->key_length = strlen(ef_must(field->key));
}

static int read_field(const struct btf *btf, const struct btf_type *record, __u32 index,
		      struct ef_field *field) {
	const struct btf_member *member = btf_members(record) + index;
	const struct btf_type *type = resolve(btf, member->type);
	__u32 bit = btf_member_bit_offset(record, index);
	__s64 size = btf__resolve_size(btf, member->type);

	field->name = btf__name_by_offset(btf, member->name_off);
	if (!type || size < 0 || bit % 8 || btf_member_bitfield_size(record, index) ||
	    !is_word(field->name))
		return -EINVAL;
	field->offset = bit / 8;
	field->size = (uint32_t)size;
	field->kind = kind_of(btf, type);
	make_key(field, index == 0);
	return (__u64)field->offset + (__u64)size <= record->size ? 0 : -EINVAL;
}

int ef_format_read(const struct btf *btf, const char *name, struct ef_format *format) {
	__s32 id = btf ? btf__find_by_name_kind(btf, name, BTF_KIND_STRUCT) : -ENOENT;
	const struct btf_type *record = id > 0 ? btf__type_by_id(btf, (__u32)id) : NULL;

	memset(format, 0, sizeof(*format));
	if (!record)
		return -ENOENT;
	format->size = record->size;
	format->n_fields = btf_vlen(record);
	format->fields = ef_must(calloc(format->n_fields + 1, sizeof(*format->fields)));
	for (size_t i = 0; i < format->n_fields; i++)
		if (read_field(btf, record, (__u32)i, &format->fields[i])) {
			ef_format_free(format);
			return -EINVAL;
		}
	return 0;
}

int ef_format_pick(const struct ef_field *const *fields, size_t n, struct ef_format *format) {
	memset(format, 0, sizeof(*format));
	format->n_fields = n;
	format->fields = ef_must(calloc(n + 1, sizeof(*format->fields)));
	for (size_t i = 0; i < n; i++) {
		struct ef_field *field = &format->fields[i];

		*field = *fields[i];
		field->offset = format->size;
		make_key(field, i == 0);
		if (field->size > PICKED_BYTES_MAX - format->size)
			return -E2BIG;
		format->size += field->size;
	}
	return 0;
}

void ef_format_free(struct ef_format *format) {
	for (size_t i = 0; format->fields && i < format->n_fields; i++)
		free(format->fields[i].key);
	free(format->fields);
	memset(format, 0, sizeof(*format));
}

int ef_format_check_event(const struct ef_format *format) {
	const struct ef_field *first = format->fields;

	if (!format->n_fields || strcmp(first->name, "ktime_ns"))
		return -EINVAL;
	return first->offset == 0 && first->size == 8 && first->kind == EF_FIELD_UINT ? 0 : -EINVAL;
}

const struct ef_field *ef_format_weight(const struct ef_format *format) {
	for (size_t i = 0; i < format->n_fields; i++) {
		const struct ef_field *field = &format->fields[i];

		if (!strcmp(field->name, "weight"))
			return field->size == 8 && field->kind == EF_FIELD_UINT ? field : NULL;
	}
	return NULL;
}

json_t *ef_format_json(const struct ef_format *format) {
	json_t *list = json_array();

	for (size_t i = 0; i < format->n_fields; i++) {
		const struct ef_field *field = &format->fields[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:i, s:i, s:s}", "name", field->name,
						"offset", (int)field->offset, "size",
						(int)field->size, "kind", kind_names[field->kind]));
	}
	return list;
}

static void add_int(struct ef_text *text, int64_t value) {
	if (value < 0)
		ef_text_add_bytes(text, "-", 1);
	ef_text_add_uint(text, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

static uint64_t load_uint(const void *at, uint32_t size) {
	uint64_t wide = 0;
	uint32_t word;
	uint16_t half;

	if (size == 8) {
		memcpy(&wide, at, 8);
		return wide;
	}
	if (size == 4) {
		memcpy(&word, at, 4);
		return word;
	}
	if (size == 2) {
		memcpy(&half, at, 2);
		return half;
	}
	return *(const uint8_t *)at;
}

static int64_t load_int(const void *at, uint32_t size) {
	unsigned shift = 64 - 8 * size;

	return (int64_t)(load_uint(at, size) << shift) >> shift;
}

uint64_t ef_field_uint(const struct ef_field *field, const void *record) {
	return load_uint((const uint8_t *)record + field->offset, field->size);
}

int64_t ef_field_int(const struct ef_field *field, const void *record) {
	return load_int((const uint8_t *)record + field->offset, field->size);
}

static void add_hex(struct ef_text *text, const uint8_t *bytes, uint32_t size) {
	static const char digits[] = "0123456789abcdef";

	ef_text_add_bytes(text, "\"", 1);
	for (uint32_t i = 0; i < size; i++) {
		const char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};

		ef_text_add_bytes(text, pair, sizeof(pair));
	}
	ef_text_add_bytes(text, "\"", 1);
}

void ef_text_add_fields(struct ef_text *text, const struct ef_format *format, const void *record) {
	for (size_t i = 0; i < format->n_fields; i++) {
		const struct ef_field *field = &format->fields[i];
		const void *at = (const uint8_t *)record + field->offset;

		ef_text_add_bytes(text, field->key, field->key_length);
		if (field->kind == EF_FIELD_UINT)
			ef_text_add_uint(text, ef_field_uint(field, record));
		else if (field->kind == EF_FIELD_INT)
			add_int(text, ef_field_int(field, record));
		else if (field->kind == EF_FIELD_CHARS)
			ef_text_add_string(text, at, field->size);
		else
			add_hex(text, at, field->size);
	}
}
