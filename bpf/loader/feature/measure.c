/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/measure.h"

#include <string.h>

#include "feature/snapshot.h"

#define PPM 1000000
#define SECOND_NS 1000000000

static void forget(struct ef_amounts *amounts) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		amounts->of[i] = -1;
}

/* a * factor / by, rounded up, without overflow for what a host can count in an interval. */
static int64_t scaled(int64_t a, int64_t factor, int64_t by) {
	return by > 0 ? (int64_t)(((__int128)a * factor + by - 1) / by) : -1;
}

/* -1 where one is not measured. */
static int64_t run_time_of(const struct ef_feature_snapshot *feature) {
	int64_t sum = 0;

	for (size_t i = 0; i < feature->n_programs; i++) {
		if (feature->programs[i].run_time_ns < 0)
			return -1;
		sum += feature->programs[i].run_time_ns;
	}
	return sum;
}

static int64_t map_memory_of(const struct ef_feature_snapshot *feature) {
	int64_t sum = 0;

	for (size_t i = 0; i < feature->n_maps; i++) {
		if (feature->maps[i].memory_bytes < 0)
			return -1;
		sum += feature->maps[i].memory_bytes;
	}
	return sum;
}

/* The fullest map whose entries are counted and that evicts none; -1: there is none. */
static int64_t fill_of(const struct ef_feature_snapshot *feature) {
	int64_t fullest = -1;

	for (size_t i = 0; i < feature->n_maps; i++) {
		const struct ef_map_seen *map = &feature->maps[i];
		int64_t fill = map->entries < 0 || map->evicts
				   ? -1
				   : scaled(map->entries, PPM, map->max_entries);

		if (fill > fullest)
			fullest = fill;
	}
	return fullest;
}

static int64_t number(struct ef_count count) {
	return count.known ? (int64_t)count.n : -1;
}

/* What a counter grew by; -1: not measured, or it began again. */
static int64_t grown(bool known, int64_t now, int64_t before) {
	return known && now >= 0 && before >= 0 && now >= before ? now - before : -1;
}

/*
 * Of what sampling let pass, so that thinning hides no loss; where that is not
 * counted, of what has an outcome. -1: of nothing.
 */
static int64_t drop_ratio(int64_t passed, int64_t dropped, int64_t delivered) {
	if (passed < 0 && dropped >= 0 && delivered >= 0)
		passed = dropped + delivered;
	if (passed < 0 || dropped < 0 || (!passed && !dropped))
		return -1;
	return dropped < passed ? scaled(dropped, PPM, passed) : PPM;
}

static void take_rates(struct ef_account *account, const struct ef_account *before) {
	int64_t span = grown(before->known, account->time_ns, before->time_ns);
	int64_t passed = grown(before->known, account->passed, before->passed);
	int64_t dropped = grown(before->known, account->dropped, before->dropped);
	int64_t delivered = grown(before->known, account->delivered, before->delivered);
	int64_t *used = account->used.of;

	account->cpu_delta_ns = grown(before->known, account->cpu_ns, before->cpu_ns);
	account->events_delta = grown(before->known, account->events, before->events);
	if (account->cpu_delta_ns >= 0)
		used[EF_BUDGET_CPU] = scaled(account->cpu_delta_ns, 1000, span);
	if (account->events_delta >= 0)
		used[EF_BUDGET_EVENT_RATE] = scaled(account->events_delta, SECOND_NS, span);
	used[EF_BUDGET_DROPS] = drop_ratio(passed, dropped, delivered);
}

void ef_budget_feature(struct ef_account *account, const struct ef_feature_snapshot *feature,
		       int64_t consumer_ns, int64_t now_ns) {
	const struct ef_account before = *account;
	int64_t run_ns = run_time_of(feature);
	int64_t produced = number(feature->produced), sampled_out = number(feature->sampled_out);
	bool counted = produced >= 0 && sampled_out >= 0;

	memset(account, 0, sizeof(*account));
	forget(&account->used);
	account->cpu_delta_ns = account->events_delta = -1;
	if (!feature->n_programs)
		return;
	account->known = true;
	account->time_ns = now_ns;
	account->cpu_ns = run_ns < 0 ? -1 : run_ns + consumer_ns;
	account->passed = counted && sampled_out <= produced ? produced - sampled_out : -1;
	account->dropped = number(feature->dropped);
	account->delivered = number(feature->delivered);
	account->events = counted ? account->passed : account->delivered;
	account->used.of[EF_BUDGET_MAP_MEMORY] = map_memory_of(feature);
	account->used.of[EF_BUDGET_MAP_FILL] = fill_of(feature);
	take_rates(account, &before);
}

void ef_budget_host(struct ef_account *account, const struct ef_own_use *own, int64_t run_ns,
		    int64_t events, int64_t now_ns) {
	const struct ef_account before = *account;
	int64_t span = grown(before.known, now_ns, before.time_ns), spent;

	memset(account, 0, sizeof(*account));
	forget(&account->used);
	account->known = true;
	account->time_ns = now_ns;
	account->cpu_ns = own->cpu_ns < 0 ? -1 : own->cpu_ns - own->attaching_ns;
	spent = grown(before.known, account->cpu_ns, before.cpu_ns);
	if (spent >= 0 && run_ns >= 0)
		account->used.of[EF_BUDGET_CPU] = scaled(spent + run_ns, 1000, span);
	if (events >= 0)
		account->used.of[EF_BUDGET_EVENT_RATE] = scaled(events, SECOND_NS, span);
	account->used.of[EF_BUDGET_RSS] = own->rss_bytes;
	account->used.of[EF_BUDGET_MAP_MEMORY] = own->map_memory_bytes;
}
