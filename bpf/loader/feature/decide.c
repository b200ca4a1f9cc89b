/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/decide.h"

/* The place for the reason why it is off, in that state. */
static struct ef_reason *off_in(struct ef_verdict *verdict, enum ef_state state) {
	verdict->act = EF_ACT_OFF;
	verdict->state = state;
	return &verdict->reason;
}

static bool is_wanted(const struct ef_inputs *inputs, const struct ef_contract *contract) {
	const struct ef_wish *wish = ef_desired_find(&inputs->desired, contract->feature);

	return wish && wish->enabled;
}

static void off_unwanted(const struct ef_inputs *inputs, struct ef_verdict *verdict) {
	struct ef_reason *why = off_in(verdict, EF_STATE_OFF);

	if (inputs->desired_result == EF_DESIRED_ABSENT)
		ef_reason_set(why, "EF_NO_DESIRED", "there is no %s", inputs->desired_path);
	else if (inputs->desired_result == EF_DESIRED_BAD)
		ef_reason_set(why, "EF_DESIRED_MALFORMED", "%s", inputs->desired_error);
	else
		ef_reason_set(why, "EF_NOT_WANTED", "desired.json does not want it");
}

/* What the host's control files take away. True: there is something. */
static bool taken_by_host(const struct ef_inputs *inputs, const struct ef_contract *contract,
			  struct ef_verdict *verdict) {
	const struct ef_order *order = ef_orders_feature(&inputs->orders, contract->feature);

	if (order)
		ef_reason_set(off_in(verdict, EF_STATE_KILLED), ef_order_code(order),
			      "kill order %s; remove it to release", ef_order_path(order));
	else if (inputs->lease_expired)
		ef_lease_reason(&inputs->lease, off_in(verdict, EF_STATE_OFF));
	else if (ef_standing_is_lost(&inputs->standing))
		ef_standing_reason(&inputs->standing, off_in(verdict, EF_STATE_OFF));
	else if (!verdict->wanted)
		off_unwanted(inputs, verdict);
	else if (inputs->policy_result == EF_POLICY_BAD)
		ef_reason_set(off_in(verdict, EF_STATE_OFF), "EF_HOST_POLICY_MALFORMED", "%s",
			      inputs->policy_error);
	return verdict->act == EF_ACT_OFF;
}

/* What its contract and its budgets take away. True: there is something. */
static bool taken_by_feature(const struct ef_inputs *inputs, const struct ef_contract *contract,
			     const struct ef_fall *fall, struct ef_verdict *verdict) {
	if (ef_contract_expired_at(contract, inputs->wall_s))
		ef_reason_set(off_in(verdict, EF_STATE_DISABLED), "EF_EXPIRED",
			      "its contract expired on %d; renew it and release again",
			      contract->expires);
	else if (contract->expires && !ef_inputs_moment(inputs).known)
		ef_reason_set(off_in(verdict, EF_STATE_OFF), "EF_CLOCK_UNKNOWN",
			      "it runs until %d, and this host's clock stands before what has "
			      "happened already; set the clock",
			      contract->expires);
	else if (fall->shed)
		ef_fall_reason(fall, off_in(verdict, EF_STATE_SHED));
	return verdict->act == EF_ACT_OFF;
}

/* Why it must be attached again; NULL: it need not. */
static const char *why_renew(const struct ef_fall *fall, const struct ef_present *present) {
	if (present->opened && present->without_full != fall->reduced)
		return "its budget allows another variant than before";
	if (present->opened && !present->linked)
		return "cut by an order or a lease that is gone";
	if (present->stale)
		return "a CPU came or went: buffers for those that are there";
	return NULL;
}

void ef_decide(const struct ef_inputs *inputs, const struct ef_contract *contract,
	       const struct ef_fall *fall, const struct ef_present *present,
	       struct ef_verdict *verdict) {
	const char *why;

	*verdict = (struct ef_verdict){.wanted = is_wanted(inputs, contract)};
	if (taken_by_host(inputs, contract, verdict) ||
	    taken_by_feature(inputs, contract, fall, verdict))
		return;
	why = why_renew(fall, present);
	if (why) {
		verdict->act = EF_ACT_RENEW;
		ef_reason_set(&verdict->reason, "EF_OK", "%s", why);
	} else if (present->state != EF_STATE_ATTACHED && !present->due &&
		   !present->tried_in_vain) {
		verdict->act = EF_ACT_ATTACH;
	}
}
