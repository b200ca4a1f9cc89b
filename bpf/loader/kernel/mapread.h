/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_MAPREAD_H
#define EF_MAPREAD_H

#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/sum.h"

/* Bytes of one value of a map as the kernel copies it out: of every CPU where it is per CPU. */
size_t ef_mapread_value_bytes(const struct bpf_map *map);

/*
 * hash, lru_hash, percpu_hash, array or percpu_array of one u64 or of a struct ef_sum, the key
 * of at most 256 bytes.
 */
bool ef_mapread_can(const struct bpf_map *map);

/* Are its values a struct ef_sum? Else their "weighted" is 0 and means nothing. */
bool ef_mapread_weighs(const struct bpf_map *map);

/*
 * Every entry of such a map once, its value summed over the CPUs: in batches,
 * else key by key (percpu_array before 5.13, f008d732ab18). 0: all that was
 * there throughout was seen. -EAGAIN: a hash changed while it was read by keys, and
 * some may be missing or come twice. Another -errno: it cannot be read.
 */
typedef void (*ef_mapread_fn)(void *ctx, const void *key, const struct ef_sum *value);
int ef_mapread(const struct bpf_map *map, ef_mapread_fn fn, void *ctx);

#endif
