/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FEED_H
#define EF_FEED_H

#include <bpf/btf.h>
#include <stdbool.h>
#include <stdint.h>

#include "sink.h"

/* One feature's way from its ring buffer to the sink. */
struct ef_feed;

/*
 * Read the ring buffer map_fd; its records are struct `event_struct` of btf and
 * become events `event` of `feature`. Strings, btf, sink and tally are borrowed
 * and must outlive the feed. NULL with errno on failure.
 */
struct ef_feed *ef_feed_new(int map_fd, const struct btf *btf, const char *event_struct,
			    const char *feature, const char *event, struct ef_sink *sink,
			    struct ef_tally *tally);

void ef_feed_free(struct ef_feed *feed);

/* A descriptor that becomes readable when a producer wants to be read at once. */
int ef_feed_fd(const struct ef_feed *feed);

/*
 * Hand what is in the ring to the sink, at most limit records, so that a storm
 * cannot keep the loop from a kill order. True: there may be more.
 */
bool ef_feed_read(struct ef_feed *feed, unsigned limit);

/* Bytes in the ring that nobody read yet, and bytes of the ring. */
uint64_t ef_feed_lag(const struct ef_feed *feed);
uint64_t ef_feed_ring_bytes(const struct ef_feed *feed);

#endif
