/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_DICT_H
#define EF_DICT_H

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sum.h"

struct ef_dict_item {
	uint8_t *key; /* owned */
	size_t size;  /* of the key, bytes */
	struct ef_sum value;
};

/*
 * Sums by key, in the sequence in which they came, at most max of them. Keys
 * come from the kernel's maps, where any user's process may have put them:
 * hence a hash with a secret.
 */
struct ef_dict {
	size_t n, max;
	struct ef_dict_item *items;
	size_t room;	 /* of items */
	uint32_t *slots; /* index of the item plus 1; 0: free */
	size_t n_slots;	 /* a power of two, more than twice n */
	uint8_t secret[crypto_shorthash_KEYBYTES];
};

/* An empty one; ef_dict_clear() gives back what it grows to. */
void ef_dict_init(struct ef_dict *dict, size_t max);

/* Empty it and free its memory. */
void ef_dict_clear(struct ef_dict *dict);

/* The sum at a key; NULL: there is none. Valid until the next ef_dict_need(). */
struct ef_sum *ef_dict_find(const struct ef_dict *dict, const void *key, size_t size);

/* The same, put there as 0 when there is none. NULL: the dict is full. */
struct ef_sum *ef_dict_need(struct ef_dict *dict, const void *key, size_t size);

#endif
