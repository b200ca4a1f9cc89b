/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * BTF of an object: each of its structs becomes the format of a record, and a
 * record of that length a line of events.jsonl, a series' labels and a group
 * of records that are told together.
 */
#include <bpf/libbpf.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/prom.h"
#include "base/util.h"
#include "events/aggregate.h"
#include "fuzz.h"
#include "kernel/format.h"
#include "kernel/labels.h"

#define RECORD_MAX 8192 /* as feed.c */

static int quiet(enum libbpf_print_level level, const char *format, va_list args) {
	(void)level, (void)format, (void)args;
	return 0;
}

/* Of its exact length, so that a byte beyond it is seen. */
static void decode(const struct ef_format *format, const uint8_t *data, size_t size) {
	_cleanup_free_ uint8_t *record = calloc(1, format->size ? format->size : 1);
	_cleanup_free_ char *line = malloc(RECORD_MAX), *labels = NULL;
	struct ef_text text = {.at = line, .size = RECORD_MAX};
	size_t length = 0;
	FILE *out = open_memstream(&labels, &length);

	if (!record || !line || !out)
		abort();
	memcpy(record, data, size < format->size ? size : format->size);
	ef_text_add_fields(&text, format, record);
	ef_labels_print(out, format, record);
	fclose(out);
}

/* The same bytes again and again, so that groups repeat and their table fills up. */
static void group(struct ef_aggregate *groups, const struct ef_format *format, const uint8_t *data,
		  size_t size) {
	_cleanup_free_ uint8_t *record = calloc(1, format->size ? format->size : 1);

	if (!record)
		abort();
	for (size_t i = 0; i < 2 * EF_AGGREGATE_GROUPS; i++) {
		if (size && format->size)
			record[i % format->size] ^= data[i % size];
		ef_aggregate_add(groups, record, 1);
	}
}

static void count(void *ctx, const struct ef_format *format, const void *key,
		  const struct ef_sum *sum) {
	struct ef_text text = {.at = (char[RECORD_MAX]){0}, .size = RECORD_MAX};

	if (key)
		ef_text_add_fields(&text, format, key);
	*(uint64_t *)ctx += ef_sum_raw(sum);
}

static void aggregate(const struct ef_format *format, const uint8_t *data, size_t size) {
	_cleanup_json_ json_t *by = json_array();
	struct ef_aggregate *groups;
	uint64_t told = 0;

	for (size_t i = 0; i < format->n_fields && i < 8; i++)
		json_array_append_new(by, json_string(format->fields[i].name));
	groups = ef_aggregate_new(format, by);
	if (!groups)
		return;
	group(groups, format, data, size);
	ef_aggregate_tell(groups, count, &told);
	if (told != 2 * EF_AGGREGATE_GROUPS)
		abort();
	ef_aggregate_free(groups);
}

static void try_struct(const struct btf *btf, const char *name, const struct fuzz_halves *halves) {
	struct ef_format format;

	if (ef_format_read(btf, name, &format))
		return;
	ef_format_check_event(&format);
	json_decref(ef_format_json(&format));
	if (format.size <= RECORD_MAX) {
		decode(&format, halves->second, halves->second_size);
		aggregate(&format, halves->second, halves->second_size);
	}
	ef_format_free(&format);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct fuzz_halves halves = fuzz_split(data, size);
	_cleanup_free_ char *copy = fuzz_text(halves.first, halves.first_size);
	struct btf *btf;

	libbpf_set_print(quiet);
	btf = btf__new(copy, (__u32)halves.first_size);
	for (__u32 id = 1; btf && id < btf__type_cnt(btf); id++) {
		const struct btf_type *type = btf__type_by_id(btf, id);
		const char *name = btf__name_by_offset(btf, type->name_off);

		if (btf_is_struct(type) && name)
			try_struct(btf, name, &halves);
	}
	btf__free(btf);
	return 0;
}
