/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/contract.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/must.h"
#include "kernel/requirement.h"

#define SCHEMA "ebpf.fleet/contract/v1"
#define CODE "EF_CONTRACT_MALFORMED"
#define REMEDY "build the release again with the release playbook, which checks contracts"

/* Where a contract is read: what to name in an error. */
struct reader {
	const char *file;
	struct ef_refusal *why;
};

static int malformed(const struct reader *in, const char *field, const char *expected) {
	return ef_refuse(in->why, CODE, in->file, "field '%s': %s; " REMEDY, field, expected);
}

/* The string at key, or NULL with the refusal written. */
static const char *need_string(const struct reader *in, const json_t *doc, const char *key) {
	const char *value = json_string_value(json_object_get(doc, key));

	if (!value || !*value) {
		malformed(in, key, "must be a string that is not empty");
		return NULL;
	}
	return value;
}

/* The string at key, NULL where there is no such key. -1: it is there and no text. */
static int may_string(const struct reader *in, const json_t *doc, const char *key,
		      const char **value) {
	*value = json_object_get(doc, key) ? need_string(in, doc, key) : NULL;
	return *value || !json_object_get(doc, key) ? 0 : -1;
}

/* The array of strings at key, or NULL with the refusal written. */
static json_t *need_strings(const struct reader *in, const json_t *doc, const char *key) {
	json_t *list = json_object_get(doc, key), *item;
	size_t i;

	if (!json_is_array(list) || !json_array_size(list)) {
		malformed(in, key, "must be a list that is not empty");
		return NULL;
	}
	json_array_foreach (list, i, item)
		if (!json_is_string(item)) {
			malformed(in, key, "must hold strings only");
			return NULL;
		}
	return list;
}

/* The index of value in names, or -1. */
static int choose(const char *value, const char *const *names, int n) {
	for (int i = 0; value && i < n; i++)
		if (!strcmp(value, names[i]))
			return i;
	return -1;
}

static int read_sampling(const struct reader *in, const json_t *doc, uint32_t *every) {
	json_t *value = json_object_get(doc, "sample_every");
	json_int_t n = json_integer_value(value);

	if (!json_is_integer(value) || n < 1 || n > UINT32_MAX)
		return malformed(in, "signals.sample_every",
				 "must be an integer from 1 to 4294967295");
	*every = (uint32_t)n;
	return 0;
}

static int read_histogram(const struct reader *in, const json_t *doc, struct ef_signal *signal) {
	static const char *const scales[] = {"nanoseconds", "microseconds", "bytes", "count"};
	int scale = choose(json_string_value(json_object_get(doc, "scale")), scales, 4);

	if (scale < 0)
		return malformed(in, "signals.scale",
				 "must be nanoseconds, microseconds, bytes or count");
	signal->scale = (enum ef_scale)scale;
	return 0;
}

/* What happens to records while the reader is behind; in the kernel nothing ever waits. */
static int read_backpressure(const struct reader *in, const json_t *doc, struct ef_signal *signal) {
	int kind = ef_backpressure_kind_of(json_string_value(json_object_get(doc, "backpressure")));
	bool by = json_object_get(doc, "aggregate_by");

	if (kind < 0)
		return malformed(in, "signals.backpressure", "must be drop, sample or aggregate");
	signal->backpressure = (enum ef_backpressure_kind)kind;
	if (signal->kind != EF_SIGNAL_EVENTS) {
		if (kind != EF_BACKPRESSURE_AGGREGATE || by)
			return malformed(in, "signals.backpressure",
					 "what is counted in the kernel is aggregate, without "
					 "aggregate_by");
		return 0;
	}
	if (by != (kind == EF_BACKPRESSURE_AGGREGATE))
		return malformed(in, "signals.aggregate_by",
				 "names the fields that events are aggregated by, and belongs to "
				 "'backpressure: aggregate'");
	signal->aggregate_by = by ? need_strings(in, doc, "aggregate_by") : NULL;
	return by && !signal->aggregate_by ? -1 : 0;
}

