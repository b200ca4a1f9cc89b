/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/degrade.h"

#include <inttypes.h>
#include <string.h>

#define THIN_BY 4

const char *ef_step_name(enum ef_step step) {
	static const char *const names[] = {"none", "sampling", "reduced", "shed"};

	return names[step];
}

enum ef_step ef_fall_step(const struct ef_fall *fall) {
	if (fall->shed)
		return EF_STEP_SHED;
	if (fall->reduced)
		return EF_STEP_REDUCED;
	return fall->thinning > 1 ? EF_STEP_SAMPLING : EF_STEP_NONE;
}

unsigned ef_fall_depth(const struct ef_fall *fall) {
	unsigned depth = fall->reduced + fall->shed;

	for (unsigned thinning = fall->thinning; thinning > 1; thinning /= THIN_BY)
		depth++;
	return depth;
}

void ef_fall_forget(struct ef_fall *fall) {
	struct ef_fall fresh = {0};

	memcpy(fresh.taken, fall->taken, sizeof(fresh.taken));
	*fall = fresh;
}

bool ef_fall_bad(unsigned *bad, bool exceeded, bool at_once) {
	*bad = exceeded ? *bad + 1 : 0;
	return exceeded && (at_once || *bad >= EF_DEGRADE_BAD);
}

bool ef_fall_good(struct ef_fall *fall, bool calm) {
	unsigned patience = fall->patience ? fall->patience : 1;

	if (fall->recovered && fall->since_recovery < EF_DEGRADE_RELAPSE)
		fall->since_recovery++;
	fall->good = calm ? fall->good + 1 : 0;
	return ef_fall_step(fall) != EF_STEP_NONE && fall->good >= EF_DEGRADE_GOOD * patience;
}

enum ef_step ef_degrade_next(const struct ef_candidate *one) {
	if (!one->attached)
		return EF_STEP_NONE;
	if (one->can_thin && one->fall->thinning < EF_DEGRADE_THINNING)
		return EF_STEP_SAMPLING;
	if (one->can_reduce && !one->fall->reduced)
		return EF_STEP_REDUCED;
	return EF_STEP_SHED;
}

/* The costliest of those whose next step is this one. */
static struct ef_candidate *costliest(struct ef_candidate *all, size_t n, enum ef_step step) {
	struct ef_candidate *worst = NULL;

	for (size_t i = 0; i < n; i++)
		if (ef_degrade_next(&all[i]) == step && (!worst || all[i].cost > worst->cost))
			worst = &all[i];
	return worst;
}

static struct ef_candidate *first_to_go(struct ef_candidate *all, size_t n) {
	struct ef_candidate *first = NULL;

	for (size_t i = 0; i < n; i++)
		if (all[i].attached && (!first || all[i].cost_order > first->cost_order))
			first = &all[i];
	return first;
}

struct ef_candidate *ef_degrade_choose(struct ef_candidate *all, size_t n, enum ef_step *step) {
	struct ef_candidate *chosen;

	for (*step = EF_STEP_SAMPLING; *step < EF_STEP_SHED; (*step)++) {
		chosen = costliest(all, n, *step);
		if (chosen)
			return chosen;
	}
	return first_to_go(all, n);
}

/* A fall soon after a recovery: it was too early, so the next comes later. */
static void learn(struct ef_fall *fall) {
	bool relapse = fall->recovered && fall->since_recovery < EF_DEGRADE_RELAPSE;

	if (!fall->patience || (fall->recovered && !relapse))
		fall->patience = 1;
	if (relapse && fall->patience < EF_DEGRADE_PATIENCE)
		fall->patience *= 2;
	fall->recovered = false;
}

void ef_fall_down(struct ef_fall *fall, enum ef_step step) {
	learn(fall);
	fall->bad = fall->good = 0;
	if (step == EF_STEP_SAMPLING)
		fall->thinning = (fall->thinning ? fall->thinning : 1) * THIN_BY;
	fall->reduced |= step == EF_STEP_REDUCED;
	fall->shed |= step == EF_STEP_SHED;
}

void ef_fall_up(struct ef_fall *fall) {
	fall->bad = fall->good = 0;
	fall->recovered = true;
	fall->since_recovery = 0;
	if (fall->shed)
		fall->shed = false;
	else if (fall->reduced)
		fall->reduced = false;
	else
		fall->thinning /= THIN_BY;
}

void ef_fall_reason(const struct ef_fall *fall, struct ef_reason *why) {
	ef_reason_set(why, ef_budget_code(fall->of_host, fall->budget),
		      "%s's %s was %" PRId64 " %s, the limit is %" PRId64 "; step '%s'",
		      fall->of_host ? "the host" : "the feature", ef_budget_name(fall->budget),
		      fall->measured, ef_budget_unit(fall->budget), fall->limit,
		      ef_step_name(ef_fall_step(fall)));
}
