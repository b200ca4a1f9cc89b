/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PARTS_H
#define EF_PARTS_H

#include "feature/feature.h"

/* What the files behind live.h ask of each other; no other file includes this. */

/* maps.c: the feature's maps, by the names that its contract has for them; -ENOENT: there is none.
 */
const struct bpf_map *ef_live_map(const struct ef_live *live, const char *name);
int ef_live_map_fd(const struct ef_live *live, const char *name);
const struct bpf_map *ef_live_events_map(const struct ef_live *live,
					 const struct ef_signal *signal);

/* Does its object know of sampling and quota? Others' objects need not: all is as if it were 1. */
bool ef_live_has_config(const struct ef_live *live);
int ef_live_write_config(const struct ef_live *live);

/* Before it is loaded: judge by the moments of the loader before, where there was one. 0 or -errno.
 */
int ef_live_share_moment(const struct ef_live *live);

/* prepare.c: what must be in place before the first program runs. 0 or -errno with *why. */
int ef_live_prepare(struct ef_live *live, struct ef_sink *sink, struct ef_reason *why);

/* links.c: all programs of its variant, or none. 0 or -errno with *why. */
int ef_live_attach_programs(struct ef_live *live, struct ef_reason *why);

/* counts.c: take what the maps counted into what is kept, before they go. */
void ef_live_keep_counters(struct ef_live *live);
void ef_live_read_fairness(struct ef_live *live);

/* Dropped in the kernel and at the sink, in this attachment. */
uint64_t ef_live_dropped(const struct ef_live *live);

#endif
