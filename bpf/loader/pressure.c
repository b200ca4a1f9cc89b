/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pressure.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "audit.h"
#include "log.h"
#include "must.h"
#include "prom.h"
#include "service.h"
#include "util.h"

static const struct ef_who by_budget = {.source = "budget", .uid = -1};

/* ---- the account ---- */

static void add_measured(int64_t *sum, int64_t amount) {
	*sum = *sum < 0 || amount < 0 ? -1 : *sum + amount;
}

void ef_pressure_measure(struct ef_service *service, const json_t *status) {
	const json_t *features = json_object_get(status, "features");
	int64_t now_ns = ef_clock_ns(CLOCK_MONOTONIC), run_ns = 0, events = 0;

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		int64_t consumer_before = live->consumer_before_ns;

		live->limits =
		    ef_policy_limits(&service->policy, live->files->name, &live->contract.budget);
		ef_budget_feature(&live->account, json_object_get(features, live->files->name),
				  live->consumer_ns, now_ns);
		live->consumer_before_ns = live->consumer_ns;
		if (!live->account.known)
			continue;
		/* The loader's time is the host's own reading already. */
		add_measured(&run_ns, live->account.cpu_delta_ns < 0
					  ? -1
					  : live->account.cpu_delta_ns -
						(live->consumer_ns - consumer_before));
		if (live->feed) /* what stays in the kernel is no event that is sent */
			add_measured(&events, live->account.events_delta);
	}
	ef_budget_host(&service->account, json_object_get(status, "loader"), service->attaching_ns,
		       run_ns, events, now_ns);
	service->measured = true;
}

/* ---- what is said ---- */

static const char *unit_of(enum ef_budget budget) {
	static const char *const units[EF_N_BUDGETS] = {
	    [EF_BUDGET_MAP_FILL] = "ppm",
	    [EF_BUDGET_CPU] = "millicores",
	    [EF_BUDGET_RSS] = "bytes",
	    [EF_BUDGET_MAP_MEMORY] = "bytes",
	    [EF_BUDGET_EVENT_RATE] = "per_second",
	    [EF_BUDGET_DROPS] = "ppm",
	};

	return units[budget];
}

void ef_pressure_reason(const struct ef_live *live, struct ef_reason *why) {
	const struct ef_fall *fall = &live->fall;

	ef_reason_set(why, ef_degrade_code(fall->of_host, fall->budget),
		      "%s's %s was %" PRId64 " %s, the limit is %" PRId64 "; step '%s'",
		      fall->of_host ? "the host" : "the feature", ef_budget_name(fall->budget),
		      fall->measured, unit_of(fall->budget), fall->limit,
		      ef_step_name(ef_fall_step(fall)));
}

json_t *ef_pressure_degraded_json(const struct ef_live *live) {
	const struct ef_fall *fall = &live->fall;
	struct ef_reason why;

	if (ef_fall_step(fall) == EF_STEP_NONE)
		return json_null();
	ef_pressure_reason(live, &why);
	return json_pack(
	    "{s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:i}", "step", ef_step_name(ef_fall_step(fall)),
	    "reason_code", why.code, "reason", why.text, "measured", (json_int_t)fall->measured,
	    "limit", (json_int_t)fall->limit, "unit", unit_of(fall->budget), "since_boottime_ns",
	    (json_int_t)fall->since_ns, "steps", (int)ef_fall_depth(fall));
}

json_t *ef_pressure_budget_json(const struct ef_service *service) {
	json_t *features = json_object();

	for (size_t i = 0; service->measured && i < service->n; i++) {
		const struct ef_live *live = &service->lives[i];

		if (live->account.known)
			json_object_set_new(
			    features, live->files->name,
			    ef_budget_json(&live->account.used, &live->limits, false));
	}
	if (!service->measured) {
		json_decref(features);
		return json_null();
	}
	return json_pack("{s:o, s:o}", "host",
			 ef_budget_json(&service->account.used, &service->policy.host, true),
			 "features", features);
}

/* ---- the steps ---- */

static bool can_thin(const struct ef_live *live) {
	return ef_live_can_sample(live);
}

static bool can_reduce(const struct ef_live *live) {
	if (!live->variant || !live->variant->full)
		return false;
	for (size_t i = 0; i < live->contract.n_variants; i++)
		if (!live->contract.variants[i].full)
			return true;
	return false;
}

