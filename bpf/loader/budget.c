/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "budget.h"

#include <string.h>

#include "account.h"

#define PPM 1000000
#define SECOND_NS 1000000000

static int64_t integer_or(const json_t *value, int64_t otherwise) {
	return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static void forget(struct ef_amounts *amounts) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		amounts->of[i] = -1;
}

/* a * factor / by, rounded up, without overflow for what a host can count in an interval. */
static int64_t scaled(int64_t a, int64_t factor, int64_t by) {
	return by > 0 ? (int64_t)(((__int128)a * factor + by - 1) / by) : -1;
}

/* The sum of a field over a list; -1 where one is not measured. */
static int64_t sum_of(const json_t *list, const char *key) {
	int64_t sum = 0;
	json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		int64_t value = integer_or(json_object_get(item, key), -1);

		if (value < 0)
			return -1;
		sum += value;
	}
	return sum;
}

/* The fullest map whose entries are counted and that evicts none; -1: there is none. */
static int64_t fill_of(const json_t *maps) {
	int64_t fullest = -1;
	json_t *map;
	size_t i;

	json_array_foreach (maps, i, map) {
		const char *type = json_string_value(json_object_get(map, "type"));
		int64_t entries = integer_or(json_object_get(map, "entries"), -1);
		int64_t room = integer_or(json_object_get(map, "max_entries"), 0);
		int64_t fill = entries < 0 ? -1 : scaled(entries, PPM, room);

		if (type && !strncmp(type, "lru", 3))
			continue;
		if (fill > fullest)
			fullest = fill;
	}
	return fullest;
}

/* What a counter grew by; -1: not measured, or it began anew. */
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

void ef_budget_feature(struct ef_account *account, const json_t *feature, int64_t consumer_ns,
		       int64_t now_ns) {
	const struct ef_account before = *account;
	const json_t *counters = json_object_get(feature, "counters");
	const json_t *programs = json_object_get(feature, "programs");
	int64_t run_ns = sum_of(programs, "run_time_ns");
	int64_t produced = integer_or(json_object_get(counters, "produced"), -1);
	int64_t sampled_out = integer_or(json_object_get(counters, "sampled_out"), -1);
	bool counted = produced >= 0 && sampled_out >= 0;

	memset(account, 0, sizeof(*account));
	forget(&account->used);
	account->cpu_delta_ns = account->events_delta = -1;
	if (!json_array_size(programs))
		return;
	account->known = true;
	account->time_ns = now_ns;
	account->cpu_ns = run_ns < 0 ? -1 : run_ns + consumer_ns;
	account->passed = counted && sampled_out <= produced ? produced - sampled_out : -1;
	account->dropped = integer_or(json_object_get(counters, "dropped"), -1);
	account->delivered = integer_or(json_object_get(counters, "delivered"), -1);
	account->events = counted ? account->passed : account->delivered;
	account->used.of[EF_BUDGET_MAP_MEMORY] =
	    sum_of(json_object_get(feature, "maps"), "memory_bytes");
	account->used.of[EF_BUDGET_MAP_FILL] = fill_of(json_object_get(feature, "maps"));
	take_rates(account, &before);
}

void ef_budget_host(struct ef_account *account, const json_t *loader, int64_t attaching_ns,
		    int64_t run_ns, int64_t events, int64_t now_ns) {
	const struct ef_account before = *account;
	int64_t span = grown(before.known, now_ns, before.time_ns), own;

	memset(account, 0, sizeof(*account));
	forget(&account->used);
	account->known = true;
	account->time_ns = now_ns;
	account->cpu_ns = integer_or(json_object_get(loader, "cpu_ns"), -1);
	if (account->cpu_ns >= 0)
		account->cpu_ns -= attaching_ns;
	own = grown(before.known, account->cpu_ns, before.cpu_ns);
	if (own >= 0 && run_ns >= 0)
		account->used.of[EF_BUDGET_CPU] = scaled(own + run_ns, 1000, span);
	if (events >= 0)
		account->used.of[EF_BUDGET_EVENT_RATE] = scaled(events, SECOND_NS, span);
	account->used.of[EF_BUDGET_RSS] = integer_or(json_object_get(loader, "rss_bytes"), -1);
	account->used.of[EF_BUDGET_MAP_MEMORY] =
	    integer_or(json_object_get(loader, "map_memory_bytes"), -1);
}

enum ef_budget ef_budget_exceeded(const struct ef_amounts *used, const struct ef_amounts *limits) {
	for (int i = 0; i < EF_N_BUDGETS; i++) {
		/* At its mark already, unless that is a full map. */
		bool full =
		    i == EF_BUDGET_MAP_FILL && used->of[i] == limits->of[i] && limits->of[i] < PPM;

		if (used->of[i] >= 0 && limits->of[i] >= 0 && (full || used->of[i] > limits->of[i]))
			return (enum ef_budget)i;
	}
	return EF_N_BUDGETS;
}

bool ef_budget_calm(const struct ef_amounts *used, const struct ef_amounts *limits,
		    enum ef_budget budget) {
	int64_t amount = used->of[budget], limit = limits->of[budget];

	return amount <= 0 || limit < 0 || amount < limit / 5 * 4;
}

bool ef_budget_is_of(enum ef_budget budget, bool of_host) {
	if (budget == EF_BUDGET_RSS)
		return of_host;
	return !of_host || (budget != EF_BUDGET_DROPS && budget != EF_BUDGET_MAP_FILL);
}

json_t *ef_budget_json(const struct ef_amounts *used, const struct ef_amounts *limits,
		       bool of_host) {
	json_t *doc = json_object();

	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_budget_is_of((enum ef_budget)i, of_host))
			json_object_set_new(doc, ef_budget_name((enum ef_budget)i),
					    json_pack("{s:o, s:o}", "measured",
						      ef_json_measured(used->of[i]), "limit",
						      ef_json_measured(limits->of[i])));
	return doc;
}
