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
				.quota = live->asked.quota};
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
