/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/live.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "feature/object.h"
#include "feature/parts.h"
#include "kernel/mapread.h"

/* As in bpf/include/ef.h. Others' objects may hold only the first two. */
struct config {
	uint32_t sample_every;
	uint32_t quota;
	uint64_t gate_ns;
	uint32_t gate;
	uint32_t pad;
};

/* Others' maps of global variables keep the short name of their contract. */
const struct bpf_map *ef_live_map(const struct ef_live *live, const char *name) {
	const struct bpf_map *map;

	bpf_object__for_each_map (map, live->attached.object)
		if (!strcmp(ef_object_map_name(map), name))
			return map;
	return NULL;
}

int ef_live_map_fd(const struct ef_live *live, const char *name) {
	const struct bpf_map *map = ef_live_map(live, name);

	return map ? bpf_map__fd(map) : -ENOENT;
}

/* Others' objects need not know of sampling: all is as if it were 1. */
bool ef_live_has_config(const struct ef_live *live) {
	return !live->contract.third_party || ef_live_map_fd(live, "ef_config") >= 0;
}

int ef_live_write_config(const struct ef_live *live) {
	struct config config = {.sample_every = live->asked.sample_every,
				.quota = live->asked.quota,
				.gate_ns = (uint64_t)live->asked.gate_ns,
				.gate = live->asked.gate};
	uint32_t zero = 0;
	int fd = ef_live_map_fd(live, "ef_config");

	if (!ef_live_has_config(live))
		return 0;
	if (fd < 0)
		return fd;
	return bpf_map_update_elem(fd, &zero, &config, BPF_ANY) ? -errno : 0;
}

/* Variants for kernels without ring buffer hold the signal's other map. */
const struct bpf_map *ef_live_events_map(const struct ef_live *live,
					 const struct ef_signal *signal) {
	const struct bpf_map *map = ef_live_map(live, signal->map);

	return map || !signal->perf_map ? map : ef_live_map(live, signal->perf_map);
}

int ef_live_moment_fd(const struct ef_live *live) {
	return live->attached.object ? ef_live_map_fd(live, "ef_moment") : -ENOENT;
}

bool ef_live_has_gate(const struct ef_live *live) {
	const struct bpf_map *config =
	    live->attached.object ? ef_live_map(live, "ef_config") : NULL;

	return config && bpf_map__value_size(config) == sizeof(struct config) &&
	       ef_live_moment_fd(live) >= 0;
}

/* First the time and then what it is for: a program between the two sees a time without a use. */
int ef_live_set_gate(struct ef_live *live, enum ef_gate gate, int64_t at_ns) {
	int err = 0;

	if (at_ns != live->asked.gate_ns && gate != EF_GATE_OPEN) {
		live->asked.gate_ns = at_ns;
		err = ef_live_has_gate(live) ? ef_live_write_config(live) : 0;
	}
	live->asked.gate = gate;
	return err || !ef_live_has_gate(live) ? err : ef_live_write_config(live);
}

int ef_live_share_moment(const struct ef_live *live) {
	struct bpf_map *map = bpf_object__find_map_by_name(live->attached.object, "ef_moment");

	return map && live->asked.moment_fd > 0 ? bpf_map__reuse_fd(map, live->asked.moment_fd) : 0;
}
