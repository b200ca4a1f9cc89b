/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/dict.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"

#define FIRST_ROOM 64 /* items */

void ef_dict_init(struct ef_dict *dict, size_t max) {
	memset(dict, 0, sizeof(*dict));
	dict->max = max;
	randombytes_buf(dict->secret, sizeof(dict->secret));
}

void ef_dict_clear(struct ef_dict *dict) {
	for (size_t i = 0; i < dict->n; i++)
		free(dict->items[i].key);
	free(dict->items);
	free(dict->slots);
	dict->items = NULL;
	dict->slots = NULL;
	dict->n = dict->room = dict->n_slots = 0;
}

/* The slot of a key: its own, or the free one where it belongs. There always is a free one. */
static uint32_t *slot_of(const struct ef_dict *dict, const void *key, size_t size) {
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t at;

	crypto_shorthash(hash, key, size, dict->secret);
	memcpy(&at, hash, sizeof(at));
	for (;; at++) {
		uint32_t *slot = &dict->slots[at & (dict->n_slots - 1)];
		const struct ef_dict_item *item;

		if (!*slot)
			return slot;
		item = &dict->items[*slot - 1];
		if (item->size == size && !memcmp(item->key, key, size))
			return slot;
	}
}

static void grow(struct ef_dict *dict) {
	dict->room = dict->room ? dict->room * 2 : FIRST_ROOM;
	dict->items = ef_must(realloc(dict->items, dict->room * sizeof(*dict->items)));
	free(dict->slots);
	dict->n_slots = dict->room * 4;
	dict->slots = ef_must(calloc(dict->n_slots, sizeof(*dict->slots)));
	for (size_t i = 0; i < dict->n; i++)
		*slot_of(dict, dict->items[i].key, dict->items[i].size) = (uint32_t)i + 1;
}

struct ef_sum *ef_dict_find(const struct ef_dict *dict, const void *key, size_t size) {
	const uint32_t *slot = dict->n ? slot_of(dict, key, size) : NULL;

	return slot && *slot ? &dict->items[*slot - 1].value : NULL;
}

struct ef_sum *ef_dict_need(struct ef_dict *dict, const void *key, size_t size) {
	struct ef_sum *found = ef_dict_find(dict, key, size);
	struct ef_dict_item *item;

	if (found)
		return found;
	if (dict->n == dict->max)
		return NULL;
	if (dict->n == dict->room)
		grow(dict);
	*slot_of(dict, key, size) = (uint32_t)dict->n + 1;
	item = &dict->items[dict->n++];
	item->key = ef_must(malloc(size ? size : 1));
	memcpy(item->key, key, size);
	item->size = size;
	item->value = (struct ef_sum){0};
	return &item->value;
}