/* What a feature has of the host's excess; memory of the process belongs to none of them. */
static int64_t cost_of(const struct ef_live *live, enum ef_budget budget) {
	if (budget == EF_BUDGET_CPU)
		return live->account.cpu_delta_ns;
	if (budget == EF_BUDGET_EVENT_RATE)
		return live->account.events_delta;
	if (budget == EF_BUDGET_RSS)
		return live->contract.cost_order;
	return live->account.used.of[budget];
}

static struct ef_candidate candidate(struct ef_live *live, enum ef_budget budget) {
	/* Fewer events make no map and no process smaller. */
	bool stays = budget == EF_BUDGET_MAP_MEMORY || budget == EF_BUDGET_RSS;

	return (struct ef_candidate){
	    .fall = &live->fall,
	    .attached = live->state == EF_STATE_ATTACHED,
	    .can_thin = can_thin(live) && !stays && !live->fall.reduced,
	    .can_reduce = can_reduce(live),
	    .cost = cost_of(live, budget),
	    .cost_order = live->contract.cost_order,
	};
}

static void step_down(struct ef_service *service, struct ef_live *live, enum ef_step step,
		      bool of_host, enum ef_budget budget) {
	const struct ef_amounts *used = of_host ? &service->account.used : &live->account.used;
	const struct ef_amounts *limits = of_host ? &service->policy.host : &live->limits;
	struct ef_reason why;

	if (live->fall.thinning <= 1)
		live->thinned_from = live->account.used.of[EF_BUDGET_EVENT_RATE];
	ef_fall_down(&live->fall, step);
	live->fall.of_host = of_host;
	live->fall.budget = budget;
	live->fall.measured = used->of[budget];
	live->fall.limit = limits->of[budget];
	live->fall.since_ns = ef_clock_ns(CLOCK_BOOTTIME);
	live->fall.taken[of_host][budget]++;
	ef_pressure_reason(live, &why);
	ef_warn("feature %s: degraded: %s: %s (%s)", live->files->name, ef_step_name(step),
		why.text, why.code);
	ef_audit_feature(service->audit, "degrade", live, &why, &by_budget);
}

static void step_up(struct ef_service *service, struct ef_live *live) {
	enum ef_step from = ef_fall_step(&live->fall);
	struct ef_reason why;

	ef_fall_up(&live->fall);
	live->fall.since_ns = ef_clock_ns(CLOCK_BOOTTIME);
	ef_reason_set(&why, "EF_OK", "%s has been well below its limit; step '%s' is taken back",
		      ef_budget_name(live->fall.budget), ef_step_name(from));
	ef_notice("feature %s: recovered a step: %s: %s", live->files->name, ef_step_name(from),
		  why.text);
	ef_audit_feature(service->audit, "recover", live, &why, &by_budget);
}

/* Its own limits; true when it took a step. */
static bool judge_feature(struct ef_service *service, struct ef_live *live) {
	enum ef_budget budget = ef_budget_exceeded(&live->account.used, &live->limits);
	bool exceeded = live->account.known && budget != EF_N_BUDGETS;
	struct ef_candidate one;
	enum ef_step step;

	if (!ef_fall_bad(&live->fall.bad, exceeded, budget == EF_BUDGET_MAP_FILL))
		return false;
	one = candidate(live, budget);
	step = ef_degrade_next(&one);
	if (step == EF_STEP_NONE)
		return false;
	step_down(service, live, step, false, budget);
	return true;
}

static bool judge_host(struct ef_service *service) {
	const struct ef_amounts *limits = &service->policy.host;
	enum ef_budget budget = ef_budget_exceeded(&service->account.used, limits);
	_cleanup_free_ struct ef_candidate *all = NULL;
	struct ef_candidate *chosen;
	enum ef_step step;

	if (!ef_fall_bad(&service->bad, budget != EF_N_BUDGETS, false))
		return false;
	all = ef_must(calloc(service->n + 1, sizeof(*all)));
	for (size_t i = 0; i < service->n; i++)
		all[i] = candidate(&service->lives[i], budget);
	chosen = ef_degrade_choose(all, service->n, &step);
	if (!chosen)
		return false; /* nothing of ours runs: it is not the features */
	service->bad = 0;
	step_down(service, &service->lives[chosen - all], step, true, budget);
	return true;
}

