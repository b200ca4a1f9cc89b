/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/walk.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "base/must.h"
#include "base/util.h"

#define MAX_KEY_BYTES 256
#define BATCH_BYTES (256 * 1024) /* of values in one batch, unless a bucket holds more */

/* One walk: where it is read from and what it is read into. */
struct walk {
	const struct bpf_map *map;
	int fd;
	size_t key_size, value_bytes;
	__u32 room; /* entries of the buffers */
	uint8_t *keys;
	uint64_t *values;
	ef_walk_fn fn;
	void *ctx;
};

static bool is_array(const struct bpf_map *map) {
	return bpf_map__type(map) == BPF_MAP_TYPE_ARRAY ||
	       bpf_map__type(map) == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static bool is_per_cpu(const struct bpf_map *map) {
	return bpf_map__type(map) == BPF_MAP_TYPE_PERCPU_ARRAY ||
	       bpf_map__type(map) == BPF_MAP_TYPE_PERCPU_HASH ||
	       bpf_map__type(map) == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

size_t ef_walk_value_bytes(const struct bpf_map *map) {
	size_t size = bpf_map__value_size(map);

	if (!is_per_cpu(map))
		return size;
	return (size + 7) / 8 * 8 * (size_t)libbpf_num_possible_cpus();
}

bool ef_walk_can(const struct bpf_map *map) {
	enum bpf_map_type type = bpf_map__type(map);

	return (is_array(map) || type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
		type == BPF_MAP_TYPE_PERCPU_HASH) &&
	       bpf_map__value_size(map) == sizeof(uint64_t) &&
	       bpf_map__key_size(map) <= MAX_KEY_BYTES;
}

/* Zeros: of a batch valgrind does not know that the kernel writes into it. */
static void make_room(struct walk *walk, size_t room) {
	free(walk->keys);
	free(walk->values);
	walk->room = (__u32)room;
	walk->keys = ef_must(calloc(room, walk->key_size));
	walk->values = ef_must(calloc(room, walk->value_bytes));
}

static void hand_over(const struct walk *walk, __u32 n) {
	size_t copies = walk->value_bytes / sizeof(uint64_t);

	for (__u32 i = 0; i < n; i++) {
		uint64_t sum = 0;

		for (size_t cpu = 0; cpu < copies; cpu++)
			sum += walk->values[i * copies + cpu];
		walk->fn(walk->ctx, walk->keys + i * walk->key_size, sum);
	}
}

/*
 * One batch from a position, which moves on; ENOSPC is a bucket that holds more
 * than there is room for. 0, -ENOENT after the last, or another -errno.
 */
static int next_batch(struct walk *walk, void **from, void *position) {
	for (;;) {
		uint8_t next[MAX_KEY_BYTES] = {0};
		__u32 n = walk->room;
		int err =
		    bpf_map_lookup_batch(walk->fd, *from, next, walk->keys, walk->values, &n, NULL)
			? -errno
			: 0;

		if (err == -ENOSPC && walk->room < bpf_map__max_entries(walk->map)) {
			make_room(walk, (size_t)walk->room * 2);
			continue;
		}
		if (err && err != -ENOENT)
			return err;
		hand_over(walk, n);
		memcpy(position, next, sizeof(next));
		*from = position;
		return err;
	}
}

/* *begun: something was handed over, so it is too late for another way. */
static int walk_batches(struct walk *walk, bool *begun) {
	uint8_t position[MAX_KEY_BYTES];
	void *from = NULL;
	int err;

	*begun = false;
	do {
		err = next_batch(walk, &from, position);
		*begun |= !err;
	} while (!err);
	return err == -ENOENT ? 0 : err;
}

/* An entry that is gone meanwhile is none. */
static int look_up(struct walk *walk, const void *key) {
	if (bpf_map_lookup_elem(walk->fd, key, walk->values))
		return errno == ENOENT ? 0 : -errno;
	memcpy(walk->keys, key, walk->key_size);
	hand_over(walk, 1);
	return 0;
}

static int walk_array(struct walk *walk) {
	for (__u32 i = 0; i < bpf_map__max_entries(walk->map); i++) {
		int err = look_up(walk, &i);

		if (err)
			return err;
	}
	return 0;
}

/* When a key is gone, the kernel starts from the first again: hence the bound. */
static int walk_keys(struct walk *walk) {
	uint8_t key[MAX_KEY_BYTES], next[MAX_KEY_BYTES];
	uint64_t left = 2 * (uint64_t)bpf_map__max_entries(walk->map);
	const void *from = NULL;

	while (left--) {
		int err;

		if (bpf_map_get_next_key(walk->fd, from, next))
			return errno == ENOENT ? 0 : -errno;
		err = look_up(walk, next);
		if (err)
			return err;
		memcpy(key, next, walk->key_size);
		from = key;
	}
	return -EAGAIN;
}

static size_t first_room(const struct walk *walk) {
	size_t room = BATCH_BYTES / walk->value_bytes, most = bpf_map__max_entries(walk->map);

	if (room < 16)
		room = 16;
	return room < most ? room : most;
}

int ef_walk(const struct bpf_map *map, ef_walk_fn fn, void *ctx) {
	struct walk walk = {.map = map,
			    .fd = bpf_map__fd(map),
			    .key_size = bpf_map__key_size(map),
			    .value_bytes = ef_walk_value_bytes(map),
			    .fn = fn,
			    .ctx = ctx};
	bool begun;
	int err;

	make_room(&walk, first_room(&walk));
	err = walk_batches(&walk, &begun);
	if (err && !begun)
		err = is_array(map) ? walk_array(&walk) : walk_keys(&walk);
	free(walk.keys);
	free(walk.values);
	return err;
}
