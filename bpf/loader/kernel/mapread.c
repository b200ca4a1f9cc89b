/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/mapread.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "base/must.h"
#include "base/util.h"

#define MAX_KEY_BYTES 256
#define BATCH_BYTES (256 * 1024) /* of values in one batch, unless a bucket holds more */

/* One reading of a map: where it is read from, and what into. */
struct reading {
	const struct bpf_map *map;
	int fd;
	size_t key_size, value_bytes;
	__u32 room; /* entries of the buffers */
	uint8_t *keys;
	uint64_t *values;
	ef_mapread_fn fn;
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

size_t ef_mapread_value_bytes(const struct bpf_map *map) {
	size_t size = bpf_map__value_size(map);

	if (!is_per_cpu(map))
		return size;
	return (size + 7) / 8 * 8 * (size_t)libbpf_num_possible_cpus();
}

bool ef_mapread_weighs(const struct bpf_map *map) {
	return bpf_map__value_size(map) == sizeof(struct ef_sum);
}

bool ef_mapread_can(const struct bpf_map *map) {
	enum bpf_map_type type = bpf_map__type(map);

	return (is_array(map) || type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
		type == BPF_MAP_TYPE_PERCPU_HASH) &&
	       (bpf_map__value_size(map) == sizeof(uint64_t) || ef_mapread_weighs(map)) &&
	       bpf_map__key_size(map) <= MAX_KEY_BYTES;
}

/* Zeros: of a batch valgrind does not know that the kernel writes into it. */
static void make_room(struct reading *reading, size_t room) {
	free(reading->keys);
	free(reading->values);
	reading->room = (__u32)room;
	reading->keys = ef_must(calloc(room, reading->key_size));
	reading->values = ef_must(calloc(room, reading->value_bytes));
}

static void hand_over(const struct reading *reading, __u32 n) {
	bool weighs = ef_mapread_weighs(reading->map);
	size_t words = reading->value_bytes / sizeof(uint64_t), step = weighs ? 2 : 1;

	for (__u32 i = 0; i < n; i++) {
		const uint64_t *value = reading->values + i * words;
		struct ef_sum sum = {0};

		for (size_t at = 0; at < words; at += step) {
			sum.raw += value[at];
			sum.weighted += weighs ? value[at + 1] : 0;
		}
		reading->fn(reading->ctx, reading->keys + i * reading->key_size, &sum);
	}
}

/*
 * One batch from a position, which moves on; ENOSPC is a bucket that holds more
 * than there is room for. 0, -ENOENT after the last, or another -errno.
 */
static int next_batch(struct reading *reading, void **from, void *position) {
	for (;;) {
		uint8_t next[MAX_KEY_BYTES] = {0};
		__u32 n = reading->room;
		int err = bpf_map_lookup_batch(reading->fd, *from, next, reading->keys,
					       reading->values, &n, NULL)
			      ? -errno
			      : 0;

		if (err == -ENOSPC && reading->room < bpf_map__max_entries(reading->map)) {
			make_room(reading, (size_t)reading->room * 2);
			continue;
		}
		if (err && err != -ENOENT)
			return err;
		hand_over(reading, n);
		memcpy(position, next, sizeof(next));
		*from = position;
		return err;
	}
}

/* *begun: something was handed over, so it is too late for another way. */
static int read_batches(struct reading *reading, bool *begun) {
	uint8_t position[MAX_KEY_BYTES];
	void *from = NULL;
	int err;

	*begun = false;
	do {
		err = next_batch(reading, &from, position);
		*begun |= !err;
	} while (!err);
	return err == -ENOENT ? 0 : err;
}

/* An entry that is gone meanwhile is passed over. */
static int read_entry(struct reading *reading, const void *key) {
	if (bpf_map_lookup_elem(reading->fd, key, reading->values))
		return errno == ENOENT ? 0 : -errno;
	memcpy(reading->keys, key, reading->key_size);
	hand_over(reading, 1);
	return 0;
}

static int read_array(struct reading *reading) {
	for (__u32 i = 0; i < bpf_map__max_entries(reading->map); i++) {
		int err = read_entry(reading, &i);

		if (err)
			return err;
	}
	return 0;
}

/* When a key is gone, the kernel starts from the first again: hence the bound. */
static int read_keys(struct reading *reading) {
	uint8_t key[MAX_KEY_BYTES], next[MAX_KEY_BYTES];
	uint64_t left = 2 * (uint64_t)bpf_map__max_entries(reading->map);
	const void *from = NULL;

	while (left--) {
		int err;

		if (bpf_map_get_next_key(reading->fd, from, next))
			return errno == ENOENT ? 0 : -errno;
		err = read_entry(reading, next);
		if (err)
			return err;
		memcpy(key, next, reading->key_size);
		from = key;
	}
	return -EAGAIN;
}

static size_t first_room(const struct reading *reading) {
	size_t room = BATCH_BYTES / reading->value_bytes, most = bpf_map__max_entries(reading->map);

	if (room < 16)
		room = 16;
	return room < most ? room : most;
}

int ef_mapread(const struct bpf_map *map, ef_mapread_fn fn, void *ctx) {
	struct reading reading = {.map = map,
				  .fd = bpf_map__fd(map),
				  .key_size = bpf_map__key_size(map),
				  .value_bytes = ef_mapread_value_bytes(map),
				  .fn = fn,
				  .ctx = ctx};
	bool begun;
	int err;

	make_room(&reading, first_room(&reading));
	err = read_batches(&reading, &begun);
	if (err && !begun)
		err = is_array(map) ? read_array(&reading) : read_keys(&reading);
	free(reading.keys);
	free(reading.values);
	return err;
}
