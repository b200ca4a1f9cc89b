/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BAG_H
#define EF_BAG_H

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ef_bag_item {
	uint8_t *key; /* owned */
	size_t size;  /* of the key, bytes */
	uint64_t value;
};

/*
 * Numbers by key, in the order in which they came, at most max of them. Keys
 * come from the kernel's maps, where any user's process may have put them:
 * hence a hash with a secret.
 */
struct ef_bag {
	size_t n, max;
	struct ef_bag_item *items;
	size_t room;	 /* of items */
	uint32_t *slots; /* index of the item plus 1; 0: free */
	size_t n_slots;	 /* a power of two, more than twice n */
	uint8_t secret[crypto_shorthash_KEYBYTES];
};

/* An empty bag; ef_bag_clear() gives back what it grows to. */
void ef_bag_init(struct ef_bag *bag, size_t max);

/* Empty it and free its memory. */
void ef_bag_clear(struct ef_bag *bag);

/* The number at a key; NULL: there is none. Valid until the next ef_bag_need(). */
uint64_t *ef_bag_find(const struct ef_bag *bag, const void *key, size_t size);

/* The same, put there as 0 when there is none. NULL: the bag is full. */
uint64_t *ef_bag_need(struct ef_bag *bag, const void *key, size_t size);

#endif
