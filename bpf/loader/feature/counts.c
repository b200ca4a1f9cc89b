/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/live.h"

#include <bpf/bpf.h>
#include <pthread.h>
#include <string.h>

#include "base/log.h"
#include "feature/object.h"
#include "feature/parts.h"
#include "kernel/mapread.h"

static const struct bpf_map *hist_map(const struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_HISTOGRAM);

	return signal && live->attached.object ? ef_live_map(live, signal->map) : NULL;
}

void ef_live_read_fairness(struct ef_live *live) {
	if (live->attached.object)
		ef_fairness_read(&live->counted.fairness, ef_live_map_fd(live, EF_FAIRNESS_MAP),
				 ef_live_map_fd(live, EF_FAIRNESS_ALL));
}

/* Do all signals of what is attached weigh? */
static bool weighs(const struct ef_live *live) {
	const struct bpf_map *hist = hist_map(live);

	return (!live->attached.feed || ef_feed_weighs(live->attached.feed)) &&
	       (!hist || ef_mapread_weighs(hist)) &&
	       (!live->counted.series.map || ef_mapread_weighs(live->counted.series.map));
}

void ef_live_keep_counters(struct ef_live *live) {
	struct ef_counters total;
	const struct bpf_map *hist = hist_map(live);

	ef_live_counters(live, &total);
	/* What began and has no outcome by now will have none: the maps go. */
	total.dropped += ef_counters_in_flight(&total);
	live->counted.past = total;
	live->counted.past_lost = ef_live_lost(live);
	live->counted.past_aggregated = ef_live_aggregated(live);
	live->counted.past_weighted +=
	    live->attached.tally.weighted + live->attached.aggregated.weighted;
	live->counted.unweighed |= !weighs(live);
	if (ef_live_is_fair(live))
		ef_live_read_fairness(live);
	ef_fairness_forget(&live->counted.fairness);
	memset(&live->attached.tally, 0, sizeof(live->attached.tally));
	memset(&live->attached.aggregated, 0, sizeof(live->attached.aggregated));
	if (hist && ef_hist_add(hist, live->counted.past_hist))
		ef_err("feature %s: its histogram could not be read before it was detached",
		       ef_live_name(live));
}

/* In the kernel and at the sink, in this attachment. */
uint64_t ef_live_dropped(const struct ef_live *live) {
	struct ef_counters counters;

	ef_live_counters(live, &counters);
	return counters.dropped;
}

uint64_t ef_live_aggregated(const struct ef_live *live) {
	return live->counted.past_aggregated + live->attached.aggregated.written;
}

uint64_t ef_live_lost(const struct ef_live *live) {
	int64_t lost = live->attached.feed ? ef_feed_lost(live->attached.feed) : 0;

	return live->counted.past_lost + (lost > 0 ? (uint64_t)lost : 0);
}

/*
 * The kernel counts what went into the ring; delivered is what reached the
 * file. Of an object that counts nothing a perf buffer's losses are all that
 * is known of drops; one that counts has counted each of them itself.
 */
static void count_the_way(const struct ef_live *live, struct ef_counters *now) {
	if (!live->attached.feed)
		return;
	now->delivered = live->attached.tally.written;
	now->dropped += live->attached.tally.dropped + live->attached.aggregated.dropped;
	now->sampled_out += live->attached.aggregated.written;
	if (!live->contract.counted)
		now->dropped += ef_live_lost(live) - live->counted.past_lost;
}

void ef_live_counters(const struct ef_live *live, struct ef_counters *counters) {
	struct ef_counters now = {0};

	*counters = live->counted.past;
	if (!live->attached.object)
		return;
	if (live->contract.counted && ef_counters_read(ef_live_map_fd(live, "ef_counters"), &now))
		return;
	count_the_way(live, &now);
	counters->produced += now.produced;
	counters->delivered += now.delivered;
	counters->dropped += now.dropped;
	counters->sampled_out += now.sampled_out;
}

bool ef_live_knows_delivered(const struct ef_live *live) {
	return live->contract.counted || ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);
}

bool ef_live_knows_dropped(const struct ef_live *live) {
	return live->contract.counted || live->counted.lost_known;
}

int ef_live_hist(const struct ef_live *live, struct ef_sum *hist) {
	const struct bpf_map *map = hist_map(live);

	memcpy(hist, live->counted.past_hist, sizeof(live->counted.past_hist));
	return map ? ef_hist_add(map, hist) : 0;
}

bool ef_live_weighted(const struct ef_live *live, const struct ef_sum *hist, uint64_t *weighted) {
	*weighted = live->counted.past_weighted + live->attached.tally.weighted +
		    live->attached.aggregated.weighted + ef_series_weighted(&live->counted.series);
	if (!hist || live->contract.third_party || live->counted.unweighed ||
	    (live->attached.object && !weighs(live)))
		return false;
	for (size_t i = 0; i < EF_HIST_SLOTS; i++)
		*weighted += hist[i].weighted;
	return true;
}
