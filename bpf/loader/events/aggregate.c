/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/aggregate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"

#define SLOTS (2 * EF_AGGREGATE_GROUPS) /* a power of two, never more than half full */
#define NO_GROUP UINT16_MAX

struct ef_aggregate {
	struct ef_format key;		/* of a group, its fields packed */
	const struct ef_field **fields; /* owned list of the record's own: where they come from */
	uint8_t *keys;			/* EF_AGGREGATE_GROUPS of key.size bytes */
	struct ef_sum counts[EF_AGGREGATE_GROUPS];
	uint16_t slots[SLOTS]; /* index of a group, or NO_GROUP */
	size_t n;
	struct ef_sum others; /* that found no group */
};

static const struct ef_field *find(const struct ef_format *format, const char *name) {
	for (size_t i = 0; name && i < format->n_fields; i++)
		if (!strcmp(format->fields[i].name, name))
			return &format->fields[i];
	return NULL;
}

static int choose_fields(struct ef_aggregate *aggregate, const struct ef_format *format,
			 const json_t *by) {
	size_t n = json_array_size(by), i;
	json_t *name;

	aggregate->fields = ef_must(calloc(n + 1, sizeof(*aggregate->fields)));
	json_array_foreach (by, i, name) {
		aggregate->fields[i] = find(format, json_string_value(name));
		if (!aggregate->fields[i])
			return -ENOKEY;
	}
	return ef_format_pick(aggregate->fields, n, &aggregate->key);
}

static void forget(struct ef_aggregate *aggregate) {
	memset(aggregate->slots, 0xff, sizeof(aggregate->slots));
	aggregate->n = 0;
	aggregate->others = (struct ef_sum){0};
}

struct ef_aggregate *ef_aggregate_new(const struct ef_format *format, const json_t *by) {
	struct ef_aggregate *aggregate = ef_must(calloc(1, sizeof(*aggregate)));
	int err = choose_fields(aggregate, format, by);

	if (!err && aggregate->key.size > EF_AGGREGATE_KEY_BYTES)
		err = -E2BIG;
	if (err) {
		ef_aggregate_free(aggregate);
		errno = -err;
		return NULL;
	}
	aggregate->keys = ef_must(calloc(EF_AGGREGATE_GROUPS, aggregate->key.size + 1));
	forget(aggregate);
	return aggregate;
}

void ef_aggregate_free(struct ef_aggregate *aggregate) {
	if (!aggregate)
		return;
	ef_format_free(&aggregate->key);
	free(aggregate->fields);
	free(aggregate->keys);
	free(aggregate);
}

/* What stands behind a text's end does not belong to it. */
static void copy_field(uint8_t *to, const struct ef_field *from, const uint8_t *record) {
	size_t size = from->size;

	memset(to, 0, from->size);
	if (from->kind == EF_FIELD_CHARS)
		size = strnlen((const char *)record + from->offset, from->size);
	memcpy(to, record + from->offset, size);
}

static void make_key(const struct ef_aggregate *aggregate, const void *record, uint8_t *key) {
	for (size_t i = 0; i < aggregate->key.n_fields; i++)
		copy_field(key + aggregate->key.fields[i].offset, aggregate->fields[i], record);
}

/* FNV-1a, 32 bits. */
static uint32_t hash(const uint8_t *bytes, size_t n) {
	uint32_t value = 2166136261u;

	for (size_t i = 0; i < n; i++)
		value = (value ^ bytes[i]) * 16777619u;
	return value;
}

static uint8_t *key_of(const struct ef_aggregate *aggregate, size_t group) {
	return aggregate->keys + group * aggregate->key.size;
}

/* The slot of the key's group, or the free one where it belongs. */
static uint16_t *slot_of(struct ef_aggregate *aggregate, const uint8_t *key) {
	size_t size = aggregate->key.size, at = hash(key, size) % SLOTS;

	while (aggregate->slots[at] != NO_GROUP &&
	       memcmp(key_of(aggregate, aggregate->slots[at]), key, size) != 0)
		at = (at + 1) % SLOTS;
	return &aggregate->slots[at];
}

void ef_aggregate_add(struct ef_aggregate *aggregate, const void *record, uint64_t weight) {
	const struct ef_sum one = {1, weight};
	uint8_t key[EF_AGGREGATE_KEY_BYTES];
	uint16_t *slot;

	make_key(aggregate, record, key);
	slot = slot_of(aggregate, key);
	if (*slot == NO_GROUP) {
		if (aggregate->n == EF_AGGREGATE_GROUPS) {
			ef_sum_add(&aggregate->others, &one);
			return;
		}
		*slot = (uint16_t)aggregate->n++;
		memcpy(key_of(aggregate, *slot), key, aggregate->key.size);
		aggregate->counts[*slot] = (struct ef_sum){0};
	}
	ef_sum_add(&aggregate->counts[*slot], &one);
}

void ef_aggregate_tell(struct ef_aggregate *aggregate, ef_aggregate_fn tell, void *ctx) {
	for (size_t i = 0; i < aggregate->n; i++)
		tell(ctx, &aggregate->key, key_of(aggregate, i), &aggregate->counts[i]);
	if (ef_sum_raw(&aggregate->others))
		tell(ctx, NULL, NULL, &aggregate->others);
	forget(aggregate);
}
