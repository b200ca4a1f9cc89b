/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/totals.h"

#include <string.h>

#include "base/must.h"

static json_t *sum_json(const struct ef_sum *sum) {
	return json_pack("[I, I]", (json_int_t)sum->raw, (json_int_t)sum->weighted);
}

static uint64_t number_at(const json_t *list, size_t index) {
	json_int_t number = json_integer_value(json_array_get(list, index));

	return number > 0 ? (uint64_t)number : 0;
}

static uint64_t number_of(const json_t *doc, const char *key) {
	json_int_t number = json_integer_value(json_object_get(doc, key));

	return number > 0 ? (uint64_t)number : 0;
}

static struct ef_sum sum_of(const json_t *pair) {
	return (struct ef_sum){number_at(pair, 0), number_at(pair, 1)};
}

static json_t *hist_json(const struct ef_live *live) {
	json_t *list = json_array();

	for (size_t i = 0; i <= EF_HIST_SUM; i++)
		json_array_append_new(list, sum_json(&live->counted.past_hist[i]));
	return list;
}

static json_t *series_json(const struct ef_series *series) {
	json_t *all = json_object();

	for (size_t i = 0; i < series->totals.n; i++) {
		const struct ef_dict_item *item = &series->totals.items[i];
		char *labels = ef_must(strndup((const char *)item->key, item->size));

		json_object_set_new_nocheck(all, labels, sum_json(&item->value));
		free(labels);
	}
	return all;
}

/* Steps down by budget, of the feature's and of the host's limits. */
static json_t *falls_json(const struct ef_fall *fall) {
	json_t *list = json_array();

	for (int of_host = 0; of_host < 2; of_host++)
		for (int budget = 0; budget < EF_N_BUDGETS; budget++)
			json_array_append_new(
			    list, json_integer((json_int_t)fall->taken[of_host][budget]));
	return list;
}

json_t *ef_totals_json(const struct ef_live *live) {
	const struct ef_live_counted *counted = &live->counted;
	const struct ef_counters *past = &counted->past;

	return json_pack(
	    "{s:[I, I, I, I], s:I, s:I, s:I, s:I, s:b, s:b, s:o, s:o, s:o, s:o}", "counters",
	    (json_int_t)past->produced, (json_int_t)past->delivered, (json_int_t)past->dropped,
	    (json_int_t)past->sampled_out, "lost", (json_int_t)counted->past_lost, "aggregated",
	    (json_int_t)counted->past_aggregated, "weighted", (json_int_t)counted->past_weighted,
	    "thinned", (json_int_t)counted->fairness.past, "unweighed", counted->unweighed,
	    "lost_known", counted->lost_known, "hist", hist_json(live), "series",
	    series_json(&counted->series), "unkept", sum_json(&counted->series.unkept), "falls",
	    falls_json(&live->decided.fall));
}

static void take_series(struct ef_series *series, const json_t *doc) {
	struct ef_sum unkept = sum_of(json_object_get(doc, "unkept"));
	const json_t *pair;
	const char *labels;

	if (!series->totals.max)
		ef_dict_init(&series->totals, EF_SERIES_MAX);
	ef_sum_add(&series->unkept, &unkept);
	json_object_foreach ((json_t *)json_object_get(doc, "series"), labels, pair) {
		struct ef_sum sum = sum_of(pair);
		struct ef_sum *total = ef_dict_need(&series->totals, labels, strlen(labels));

		ef_sum_add(total ? total : &series->unkept, &sum);
	}
}

void ef_totals_take(struct ef_live *live, const json_t *doc) {
	struct ef_live_counted *counted = &live->counted;
	const json_t *list = json_object_get(doc, "counters");

	counted->past.produced += number_at(list, 0);
	counted->past.delivered += number_at(list, 1);
	counted->past.dropped += number_at(list, 2);
	counted->past.sampled_out += number_at(list, 3);
	counted->past_lost += number_of(doc, "lost");
	counted->past_aggregated += number_of(doc, "aggregated");
	counted->past_weighted += number_of(doc, "weighted");
	counted->fairness.past += number_of(doc, "thinned");
	counted->unweighed |= json_is_true(json_object_get(doc, "unweighed"));
	counted->lost_known |= json_is_true(json_object_get(doc, "lost_known"));
	list = json_object_get(doc, "hist");
	for (size_t i = 0; i <= EF_HIST_SUM; i++) {
		struct ef_sum sum = sum_of(json_array_get(list, i));

		ef_sum_add(&counted->past_hist[i], &sum);
	}
	if (ef_contract_signal(&live->contract, EF_SIGNAL_COUNTERS))
		take_series(&counted->series, doc);
	list = json_object_get(doc, "falls");
	for (size_t i = 0; i < 2 * EF_N_BUDGETS; i++)
		live->decided.fall.taken[i / EF_N_BUDGETS][i % EF_N_BUDGETS] += number_at(list, i);
}