/* By what sources are told apart is compiled into the object: there is one way. */
static int read_fairness(const struct reader *in, const json_t *doc, struct ef_signal *signal) {
	static const char *const by[] = {"uid", "cgroup"};
	json_t *list = json_object_get(doc, "fairness"), *item;
	size_t i;

	if (!list)
		return 0;
	if (json_array_size(list) != 2)
		return malformed(in, "signals.fairness", "must be [uid, cgroup]");
	json_array_foreach (list, i, item)
		if (choose(json_string_value(item), &by[i], 1))
			return malformed(in, "signals.fairness", "must be [uid, cgroup]");
	signal->fair = true;
	return 0;
}

static int read_events(const struct reader *in, const json_t *doc, struct ef_signal *signal) {
	signal->event = need_string(in, doc, "event");
	if (!signal->event || may_string(in, doc, "perf_map", &signal->perf_map) ||
	    read_fairness(in, doc, signal))
		return -1;
	if (signal->perf_map && !strcmp(signal->perf_map, signal->map))
		return malformed(in, "signals.perf_map", "must be another map than signals.map");
	return 0;
}

static int read_signal(const struct reader *in, const json_t *doc, struct ef_signal *signal) {
	static const char *const kinds[] = {"histogram", "events", "counters"};
	int kind = choose(json_string_value(json_object_get(doc, "kind")), kinds, 3);

	if (kind < 0)
		return malformed(in, "signals.kind", "must be histogram, events or counters");
	signal->kind = (enum ef_signal_kind)kind;
	signal->name = need_string(in, doc, "name");
	signal->help = need_string(in, doc, "help");
	signal->map = need_string(in, doc, "map");
	if (!signal->name || !signal->help || !signal->map)
		return -1;
	if (read_sampling(in, doc, &signal->sample_every) || read_backpressure(in, doc, signal))
		return -1;
	if (kind == EF_SIGNAL_HISTOGRAM)
		return read_histogram(in, doc, signal);
	if (kind == EF_SIGNAL_EVENTS)
		return read_events(in, doc, signal);
	return may_string(in, doc, "key", &signal->key);
}

static int read_signals(const struct reader *in, struct ef_contract *contract) {
	json_t *list = json_object_get(contract->doc, "signals"), *item;
	size_t i;

	if (!json_is_array(list) || !json_array_size(list))
		return malformed(in, "signals", "must be a list that is not empty");
	contract->signals = ef_must(calloc(json_array_size(list), sizeof(*contract->signals)));
	json_array_foreach (list, i, item) {
		struct ef_signal *signal = &contract->signals[i];

		if (read_signal(in, item, signal))
			return -1;
		if (ef_contract_signal(contract, signal->kind))
			return malformed(in, "signals.kind",
					 "a feature has at most one signal of a kind");
		contract->n_signals++;
	}
	contract->sample_every = contract->signals[0].sample_every;
	return 0;
}

static int read_requirement(const struct reader *in, const char *text,
			    struct ef_requirement *requirement) {
	const char *remedy = ef_requirement_read(text, requirement);

	if (!remedy)
		return 0;
	if (requirement->attach)
		return ef_refuse(in->why, CODE, in->file,
				 "field 'variants.requires': '%.140s' is not a requirement: write "
				 "attach:%s:%s; " REMEDY,
				 text, requirement->attach->name, requirement->attach->form);
	return ef_refuse(in->why, CODE, in->file,
			 "field 'variants.requires': '%.140s' is not a requirement: %s; " REMEDY,
			 text, remedy);
}

static bool same_hook(const struct ef_requirement *one, const struct ef_requirement *other) {
	return one->attach && other->attach && strcmp(one->key, other->key) != 0 &&
	       ef_attach_same(one->attach, one->target, other->attach, other->target);
}

/* Every program of a variant is attached: two for one hook would count each event twice. */
static int read_requires(const struct reader *in, const json_t *requires_) {
	struct ef_requirement one, earlier;
	json_t *item;
	size_t i;

	json_array_foreach (requires_, i, item) {
		if (read_requirement(in, json_string_value(item), &one))
			return -1;
		for (size_t j = 0; one.attach && j < i; j++) {
			const char *text = json_string_value(json_array_get(requires_, j));

			if (!ef_requirement_read(text, &earlier) && same_hook(&one, &earlier))
				return malformed(in, "variants.requires",
						 "has two programs for one hook, and both would "
						 "attach; make variants of them");
		}
	}
	return 0;
}

