/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/snapshot.h"

#include <stdlib.h>

#include "base/must.h"

static void see_programs(const struct ef_live *live, bool with_stats,
			 struct ef_feature_snapshot *snapshot) {
	json_t *name;
	size_t i;

	snapshot->n_programs = json_array_size(live->attached.variant->programs);
	snapshot->programs = ef_must(calloc(snapshot->n_programs + 1, sizeof(*snapshot->programs)));
	json_array_foreach (live->attached.variant->programs, i, name)
		ef_program_see(bpf_object__find_program_by_name(live->attached.object,
								json_string_value(name)),
			       with_stats, &snapshot->programs[i]);
}

/* A perf_event_array is little; its buffers are the memory. */
static uint64_t buffer_bytes(const struct ef_live *live, const struct bpf_map *map) {
	if (!live->attached.feed || bpf_map__type(map) != BPF_MAP_TYPE_PERF_EVENT_ARRAY)
		return 0;
	return ef_feed_ring_bytes(live->attached.feed);
}

static void see_maps(const struct ef_live *live, struct ef_feature_snapshot *snapshot) {
	struct bpf_map *map;
	size_t n = 0;

	bpf_object__for_each_map (map, live->attached.object)
		n++;
	snapshot->maps = ef_must(calloc(n + 1, sizeof(*snapshot->maps)));
	bpf_object__for_each_map (map, live->attached.object)
		ef_map_see(map, buffer_bytes(live, map), &snapshot->maps[snapshot->n_maps++]);
}

static void count(const struct ef_live *live, struct ef_feature_snapshot *snapshot,
		  const struct ef_sum *hist) {
	bool counted = live->contract.counted;
	struct ef_counters counters;

	ef_live_counters(live, &counters);
	snapshot->produced = (struct ef_count){counted, counters.produced};
	snapshot->delivered = (struct ef_count){ef_live_knows_delivered(live), counters.delivered};
	snapshot->dropped = (struct ef_count){ef_live_knows_dropped(live), counters.dropped};
	snapshot->sampled_out = (struct ef_count){counted, counters.sampled_out};
	snapshot->in_flight = (struct ef_count){counted, ef_counters_in_flight(&counters)};
	snapshot->aggregated = ef_live_aggregated(live);
	snapshot->weighted.known = ef_live_weighted(live, hist, &snapshot->weighted.n);
}

/* Why fewer records than events arrive, where the contract says more than `drop`. */
static void see_consumer(const struct ef_live *live, struct ef_consumer_seen *consumer) {
	const struct ef_backpressure *state = &live->counted.backpressure;

	if (!live->attached.feed)
		return;
	*consumer = (struct ef_consumer_seen){
	    .reads = true,
	    .lag_bytes = ef_feed_lag(live->attached.feed),
	    .ring_bytes = ef_feed_ring_bytes(live->attached.feed),
	    .lag_ns = ef_feed_lag_ns(live->attached.feed),
	    .lost = {ef_feed_lost(live->attached.feed) >= 0, ef_live_lost(live)},
	    .unwritten = live->attached.tally.dropped + live->attached.aggregated.dropped,
	    .policy = state->kind,
	    .behind = state->level > 0,
	    .thinning = ef_backpressure_thinning(state),
	};
}

static void see_signals(const struct ef_live *live, struct ef_feature_snapshot *snapshot,
			const struct ef_sum *hist) {
	const struct ef_contract *contract = &live->contract;

	snapshot->has_events = ef_contract_signal(contract, EF_SIGNAL_EVENTS) != NULL;
	snapshot->counters = ef_contract_signal(contract, EF_SIGNAL_COUNTERS);
	snapshot->series = &live->counted.series;
	snapshot->histogram = hist ? ef_contract_signal(contract, EF_SIGNAL_HISTOGRAM) : NULL;
}

void ef_feature_snapshot_take(struct ef_live *live, bool with_stats,
			      struct ef_feature_snapshot *snapshot) {
	const struct ef_sum *hist;

	ef_live_note(live);
	*snapshot = (struct ef_feature_snapshot){
	    .name = ef_live_name(live),
	    .shipped = true,
	    .wanted = live->asked.wanted,
	    .state = live->decided.state,
	    .profile = ef_live_profile(live),
	    .variant = live->attached.variant ? live->attached.variant->name : NULL,
	    .reason = live->decided.reason,
	    .sample_every = ef_live_sample_every(live),
	    .fair = ef_live_is_fair(live),
	    .fairness = live->counted.fairness,
	    .rate = live->asked.rate,
	    .unobserved = live->counted.unobserved,
	    .fall = live->decided.fall,
	};
	ef_series_read(&live->counted.series, ef_live_name(live));
	if (live->attached.object) {
		see_programs(live, with_stats, snapshot);
		see_maps(live, snapshot);
	}
	snapshot->n_links = ef_live_links(live, &snapshot->links);
	/* Once: events go on, and the sum of its weights is told beside it. */
	hist = ef_live_hist(live, snapshot->hist) ? NULL : snapshot->hist;
	count(live, snapshot, hist);
	see_consumer(live, &snapshot->consumer);
	see_signals(live, snapshot, hist);
}

void ef_feature_snapshot_missing(const char *name, uint32_t sample_every,
				 struct ef_feature_snapshot *snapshot) {
	const struct ef_count none = {.known = true}; /* nothing ran: that is 0, not unknown */

	*snapshot = (struct ef_feature_snapshot){
	    .name = name,
	    .wanted = true,
	    .state = EF_STATE_DISABLED,
	    .profile = ef_contract_profile(NULL),
	    .sample_every = sample_every ? sample_every : 1,
	    .rate = -1,
	    .produced = none,
	    .delivered = none,
	    .dropped = none,
	    .sampled_out = none,
	    .in_flight = none,
	    .weighted = none,
	};
	ef_reason_set(&snapshot->reason, "EF_NOT_IN_BUNDLE",
		      "the bundle has no feature '%s'; remove it from desired.json or deploy a "
		      "release that has it",
		      name);
}

void ef_feature_snapshot_free(struct ef_feature_snapshot *snapshot) {
	free(snapshot->programs);
	free(snapshot->links);
	free(snapshot->maps);
}
