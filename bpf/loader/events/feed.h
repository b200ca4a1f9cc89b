/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FEED_H
#define EF_FEED_H

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "events/sink.h"

/* One feature's way from its ring buffer, or its perf buffers, to the sink. */
struct ef_feed;

/* What a feed reads and what its records become; all of it is borrowed and must outlive the feed.
 */
struct ef_feed_source {
	const struct bpf_map *map; /* a ringbuf or a perf_event_array */
	const struct btf *btf;
	const char *event_struct; /* of the records, in btf */
	const char *feature;
	const char *event;
	const json_t *aggregate_by;  /* names of fields; NULL: this feed aggregates nothing */
	struct ef_tally *aggregated; /* what becomes of records that are told together */
	bool third_party; /* records need no ktime_ns, and may be shorter than their struct */
};

/*
 * NULL with errno on failure: ENOENT: no such struct; EINVAL: it has a bit
 * field, or does not begin with u64 ktime_ns; E2BIG: it is longer than a record
 * may be; EPROTOTYPE: a map of another type; ENOKEY: it lacks a field of
 * aggregate_by; else the kernel's answer.
 */
struct ef_feed *ef_feed_new(const struct ef_feed_source *source, struct ef_sink *sink,
			    struct ef_tally *tally);

void ef_feed_free(struct ef_feed *feed);

/* A descriptor that becomes readable when a producer wants to be read at once. */
int ef_feed_fd(const struct ef_feed *feed);

/*
 * Hand what is in the ring to the sink, at most limit records, so that a storm
 * cannot keep the loop from a kill order. True: there may be more.
 */
bool ef_feed_read(struct ef_feed *feed, unsigned limit);

/* Do its records carry their weight? */
bool ef_feed_weighs(const struct ef_feed *feed);

/*
 * From here on records are counted by their aggregate_by fields and told once
 * for all, or again one by one; what was counted is told then.
 */
void ef_feed_aggregate(struct ef_feed *feed, bool on);

/*
 * Hand a line for each group of records to the sink: all records in it have its
 * outcome, in *aggregated.
 */
void ef_feed_tell(struct ef_feed *feed);

/* Bytes in the ring (in all buffers) that no one read yet, and bytes of it. */
uint64_t ef_feed_lag(const struct ef_feed *feed);
uint64_t ef_feed_ring_bytes(const struct ef_feed *feed);

/*
 * The greatest age, by CLOCK_MONOTONIC, that a record was seen to have while
 * no one had read it yet, since this was asked last: of the oldest one at a read
 * (once a millisecond at most) and now. -1: not measured, the records carry no time.
 */
int64_t ef_feed_lag_ns(struct ef_feed *feed);

/* Records lost by the perf buffers' own count (see ef_perf_lost()); -1: a ring, which has none. */
int64_t ef_feed_lost(const struct ef_feed *feed);

/* True: a CPU came or went since it was opened; it must be opened again. */
bool ef_feed_stale(const struct ef_feed *feed);

#endif
