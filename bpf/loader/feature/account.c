/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/account.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/must.h"
#include "base/util.h"
#include "feature/object.h"
#include "kernel/kernel.h"
#include "kernel/mapread.h"

enum { PRODUCED, DELIVERED, DROPPED, SAMPLED_OUT }; /* as in bpf/include/ef.h */

/* One slot of an array of u64, summed over the possible CPUs where it is per CPU. */
static int sum_slot(int map_fd, uint32_t slot, uint64_t *sum) {
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ uint64_t *values = NULL;

	if (cpus < 0)
		return cpus;
	values = ef_must(calloc((size_t)cpus, sizeof(*values)));
	if (bpf_map_lookup_elem(map_fd, &slot, values))
		return -errno;
	*sum = 0;
	for (int i = 0; i < cpus; i++)
		*sum += values[i];
	return 0;
}

int ef_counters_read(int map_fd, struct ef_counters *counters) {
	int err = sum_slot(map_fd, DELIVERED, &counters->delivered);

	if (!err)
		err = sum_slot(map_fd, DROPPED, &counters->dropped);
	if (!err)
		err = sum_slot(map_fd, SAMPLED_OUT, &counters->sampled_out);
	return err ? err : sum_slot(map_fd, PRODUCED, &counters->produced);
}

uint64_t ef_counters_in_flight(const struct ef_counters *counters) {
	uint64_t done = counters->delivered + counters->dropped + counters->sampled_out;

	return counters->produced > done ? counters->produced - done : 0;
}

static void add_slot(void *ctx, const void *key, const struct ef_sum *value) {
	struct ef_sum *hist = ctx;
	uint32_t slot;

	memcpy(&slot, key, sizeof(slot));
	if (slot <= EF_HIST_SUM)
		ef_sum_add(&hist[slot], value);
}

int ef_hist_add(const struct bpf_map *map, struct ef_sum *hist) {
	return ef_mapread(map, add_slot, hist);
}

int64_t ef_fd_memory(int fd) {
	_cleanup_fclose_ FILE *file = NULL;
	char path[64], line[128];
	int64_t bytes;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "memlock: %" SCNd64, &bytes) == 1)
			return bytes;
	return -1;
}

static bool is_hash(enum bpf_map_type type) {
	return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH ||
	       type == BPF_MAP_TYPE_PERCPU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

int64_t ef_map_entries(const struct bpf_map *map) {
	_cleanup_free_ void *keys = NULL, *values = NULL;
	char position[256];
	const __u32 room = 1024; /* more than any bucket holds */
	int64_t entries = 0;
	void *from = NULL;

	if (!is_hash(bpf_map__type(map)) || bpf_map__key_size(map) > sizeof(position))
		return -1;
	keys = ef_must(calloc(room, bpf_map__key_size(map)));
	values = ef_must(calloc(room, ef_mapread_value_bytes(map)));
	for (;;) {
		__u32 n = room;
		int err =
		    bpf_map_lookup_batch(bpf_map__fd(map), from, position, keys, values, &n, NULL);

		if (err && errno != ENOENT)
			return -1;
		entries += n;
		if (err)
			return entries;
		from = position;
	}
}

int64_t ef_link_id(int fd) {
	struct bpf_link_info info = {0};
	__u32 size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) ? -1 : (int64_t)info.id;
}
