/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SINK_H
#define EF_SINK_H

#include <stddef.h>
#include <stdint.h>

#define EF_SINK_FILE_LIMIT (16u << 20) /* bytes of events.jsonl before it is rotated */

/* What became of one feature's records. */
struct ef_tally {
	uint64_t written;
	uint64_t dropped;
};

struct ef_sink;

/* dir is borrowed. Nothing is opened yet: a folder that is missing is no reason not to start. */
struct ef_sink *ef_sink_new(const char *dir);

/* Flushes and frees; NULL is fine. */
void ef_sink_free(struct ef_sink *sink);

/*
 * Take one line (with its line feed). What becomes of it is counted in *tally,
 * which must live until the next flush.
 */
void ef_sink_add(struct ef_sink *sink, const char *line, size_t length, struct ef_tally *tally);

/*
 * Write what was taken to DIR/events.jsonl. A record is written whole or not at
 * all; what cannot be written is dropped and counted. Never waits for space.
 */
void ef_sink_flush(struct ef_sink *sink);

#endif
