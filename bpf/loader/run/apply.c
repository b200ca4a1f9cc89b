/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/apply.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "feature/decide.h"
#include "kernel/process.h"
#include "run/publish.h"
#include "run/report.h"
#include "run/wake.h"

#define FAIR_FLOOR 100 /* events a second; as a fair contract allows at least */

/* Detach a feature and leave it in a state; true when that is a change. */
bool ef_apply_off(struct ef_service *service, struct ef_live *live, enum ef_state state,
		  const struct ef_reason *why) {
	bool was_attached = live->attached.object != NULL;
	bool changed = live->decided.state != state || !ef_reason_code(&live->decided.reason) ||
		       strcmp(ef_reason_code(&live->decided.reason), ef_reason_code(why));

	ef_live_detach(live, service->sink);
	live->decided.state = state;
	live->decided.due = false;
	live->decided.reason = *why;
	live->decided.retry_ns = 0;
	live->decided.retries = 0;
	if (was_attached)
		ef_notice("feature %s: detached: %s (%s)", ef_live_name(live), ef_reason_text(why),
			  ef_reason_code(why));
	ef_live_note(live);
	ef_report_off(service, live, why, was_attached, changed);
	return changed;
}

/* Detached, to be attached again at once. */
static void attach_again(struct ef_service *service, struct ef_live *live,
			 const struct ef_reason *why) {
	ef_notice("feature %s: it is attached again: %s", ef_live_name(live), ef_reason_text(why));
	ef_live_detach(live, service->sink);
	live->decided.state = EF_STATE_OFF;
	ef_live_note(live);
	ef_report_off(service, live, why, true, false);
}

static struct ef_present present_of(const struct ef_live *live) {
	return (struct ef_present){
	    .state = live->decided.state,
	    .opened = live->attached.object != NULL,
	    .linked = ef_live_linked(live),
	    .stale = ef_live_stale(live),
	    .without_full = live->attached.without_full,
	    .due = live->decided.due,
	    .tried_in_vain = ef_live_tried_in_vain(live),
	};
}

static void make_due(struct ef_live *live) {
	ef_reason_set(&live->decided.reason, "EF_UNKNOWN", "about to be attached");
	live->decided.state = EF_STATE_OFF;
	live->decided.due = true;
}

/* Bring one feature to where it should be; true when that is a change. */
bool ef_apply(struct ef_service *service, struct ef_live *live) {
	struct ef_present present = present_of(live);
	struct ef_verdict verdict;

	ef_decide(&service->inputs, &live->contract, &live->decided.fall, &present, &verdict);
	live->asked.wanted = verdict.wanted;
	if (!verdict.wanted)
		ef_fall_forget(&live->decided.fall);
	if (verdict.act == EF_ACT_OFF)
		return ef_apply_off(service, live, verdict.state, &verdict.reason);
	if (verdict.act == EF_ACT_NONE) {
		ef_live_note(live);
		return false;
	}
	if (verdict.act == EF_ACT_RENEW)
		attach_again(service, live, &verdict.reason);
	make_due(live);
	ef_live_note(live);
	return true;
}

/* The feature's limit in force, or the host's where that is smaller; -1: there is neither. */
static int64_t rate_allowed(const struct ef_service *service, const struct ef_live *live) {
	struct ef_amounts limits =
	    ef_policy_limits(&service->inputs.policy, ef_live_name(live), &live->contract.budget);
	int64_t rate = ef_amount(&limits, EF_BUDGET_EVENT_RATE);
	int64_t of_host = ef_amount(&service->inputs.policy.host, EF_BUDGET_EVENT_RATE);

	return rate < 0 || (of_host >= 0 && of_host < rate) ? of_host : rate;
}

static int64_t thinned_rate(int64_t rate, uint64_t thinning, int64_t allowed) {
	int64_t thinned = rate / (int64_t)thinning;

	if (thinned < FAIR_FLOOR)
		thinned = FAIR_FLOOR;
	return allowed >= 0 && allowed < thinned ? allowed : thinned;
}

/*
 * What a budget or a reader that is behind takes from a fair feature it takes from
 * the loudest first: of the rate that there was, or that is allowed, only a part may
 * pass, and never less than FAIR_FLOOR: with fewer places there is no share for a quiet
 * source. False: neither rate is known.
 */
static bool apply_limit(struct ef_service *service, struct ef_live *live, uint64_t thinning) {
	int64_t allowed = rate_allowed(service, live), rate = allowed;
	int64_t from = live->decided.fall.thinning > 1 ? live->decided.thinned_from : -1;
	int err;

	if (from >= 0 && (rate < 0 || from < rate))
		rate = from;
	if (thinning > 1 && rate < 0)
		return false;
	if (thinning > 1)
		rate = thinned_rate(rate, thinning, allowed);
	err = ef_live_limit(live, rate);
	if (err)
		ef_err("feature %s: its rate cannot be limited: %s", ef_live_name(live),
		       strerror(-err));
	return true;
}

bool ef_apply_sampling(struct ef_service *service, struct ef_live *live) {
	const struct ef_wish *wish = ef_desired_find(&service->inputs.desired, ef_live_name(live));
	uint32_t asked =
	    wish && wish->sample_every ? wish->sample_every : live->contract.sample_every;
	uint64_t thinning =
	    (uint64_t)(live->decided.fall.thinning ? live->decided.fall.thinning : 1) *
	    ef_backpressure_thinning(&live->counted.backpressure);
	uint64_t thinned = asked * thinning;
	uint32_t every;
	int err;

	if (ef_live_is_fair(live) && apply_limit(service, live, thinning))
		thinned = asked;
	every = thinned > UINT32_MAX ? UINT32_MAX : (uint32_t)thinned;
	if (every == live->asked.sample_every)
		return false;
	err = ef_live_sample(live, every);
	if (err == -EOPNOTSUPP)
		ef_warn("feature %s: its object knows no sampling: every event is taken",
			ef_live_name(live));
	else if (err)
		ef_err("feature %s: sampling cannot be set: %s", ef_live_name(live),
		       strerror(-err));
	return true;
}

/* A cost of once, which no running budget is charged with. */
static bool attach(struct ef_service *service, struct ef_live *live) {
	int64_t before_ns = ef_self_cpu_ns();
	const struct ef_live_told told = {service, ef_report_loaded, ef_report_refused};
	bool attached = ef_live_attach(live, &service->kernel, service->sink, &told);

	service->attaching_ns += ef_self_cpu_ns() - before_ns;
	ef_live_note(live);
	return attached;
}

void ef_apply_attach(struct ef_service *service, struct ef_live *live) {
	live->decided.due = false;
	if (!attach(service, live)) {
		ef_warn("feature %s: disabled: %s (%s)", ef_live_name(live),
			ef_reason_text(&live->decided.reason),
			ef_reason_code(&live->decided.reason));
		return;
	}
	if (live->attached.feed &&
	    ef_wake_on(service, ef_feed_fd(live->attached.feed), EF_SOURCE_RING))
		ef_err("feature %s: its ring cannot be waited on: %s; it is read every %d ms",
		       ef_live_name(live), strerror(errno), EF_POLL_MS);
	ef_wake_pace(service);
	ef_publish(service); /* before it is announced */
	ef_report_attached(service, live);
	ef_notice("feature %s: attached: variant %s, %zu programs", ef_live_name(live),
		  ef_contract_variant_name(live->attached.variant),
		  json_array_size(live->attached.variant->programs));
}