static bool is_calm(const struct ef_service *service, const struct ef_live *live) {
	enum ef_budget budget = live->fall.budget;

	if (live->fall.of_host)
		return ef_budget_calm(&service->account.used, &service->policy.host, budget);
	return ef_budget_calm(&live->account.used, &live->limits, budget);
}

/* Every fallen feature counts the interval; the least costly that has waited enough steps up. */
static bool recover(struct ef_service *service) {
	struct ef_live *best = NULL;

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		bool ready = ef_fall_good(&live->fall, is_calm(service, live));

		if (ready && (!best || live->contract.cost_order < best->contract.cost_order))
			best = live;
	}
	if (best)
		step_up(service, best);
	return best;
}

bool ef_pressure_act(struct ef_service *service) {
	bool down = false;

	if (!service->measured)
		return false;
	for (size_t i = 0; i < service->n && !down; i++)
		down = judge_feature(service, &service->lives[i]);
	if (!down)
		down = judge_host(service);
	return recover(service) || down;
}

/* ---- metrics ---- */

/* Parts of the limit; without a limit, or not measured, there is none. A limit of 0 has +Inf. */
static void put_ratio(FILE *out, const char *metric, const char *feature, enum ef_budget budget,
		      int64_t used, int64_t limit) {
	if (used < 0 || limit < 0)
		return;
	fprintf(out, "ebpf_fleet_%s{", metric);
	if (feature)
		fprintf(out, "feature=\"%s\",", feature);
	fprintf(out, "budget=\"%s\"} ", ef_budget_name(budget));
	if (limit || !used)
		ef_prom_decimal(out, limit ? (uint64_t)((__int128)used * 1000000 / limit) : 0, 6);
	else
		fputs("+Inf", out);
	fputc('\n', out);
}

static void put_use(FILE *out, const char *metric, const char *feature,
		    const struct ef_amounts *used, const struct ef_amounts *limits) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_budget_is_of((enum ef_budget)i, !feature))
			put_ratio(out, metric, feature, (enum ef_budget)i, used->of[i],
				  limits->of[i]);
}

static void put_uses(FILE *out, const struct ef_service *service) {
	ef_prom_head(out, "budget_used_ratio", "gauge",
		     "What the feature used in the last interval, as a part of its limit.");
	for (size_t i = 0; service->measured && i < service->n; i++)
		put_use(out, "budget_used_ratio", service->lives[i].files->name,
			&service->lives[i].account.used, &service->lives[i].limits);
	ef_prom_head(out, "host_budget_used_ratio", "gauge",
		     "What loader and features used in the last interval, as a part of the "
		     "host's limit.");
	if (service->measured)
		put_use(out, "host_budget_used_ratio", NULL, &service->account.used,
			&service->policy.host);
}

static void put_steps(FILE *out, const struct ef_service *service) {
	ef_prom_head(out, "feature_degraded", "gauge",
		     "1 for the deepest step down that the feature stands on.");
	for (size_t i = 0; i < service->n; i++)
		for (enum ef_step step = EF_STEP_SAMPLING; step <= EF_STEP_SHED; step++)
			fprintf(out, "ebpf_fleet_feature_degraded{feature=\"%s\",step=\"%s\"} %d\n",
				service->lives[i].files->name, ef_step_name(step),
				ef_fall_step(&service->lives[i].fall) == step);
}

/* A series for each reason from the start: the first step is an increase of 1. */
static void put_taken(FILE *out, const struct ef_live *live, bool of_host) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_budget_is_of((enum ef_budget)i, of_host))
			fprintf(out,
				"ebpf_fleet_degradations_total{feature=\"%s\",reason_code=\"%s\"} "
				"%" PRIu64 "\n",
				live->files->name, ef_degrade_code(of_host, (enum ef_budget)i),
				live->fall.taken[of_host][i]);
}

void ef_pressure_metrics(FILE *out, const struct ef_service *service) {
	put_uses(out, service);
	put_steps(out, service);
	ef_prom_head(out, "degradations_total", "counter",
		     "Steps down that a budget took the feature.");
	for (size_t i = 0; i < service->n; i++) {
		put_taken(out, &service->lives[i], false);
		put_taken(out, &service->lives[i], true);
	}
}
