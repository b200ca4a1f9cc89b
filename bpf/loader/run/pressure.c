/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/pressure.h"

#include "feature/measure.h"

#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "run/state.h"
#include "tell/audit.h"

static const struct ef_who by_budget = {.source = "budget", .uid = -1};

/* ---- the account ---- */

static void add_measured(int64_t *sum, int64_t amount) {
	*sum = *sum < 0 || amount < 0 ? -1 : *sum + amount;
}

void ef_pressure_measure(struct ef_service *service, const struct ef_snapshot *snapshot) {
	const struct ef_own_use own = {.cpu_ns = snapshot->cpu_ns,
				       .attaching_ns = service->attaching_ns,
				       .rss_bytes = snapshot->rss_bytes,
				       .map_memory_bytes = snapshot->map_memory_bytes};
	int64_t now_ns = ef_clock_ns(CLOCK_MONOTONIC), run_ns = 0, events = 0;

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		int64_t consumer_before = live->counted.consumer_before_ns;

		live->asked.limits = ef_policy_limits(&service->inputs.policy, ef_live_name(live),
						      &live->contract.budget);
		ef_budget_feature(&live->counted.account, &snapshot->features[i],
				  live->counted.consumer_ns, now_ns);
		live->counted.consumer_before_ns = live->counted.consumer_ns;
		if (!live->counted.account.known)
			continue;
		/* The loader's time is the host's own reading already. */
		add_measured(&run_ns, live->counted.account.cpu_delta_ns < 0
					  ? -1
					  : live->counted.account.cpu_delta_ns -
						(live->counted.consumer_ns - consumer_before));
		if (live->attached.feed) /* what stays in the kernel is not sent as events */
			add_measured(&events, live->counted.account.events_delta);
	}
	ef_budget_host(&service->account, &own, run_ns, events, now_ns);
	service->measured = true;
}

void ef_pressure_tell(const struct ef_service *service, struct ef_snapshot *snapshot) {
	snapshot->measured = service->measured;
	snapshot->used = service->account.used;
	for (size_t i = 0; service->measured && i < service->n; i++) {
		struct ef_feature_snapshot *feature = &snapshot->features[i];

		feature->measured = service->lives[i].counted.account.known;
		feature->used = service->lives[i].counted.account.used;
		feature->limits = service->lives[i].asked.limits;
	}
}

/* ---- the steps ---- */

static bool can_thin(const struct ef_live *live) {
	return ef_live_can_sample(live);
}

static bool can_reduce(const struct ef_live *live) {
	if (!live->attached.variant || !ef_contract_variant_is_full(live->attached.variant))
		return false;
	for (size_t i = 0; i < live->contract.n_variants; i++)
		if (!ef_contract_variant_is_full(&live->contract.variants[i]))
			return true;
	return false;
}

/* What a feature has of the host's excess; memory of the process belongs to none of them. */
static int64_t cost_of(const struct ef_live *live, enum ef_budget budget) {
	if (budget == EF_BUDGET_CPU)
		return live->counted.account.cpu_delta_ns;
	if (budget == EF_BUDGET_EVENT_RATE)
		return live->counted.account.events_delta;
	if (budget == EF_BUDGET_RSS)
		return live->contract.cost_order;
	return ef_amount(&live->counted.account.used, budget);
}

static struct ef_candidate candidate(struct ef_live *live, enum ef_budget budget) {
	/* Fewer events make no map and no process smaller. */
	bool stays = budget == EF_BUDGET_MAP_MEMORY || budget == EF_BUDGET_RSS;

	return (struct ef_candidate){
	    .fall = &live->decided.fall,
	    .attached = live->decided.state == EF_STATE_ATTACHED,
	    .can_thin = can_thin(live) && !stays && !live->decided.fall.reduced,
	    .can_reduce = can_reduce(live),
	    .cost = cost_of(live, budget),
	    .cost_order = live->contract.cost_order,
	};
}

static void step_down(struct ef_service *service, struct ef_live *live, enum ef_step step,
		      bool of_host, enum ef_budget budget) {
	const struct ef_amounts *used =
	    of_host ? &service->account.used : &live->counted.account.used;
	const struct ef_amounts *limits =
	    of_host ? &service->inputs.policy.host : &live->asked.limits;
	struct ef_reason why;

	if (live->decided.fall.thinning <= 1)
		live->decided.thinned_from =
		    ef_amount(&live->counted.account.used, EF_BUDGET_EVENT_RATE);
	ef_fall_down(&live->decided.fall, step);
	live->decided.fall.of_host = of_host;
	live->decided.fall.budget = budget;
	live->decided.fall.measured = ef_amount(used, budget);
	live->decided.fall.limit = ef_amount(limits, budget);
	live->decided.fall.since_ns = ef_clock_ns(CLOCK_BOOTTIME);
	live->decided.fall.taken[of_host][budget]++;
	ef_fall_reason(&live->decided.fall, &why);
	ef_warn("feature %s: degraded: %s: %s (%s)", ef_live_name(live), ef_step_name(step),
		ef_reason_text(&why), ef_reason_code(&why));
	ef_audit_feature(service->audit, "degrade", ef_live_name(live), ef_live_what(live), &why,
			 &by_budget);
}

static void step_up(struct ef_service *service, struct ef_live *live) {
	enum ef_step from = ef_fall_step(&live->decided.fall);
	struct ef_reason why;

	ef_fall_up(&live->decided.fall);
	live->decided.fall.since_ns = ef_clock_ns(CLOCK_BOOTTIME);
	ef_reason_set(&why, "EF_OK", "%s has been well below its limit; step '%s' is taken back",
		      ef_budget_name(live->decided.fall.budget), ef_step_name(from));
	ef_notice("feature %s: recovered a step: %s: %s", ef_live_name(live), ef_step_name(from),
		  ef_reason_text(&why));
	ef_audit_feature(service->audit, "recover", ef_live_name(live), ef_live_what(live), &why,
			 &by_budget);
}

/* Its own limits; true when it took a step. */
static bool judge_feature(struct ef_service *service, struct ef_live *live) {
	enum ef_budget budget =
	    ef_budget_exceeded(&live->counted.account.used, &live->asked.limits);
	bool exceeded = live->counted.account.known && budget != EF_N_BUDGETS;
	struct ef_candidate one;
	enum ef_step step;

	if (!ef_fall_bad(&live->decided.fall.bad, exceeded, budget == EF_BUDGET_MAP_FILL))
		return false;
	one = candidate(live, budget);
	step = ef_degrade_next(&one);
	if (step == EF_STEP_NONE)
		return false;
	step_down(service, live, step, false, budget);
	return true;
}

static bool judge_host(struct ef_service *service) {
	const struct ef_amounts *limits = &service->inputs.policy.host;
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
	enum ef_budget budget = live->decided.fall.budget;

	if (live->decided.fall.of_host)
		return ef_budget_calm(&service->account.used, &service->inputs.policy.host, budget);
	return ef_budget_calm(&live->counted.account.used, &live->asked.limits, budget);
}

/* Every fallen feature counts the interval; the least costly that has waited enough steps up. */
static bool recover(struct ef_service *service) {
	struct ef_live *best = NULL;

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		bool ready = ef_fall_good(&live->decided.fall, is_calm(service, live));

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