/* Without a word the variant named full is full and any other is reduced. */
static int read_profile(const struct reader *in, const json_t *doc,
			struct ef_contract_variant *variant) {
	static const char *const profiles[] = {"full", "reduced"};
	const json_t *value = json_object_get(doc, "profile");
	int profile = choose(json_string_value(value), profiles, 2);

	if (value && profile < 0)
		return malformed(in, "variants.profile", "must be full or reduced");
	variant->full = value ? profile == 0 : !strcmp(variant->name, "full");
	return 0;
}

static int read_variants(const struct reader *in, const struct ef_feature *feature,
			 struct ef_contract *contract) {
	json_t *list = json_object_get(contract->doc, "variants"), *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) != feature->n_variants)
		return malformed(in, "variants", "must be the variants of the manifest");
	contract->variants = ef_must(calloc(feature->n_variants, sizeof(*contract->variants)));
	contract->n_variants = feature->n_variants;
	json_array_foreach (list, i, item) {
		struct ef_contract_variant *variant = &contract->variants[i];

		variant->name = need_string(in, item, "name");
		variant->programs = need_strings(in, item, "programs");
		variant->requires_ = need_strings(in, item, "requires");
		if (!variant->name || !variant->programs || !variant->requires_)
			return -1;
		if (strcmp(variant->name, feature->variants[i].name))
			return malformed(in, "variants.name",
					 "must be the manifest's, in its order");
		if (read_requires(in, variant->requires_) || read_profile(in, item, variant))
			return -1;
	}
	return 0;
}

/* YYYY-MM-DD as YYYYMMDD, or 0. */
static int parse_date(const char *text) {
	struct tm day = {0};
	const char *end = text ? strptime(text, "%Y-%m-%d", &day) : NULL;

	if (!end || *end || strlen(text) != 10)
		return 0;
	return (day.tm_year + 1900) * 10000 + (day.tm_mon + 1) * 100 + day.tm_mday;
}

static int read_lifetime(const struct reader *in, struct ef_contract *contract) {
	static const char *const lifetimes[] = {"permanent", "temporary"};
	json_t *expires = json_object_get(contract->doc, "expires");
	int lifetime =
	    choose(json_string_value(json_object_get(contract->doc, "lifetime")), lifetimes, 2);

	if (lifetime < 0)
		return malformed(in, "lifetime", "must be permanent or temporary");
	if (lifetime == 0)
		return expires ? malformed(in, "expires", "a permanent feature has none") : 0;
	contract->expires = parse_date(json_string_value(expires));
	return contract->expires ? 0 : malformed(in, "expires", "must be a date, YYYY-MM-DD");
}

/* What a map is for is not ours; that `variants` is a list is. */
static int read_maps(const struct reader *in, const struct ef_contract *contract) {
	json_t *maps = json_object_get(contract->doc, "maps"), *map;
	size_t i;

	json_array_foreach (maps, i, map) {
		if (json_object_get(map, "variants") && !need_strings(in, map, "variants"))
			return malformed(in, "maps.variants",
					 "must be a list of names of variants");
	}
	return 0;
}

static int read_origin(const struct reader *in, struct ef_contract *contract) {
	const json_t *origin = json_object_get(contract->doc, "origin");
	const json_t *accounting = json_object_get(contract->doc, "accounting");
	static const char *const origins[] = {"third_party"}, *const accountings[] = {"none"};

	contract->third_party = origin;
	contract->counted = !accounting;
	if (origin && choose(json_string_value(origin), origins, 1))
		return malformed(in, "origin", "must be third_party or absent");
	if (accounting && choose(json_string_value(accounting), accountings, 1))
		return malformed(in, "accounting", "must be none or absent");
	if (accounting && !origin)
		return malformed(in, "accounting", "is for origin third_party only: ours count");
	return 0;
}

/* A policy data path that acts would need a release that can be trusted to deny: there is none yet.
 */
static int read_mode(const struct reader *in, struct ef_contract *contract) {
	static const char *const paths[] = {"metrics", "events", "policy"};
	static const char *const modes[] = {"observe"};
	const json_t *mode = json_object_get(contract->doc, "mode");
	int path = choose(json_string_value(json_object_get(contract->doc, "data_path")), paths, 3);

	if (path < 0)
		return malformed(in, "data_path", "must be metrics, events or policy");
	if (path < 2)
		return mode ? malformed(in, "mode", "is for the data path policy only") : 0;
	if (choose(json_string_value(mode), modes, 1))
		return malformed(in, "mode", "must be observe on the data path policy");
	contract->observe = true;
	return 0;
}

