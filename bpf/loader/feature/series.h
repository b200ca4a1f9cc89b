/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SERIES_H
#define EF_SERIES_H

#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/dict.h"
#include "kernel/format.h"

#define EF_SERIES_MAX 16384 /* series of one signal, whatever its map can hold */

/*
 * The series of a `counters` signal over this process's life: a number for
 * each set of labels. It only grows, although maps go with a detach and
 * entries with an eviction. What a map counts between the last read of an
 * entry and its eviction is lost; no one can know it.
 */
struct ef_series {
	struct ef_dict totals; /* key: the labels as text */
	struct ef_sum unkept;  /* counted for labels for which there was no room */
	bool unkept_logged;
	bool failing_logged;

	/* While attached. */
	const struct bpf_map *map; /* NULL: not attached */
	struct ef_format format;   /* of the key; no fields: an array, its label is "index" */
	struct ef_dict last;	   /* what each entry held at the last read; key: the map's */
};

/*
 * Begin to read a map (borrowed until ef_series_end()) whose key is struct
 * key_struct of btf, NULL for an array. 0; -EPROTOTYPE: not a map of one u64
 * that we read; -ENOENT, -EINVAL: as ef_format_read(); -EMSGSIZE: the struct
 * is not as long as the map's key.
 */
int ef_series_begin(struct ef_series *series, const struct bpf_map *map, const struct btf *btf,
		    const char *key_struct);

/* Add what the map counted since the last read. 0 or -errno; feature is for the messages. */
int ef_series_read(struct ef_series *series, const char *feature);

/* Read for the last time and let go of the map; the totals stay. */
void ef_series_end(struct ef_series *series, const char *feature);

void ef_series_free(struct ef_series *series);

/* All of it with its weights, what has no series too. */
uint64_t ef_series_weighted(const struct ef_series *series);

/* A line of Prometheus' text for each series of the metric ebpf_fleet_NAME. */
void ef_series_print(const struct ef_series *series, FILE *out, const char *name, bool weighted);

#endif
