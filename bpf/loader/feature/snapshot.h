/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FEATURE_SNAPSHOT_H
#define EF_FEATURE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "feature/live.h"
#include "feature/seen.h"

/* A number that may not be known. */
struct ef_count {
	bool known;
	uint64_t n;
};

/* What waits to be read, and what was lost on the way; all zero where it has no events. */
struct ef_consumer_seen {
	bool reads; /* there is a ring or there are perf buffers to read */
	uint64_t lag_bytes, ring_bytes;
	int64_t lag_ns; /* -1: not known */
	struct ef_count lost;
	uint64_t unwritten;
	enum ef_backpressure_kind policy;
	bool behind; /* what its contract says of that is done */
	uint32_t thinning;
};

/*
 * A feature at one moment, read once: status, metrics, budgets and audit say the
 * same because they read this. Names and signals are borrowed from the feature,
 * which must outlive it; lists are owned.
 */
struct ef_feature_snapshot {
	const char *name;
	bool shipped; /* the bundle has it; else desired.json wants what no one shipped */
	bool wanted;
	enum ef_state state;
	const char *profile;
	const char *variant; /* NULL: none */
	struct ef_reason reason;
	uint32_t sample_every;

	size_t n_programs, n_links, n_maps;
	struct ef_program_seen *programs;
	int64_t *links;
	struct ef_map_seen *maps;

	struct ef_count produced, delivered, dropped, sampled_out, in_flight;
	struct ef_consumer_seen consumer;
	uint64_t aggregated;
	struct ef_count weighted; /* see ef_live_weighted() */
	bool has_events;	  /* its contract says so */

	const struct ef_signal *counters; /* NULL: none */
	const struct ef_series *series;
	const struct ef_signal *histogram; /* NULL: none, or not to be read */
	struct ef_sum hist[EF_HIST_SLOTS + 1];

	bool fair;
	struct ef_fairness fairness;
	int64_t rate; /* that may pass, a second; -1: any */

	struct ef_unobserved unobserved;
	struct ef_fall fall;
	bool measured; /* used and limits are of the last interval */
	struct ef_amounts used, limits;
};

/* with_stats: the kernel counts runs. The caller frees with ef_feature_snapshot_free(). */
void ef_feature_snapshot_take(struct ef_live *live, bool with_stats,
			      struct ef_feature_snapshot *snapshot);

/* A feature that is wanted and that the bundle does not have. wish is borrowed. */
void ef_feature_snapshot_missing(const char *name, uint32_t sample_every,
				 struct ef_feature_snapshot *snapshot);

void ef_feature_snapshot_free(struct ef_feature_snapshot *snapshot);

#endif
