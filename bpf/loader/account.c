/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "account.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernel.h"
#include "must.h"
#include "object.h"
#include "util.h"
#include "walk.h"

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

static void add_slot(void *ctx, const void *key, uint64_t value) {
	uint64_t *hist = ctx;
	uint32_t slot;

	memcpy(&slot, key, sizeof(slot));
	if (slot <= EF_HIST_SUM)
		hist[slot] += value;
}

int ef_hist_add(const struct bpf_map *map, uint64_t *hist) {
	return ef_walk(map, add_slot, hist);
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
	values = ef_must(calloc(room, ef_walk_value_bytes(map)));
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

json_t *ef_json_measured(int64_t value) {
	return value < 0 ? json_null() : json_integer(value);
}

json_t *ef_program_json(const struct bpf_program *program, bool with_stats) {
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);
	char tag[2 * sizeof(info.tag) + 1] = "";

	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size))
		return json_null();
	for (size_t i = 0; i < sizeof(info.tag); i++)
		snprintf(tag + 2 * i, 3, "%02x", info.tag[i]);
	return json_pack("{s:s, s:I, s:s, s:o, s:o, s:o}", "name", bpf_program__name(program), "id",
			 (json_int_t)info.id, "tag", tag, "run_cnt",
			 ef_json_measured(with_stats ? (int64_t)info.run_cnt : -1), "run_time_ns",
			 ef_json_measured(with_stats ? (int64_t)info.run_time_ns : -1),
			 "verified_insns",
			 ef_json_measured(info.verified_insns ? (int64_t)info.verified_insns : -1));
}

/*
 * Before 6.4 the kernel works a map's memory out from the sizes of key and
 * value, and a ring buffer has neither: then it is the ring's data.
 */
static int64_t map_memory(const struct bpf_map *map) {
	int64_t bytes = ef_fd_memory(bpf_map__fd(map));

	if (!bytes && bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF)
		return bpf_map__max_entries(map);
	return bytes;
}

json_t *ef_map_json(const struct bpf_map *map, uint64_t buffer_bytes) {
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);
	int64_t memory = map_memory(map);

	if (bpf_obj_get_info_by_fd(bpf_map__fd(map), &info, &size))
		return json_null();
	return json_pack("{s:s, s:I, s:s, s:I, s:o, s:o}", "name", ef_object_map_name(map), "id",
			 (json_int_t)info.id, "type", libbpf_bpf_map_type_str(info.type),
			 "max_entries", (json_int_t)info.max_entries, "entries",
			 ef_json_measured(ef_map_entries(map)), "memory_bytes",
			 ef_json_measured(memory < 0 ? -1 : memory + (int64_t)buffer_bytes));
}

int64_t ef_self_cpu_ns(void) {
	return ef_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

int64_t ef_self_rss_bytes(void) {
	_cleanup_fclose_ FILE *file = fopen("/proc/self/statm", "re");
	long pages;

	if (!file || fscanf(file, "%*d %ld", &pages) != 1)
		return -1;
	return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

int64_t ef_process_start_ns(int pid) {
	_cleanup_fclose_ FILE *file = NULL;
	char path[64], text[1024];
	const char *after_name;
	uint64_t ticks;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file || !fgets(text, sizeof(text), file))
		return -1;
	after_name = strrchr(text, ')'); /* the name may hold anything */
	if (!after_name || sscanf(after_name,
				  ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u "
				  "%*u %*d %*d %*d %*d %*d %*d %" SCNu64,
				  &ticks) != 1)
		return -1;
	return (int64_t)(ticks * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK)));
}
