/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SINK_H
#define EF_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/sink_policy.h"

/* What became of one feature's records. */
struct ef_tally {
	uint64_t written;
	uint64_t weighted; /* the weights of those that were written */
	uint64_t dropped;
};

/* What a line tells of. */
struct ef_load {
	uint64_t records;
	uint64_t weight; /* of all of them together */
};

static inline void ef_tally_written(struct ef_tally *tally, const struct ef_load *load) {
	tally->written += load->records;
	tally->weighted += load->weight;
}

struct ef_sink;

/* How far the log shipper is behind, where the host's limits name its cursor; -1: not known. */
struct ef_sink_state {
	int64_t segment; /* that the file that is written will be */
	int64_t cursor_segment, cursor_offset;
	int64_t unshipped_bytes;
	int64_t unshipped_deleted_bytes; /* over this process's life */
};

/* What a kind of sink does; a sink begins with a struct ef_sink. */
struct ef_sink_ops {
	void (*add)(struct ef_sink *sink, const char *feature, const char *line, size_t length,
		    struct ef_tally *tally, const struct ef_load *load);
	void (*flush)(struct ef_sink *sink, bool all);
	void (*free)(struct ef_sink *sink);
	void (*tell)(const struct ef_sink *sink, struct ef_sink_state *state); /* NULL: nothing */
};

struct ef_sink {
	const struct ef_sink_ops *ops;
};

/* dir is borrowed. Nothing is opened yet: a folder or reader that is missing is not a reason not to
 * start. */
struct ef_sink *ef_sink_new(const char *dir, const struct ef_sink_policy *policy);

/* Of one kind each; for ef_sink_new(). path is copied. */
struct ef_sink *ef_sink_jsonl_new(const char *dir, const struct ef_sink_policy *policy);
struct ef_sink *ef_sink_socket_new(const char *path, bool journal);

/* Settles and frees; NULL is fine. */
void ef_sink_free(struct ef_sink *sink);

/* What is known of the log shipper. */
void ef_sink_tell(const struct ef_sink *sink, struct ef_sink_state *state);

/* True: records are counted as written with ef_sink_count(), no one needs to format them. */
bool ef_sink_only_counts(const struct ef_sink *sink);

/*
 * Take one line (with its line feed) of a feature, which tells of that many
 * records. What becomes of them is counted in *tally, which must live until
 * ef_sink_settle().
 */
void ef_sink_add(struct ef_sink *sink, const char *feature, const char *line, size_t length,
		 struct ef_tally *tally, const struct ef_load *load);

/*
 * Hand on what was taken. A record goes whole or not at all. What a file does
 * not take is dropped and counted; what a socket does not take now may wait in
 * the sink's buffer, which does not grow. Never waits.
 */
void ef_sink_flush(struct ef_sink *sink);

/* The same, but what is not taken now is dropped: every record has its outcome then. */
void ef_sink_settle(struct ef_sink *sink);

#endif
