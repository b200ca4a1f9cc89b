/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/seen.h"

#include <bpf/bpf.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "feature/account.h"
#include "feature/object.h"

void ef_program_see(const struct bpf_program *program, bool with_stats,
		    struct ef_program_seen *seen) {
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);

	*seen = (struct ef_program_seen){.name = bpf_program__name(program),
					 .id = -1,
					 .run_cnt = -1,
					 .run_time_ns = -1,
					 .verified_insns = -1};
	if (bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size))
		return;
	seen->known = true;
	seen->id = info.id;
	for (size_t i = 0; i < sizeof(info.tag); i++)
		snprintf(seen->tag + 2 * i, 3, "%02x", info.tag[i]);
	if (with_stats) {
		seen->run_cnt = (int64_t)info.run_cnt;
		seen->run_time_ns = (int64_t)info.run_time_ns;
	}
	if (info.verified_insns)
		seen->verified_insns = info.verified_insns;
}

json_t *ef_program_json(const struct ef_program_seen *seen) {
	if (!seen->known)
		return json_null();
	return json_pack("{s:s, s:I, s:s, s:o, s:o, s:o}", "name", seen->name, "id",
			 (json_int_t)seen->id, "tag", seen->tag, "run_cnt",
			 ef_json_measured(seen->run_cnt), "run_time_ns",
			 ef_json_measured(seen->run_time_ns), "verified_insns",
			 ef_json_measured(seen->verified_insns));
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

void ef_map_see(const struct bpf_map *map, uint64_t buffer_bytes, struct ef_map_seen *seen) {
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);
	int64_t memory = map_memory(map);

	*seen = (struct ef_map_seen){
	    .name = ef_object_map_name(map), .id = -1, .entries = -1, .memory_bytes = -1};
	if (bpf_obj_get_info_by_fd(bpf_map__fd(map), &info, &size))
		return;
	seen->known = true;
	seen->id = info.id;
	seen->type = libbpf_bpf_map_type_str(info.type);
	seen->evicts = seen->type && !strncmp(seen->type, "lru", 3);
	seen->max_entries = info.max_entries;
	seen->entries = ef_map_entries(map);
	seen->memory_bytes = memory < 0 ? -1 : memory + (int64_t)buffer_bytes;
}

json_t *ef_map_json(const struct ef_map_seen *seen) {
	if (!seen->known)
		return json_null();
	return json_pack("{s:s, s:I, s:s, s:I, s:o, s:o}", "name", seen->name, "id",
			 (json_int_t)seen->id, "type", seen->type, "max_entries",
			 (json_int_t)seen->max_entries, "entries", ef_json_measured(seen->entries),
			 "memory_bytes", ef_json_measured(seen->memory_bytes));
}