/* The four that a contract has; every one of them is a promise that the host holds it to. */
static int read_budget(const struct reader *in, struct ef_contract *contract) {
	static const enum ef_budget kinds[] = {EF_BUDGET_CPU, EF_BUDGET_MAP_MEMORY,
					       EF_BUDGET_EVENT_RATE, EF_BUDGET_DROPS};
	const json_t *order = json_object_get(contract->doc, "cost_order");
	const json_t *budget = json_object_get(contract->doc, "budget");

	memset(&contract->budget, 0xff, sizeof(contract->budget)); /* -1: no limit */
	if (!json_is_integer(order))
		return malformed(in, "cost_order", "must be an integer");
	contract->cost_order = json_integer_value(order);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const json_t *limit = json_object_get(budget, ef_budget_name(kinds[i]));

		if (!json_is_integer(limit) || json_integer_value(limit) < 0)
			return malformed(in, ef_budget_name(kinds[i]),
					 "must be an integer, 0 at least, under 'budget'");
		ef_amount_set(&contract->budget, kinds[i], json_integer_value(limit));
	}
	if (!ef_amount(&contract->budget,
		       EF_BUDGET_EVENT_RATE)) /* the metrics path has none to limit */
		ef_amount_set(&contract->budget, EF_BUDGET_EVENT_RATE, -1);
	return 0;
}

static int read_contract(const struct reader *in, const struct ef_feature *feature,
			 struct ef_contract *contract) {
	const char *schema = json_string_value(json_object_get(contract->doc, "schema"));

	if (!schema || strcmp(schema, SCHEMA))
		return malformed(in, "schema", "must be " SCHEMA);
	contract->feature = need_string(in, contract->doc, "feature");
	if (!contract->feature)
		return -1;
	if (strcmp(contract->feature, feature->name))
		return malformed(in, "feature", "must be the feature's name in the manifest");
	if (read_lifetime(in, contract) || read_origin(in, contract) || read_mode(in, contract))
		return -1;
	if (read_budget(in, contract))
		return -1;
	if (read_signals(in, contract) || read_variants(in, feature, contract))
		return -1;
	return read_maps(in, contract);
}

int ef_contract_read(const struct ef_feature *feature, struct ef_contract *contract,
		     struct ef_refusal *why) {
	const struct reader in = {.file = feature->contract->path, .why = why};
	char error[256];

	memset(contract, 0, sizeof(*contract));
	contract->doc =
	    ef_json_parse(feature->contract->data, feature->contract->size, error, sizeof(error));
	if (!contract->doc)
		return ef_refuse(why, CODE, in.file, "%s; " REMEDY, error);
	if (!read_contract(&in, feature, contract))
		return 0;
	ef_contract_free(contract);
	return -1;
}

void ef_contract_free(struct ef_contract *contract) {
	json_decref(contract->doc);
	free(contract->signals);
	free(contract->variants);
	memset(contract, 0, sizeof(*contract));
}

const struct ef_signal *ef_contract_signal(const struct ef_contract *contract,
					   enum ef_signal_kind kind) {
	for (size_t i = 0; i < contract->n_signals; i++)
		if (contract->signals[i].kind == kind)
			return &contract->signals[i];
	return NULL;
}

const char *ef_contract_profile(const struct ef_contract_variant *variant) {
	if (!variant)
		return "disabled";
	return variant->full ? "full" : "reduced";
}

bool ef_contract_expired(const struct ef_contract *contract) {
	return ef_contract_expired_at(contract, time(NULL));
}

bool ef_contract_expired_at(const struct ef_contract *contract, time_t now) {
	struct tm day;

	if (!contract->expires)
		return false;
	gmtime_r(&now, &day);
	return (day.tm_year + 1900) * 10000 + (day.tm_mon + 1) * 100 + day.tm_mday >=
	       contract->expires;
}

const char *ef_contract_variant_name(const struct ef_contract_variant *variant) {
	return variant->name;
}

bool ef_contract_variant_is_full(const struct ef_contract_variant *variant) {
	return variant->full;
}

const struct ef_contract_variant *ef_contract_variant_at(const struct ef_contract *contract,
							 size_t i) {
	return &contract->variants[i];
}

const json_t *ef_contract_variant_programs(const struct ef_contract_variant *variant) {
	return variant->programs;
}
