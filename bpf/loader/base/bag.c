/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/bag.h"

#include <stdlib.h>
#include <string.h>

#include "base/must.h"

#define FIRST_ROOM 64 /* items */

void ef_bag_init(struct ef_bag *bag, size_t max) {
	memset(bag, 0, sizeof(*bag));
	bag->max = max;
	randombytes_buf(bag->secret, sizeof(bag->secret));
}

void ef_bag_clear(struct ef_bag *bag) {
	for (size_t i = 0; i < bag->n; i++)
		free(bag->items[i].key);
	free(bag->items);
	free(bag->slots);
	bag->items = NULL;
	bag->slots = NULL;
	bag->n = bag->room = bag->n_slots = 0;
}

/* The slot of a key: its own, or the free one where it belongs. There always is a free one. */
static uint32_t *slot_of(const struct ef_bag *bag, const void *key, size_t size) {
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t at;

	crypto_shorthash(hash, key, size, bag->secret);
	memcpy(&at, hash, sizeof(at));
	for (;; at++) {
		uint32_t *slot = &bag->slots[at & (bag->n_slots - 1)];
		const struct ef_bag_item *item;

		if (!*slot)
			return slot;
		item = &bag->items[*slot - 1];
		if (item->size == size && !memcmp(item->key, key, size))
			return slot;
	}
}

static void grow(struct ef_bag *bag) {
	bag->room = bag->room ? bag->room * 2 : FIRST_ROOM;
	bag->items = ef_must(realloc(bag->items, bag->room * sizeof(*bag->items)));
	free(bag->slots);
	bag->n_slots = bag->room * 4;
	bag->slots = ef_must(calloc(bag->n_slots, sizeof(*bag->slots)));
	for (size_t i = 0; i < bag->n; i++)
		*slot_of(bag, bag->items[i].key, bag->items[i].size) = (uint32_t)i + 1;
}

uint64_t *ef_bag_find(const struct ef_bag *bag, const void *key, size_t size) {
	const uint32_t *slot = bag->n ? slot_of(bag, key, size) : NULL;

	return slot && *slot ? &bag->items[*slot - 1].value : NULL;
}

uint64_t *ef_bag_need(struct ef_bag *bag, const void *key, size_t size) {
	uint64_t *found = ef_bag_find(bag, key, size);
	struct ef_bag_item *item;

	if (found)
		return found;
	if (bag->n == bag->max)
		return NULL;
	if (bag->n == bag->room)
		grow(bag);
	*slot_of(bag, key, size) = (uint32_t)bag->n + 1;
	item = &bag->items[bag->n++];
	item->key = ef_must(malloc(size ? size : 1));
	memcpy(item->key, key, size);
	item->size = size;
	item->value = 0;
	return &item->value;
}
