/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SEEN_H
#define EF_SEEN_H

#include <bpf/libbpf.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What the kernel tells of a program; numbers are -1 where it does not tell them. */
struct ef_program_seen {
	const char *name; /* of the contract, as the kernel cuts it; borrowed */
	bool known;	  /* false: the kernel tells nothing of it */
	int64_t id;
	char tag[17];
	int64_t run_cnt, run_time_ns;
	int64_t verified_insns;
};

/* The same of a map. */
struct ef_map_seen {
	const char *name; /* borrowed */
	bool known;
	int64_t id;
	const char *type; /* libbpf's word for it */
	bool evicts;	  /* a full one means nothing */
	int64_t max_entries, entries;
	int64_t memory_bytes;
};

/* with_stats: the kernel counts runs. */
void ef_program_see(const struct bpf_program *program, bool with_stats,
		    struct ef_program_seen *seen);

/* buffer_bytes: memory that belongs to the map and that the kernel does not charge to it. */
void ef_map_see(const struct bpf_map *map, uint64_t buffer_bytes, struct ef_map_seen *seen);

/* status.json's entries: new references. */
json_t *ef_program_json(const struct ef_program_seen *seen);
json_t *ef_map_json(const struct ef_map_seen *seen);

#endif
