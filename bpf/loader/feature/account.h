/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_ACCOUNT_H
#define EF_ACCOUNT_H

#include <bpf/libbpf.h>
#include <stdint.h>

#include "base/sum.h"

#define EF_HIST_SLOTS 64
#define EF_HIST_SUM 64 /* index of the sum of all values */

/* Events of one feature; what is in no field yet is in flight. */
struct ef_counters {
	uint64_t produced;
	uint64_t delivered;
	uint64_t dropped;
	uint64_t sampled_out;
};

/*
 * Read the map ef_counters, summed over the CPUs. "produced" is read last:
 * every outcome was produced before it was counted, so in flight is never
 * negative. 0 or -errno.
 */
int ef_counters_read(int map_fd, struct ef_counters *counters);

/* produced minus the outcomes, 0 at least. */
uint64_t ef_counters_in_flight(const struct ef_counters *counters);

/*
 * Add a histogram's map (see ef_mapread_can()), summed over the CPUs, to
 * hist[EF_HIST_SLOTS + 1]. 0 or -errno.
 */
int ef_hist_add(const struct bpf_map *map, struct ef_sum *hist);

/* Bytes that the kernel charges for a map or program, from its fdinfo; -1: not known. */
int64_t ef_fd_memory(int fd);

/*
 * Entries of a hash map, read in batches; -1: not counted (an array,
 * a ring buffer, a kernel that cannot).
 */
int64_t ef_map_entries(const struct bpf_map *map);

/* The kernel's number of a link; -1: not known. */
int64_t ef_link_id(int fd);

#endif
