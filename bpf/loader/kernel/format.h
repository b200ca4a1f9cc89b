/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FORMAT_H
#define EF_FORMAT_H

#include <bpf/btf.h>
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

#define EF_RECORD_BYTES 8192   /* the longest record that is read */
#define EF_RING_HEADER_BYTES 8 /* BPF_RINGBUF_HDR_SZ: what the kernel's ring adds to each */

enum ef_field_kind { EF_FIELD_UINT, EF_FIELD_INT, EF_FIELD_CHARS, EF_FIELD_BYTES };

struct ef_field {
	const char *name; /* the BTF's */
	uint32_t offset;  /* bytes */
	uint32_t size;	  /* bytes */
	enum ef_field_kind kind;
	char *key;	   /* owned: what stands before its value in a line, `, "pid": ` */
	size_t key_length; /* bytes */
};

/* The fields of a record, as its struct in the object's BTF says. */
struct ef_format {
	uint32_t size; /* bytes */
	size_t n_fields;
	struct ef_field *fields;
};

/*
 * Read the struct of that name. 0: the caller frees with ef_format_free(); the
 * BTF must outlive it. -ENOENT: no such struct; -EINVAL: a bit field, or a
 * field that has no word of C as its name or does not lie within the struct.
 */
int ef_format_read(const struct btf *btf, const char *name, struct ef_format *format);

void ef_format_free(struct ef_format *format);

/*
 * The fields of a record, packed one behind the other, as a format of its own.
 * 0: as ef_format_read(); -E2BIG: longer than any record.
 */
int ef_format_pick(const struct ef_field *const *fields, size_t n, struct ef_format *format);

/* An events record must begin with u64 ktime_ns. 0 or -EINVAL. */
int ef_format_check_event(const struct ef_format *format);

/* The number of occurrences that a record stands for, u64 weight; NULL: it carries none. */
const struct ef_field *ef_format_weight(const struct ef_format *format);

/* [{"name", "offset", "size", "kind"}]: a new reference. */
json_t *ef_format_json(const struct ef_format *format);

/* The number of a field of kind EF_FIELD_UINT or EF_FIELD_INT. */
uint64_t ef_field_uint(const struct ef_field *field, const void *record);
int64_t ef_field_int(const struct ef_field *field, const void *record);

/*
 * The record's fields as the inside of a JSON object: `"pid": 1, ...`.
 * record has at least format->size bytes. A field without a name is named by
 * its offset, and one that a line of events.jsonl has already (time, feature,
 * event) gets a "_" behind it.
 */
void ef_text_add_fields(struct ef_text *text, const struct ef_format *format, const void *record);

#endif
