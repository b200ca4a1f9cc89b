/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/backpressure.h"

#include <stddef.h>
#include <string.h>

#include "base/util.h"

static unsigned most(const struct ef_backpressure *state) {
	return state->kind == EF_BACKPRESSURE_SAMPLE ? EF_BACKPRESSURE_LEVELS : 1;
}

/* Since the check before; the first check only learns what was dropped before it. */
static uint64_t dropped_since(struct ef_backpressure *state, uint64_t dropped) {
	uint64_t since = state->known ? dropped - state->dropped_before : 0;

	state->known = true;
	state->dropped_before = dropped;
	return since;
}

/* Strain soon after a step back: it was too early, so the next comes later. */
static void learn(struct ef_backpressure *state) {
	unsigned patience = state->patience ? state->patience : 1;
	bool relapse = state->stepped_back && state->since < EF_BACKPRESSURE_CALM;

	if (relapse && patience < EF_BACKPRESSURE_PATIENCE)
		patience *= 2;
	else if (state->stepped_back && !relapse)
		patience = 1;
	state->patience = patience;
	state->stepped_back = false;
}

static enum ef_backpressure_change step(struct ef_backpressure *state,
					const struct ef_strain *strain, uint64_t dropped) {
	learn(state);
	state->at = *strain;
	state->at.dropped = dropped;
	state->calm = 0;
	if (state->level == most(state))
		return EF_BACKPRESSURE_SAME;
	return state->level++ ? EF_BACKPRESSURE_CHANGED : EF_BACKPRESSURE_BEGUN;
}

static enum ef_backpressure_change step_back(struct ef_backpressure *state) {
	state->calm = 0;
	state->since = 0;
	state->stepped_back = true;
	return --state->level ? EF_BACKPRESSURE_CHANGED : EF_BACKPRESSURE_ENDED;
}

enum ef_backpressure_change ef_backpressure_check(struct ef_backpressure *state,
						  const struct ef_strain *strain) {
	unsigned patience = state->patience ? state->patience : 1;
	uint64_t dropped = dropped_since(state, strain->dropped);

	if (state->kind == EF_BACKPRESSURE_DROP)
		return EF_BACKPRESSURE_SAME;
	if (state->since < EF_BACKPRESSURE_CALM)
		state->since++;
	if (dropped || strain->lag_bytes > strain->ring_bytes / 2)
		return step(state, strain, dropped);
	if (strain->lag_bytes > strain->ring_bytes / 8 * 3)
		state->calm = 0;
	else if (state->level && ++state->calm >= EF_BACKPRESSURE_CALM * patience)
		return step_back(state);
	return EF_BACKPRESSURE_SAME;
}

uint32_t ef_backpressure_thinning(const struct ef_backpressure *state) {
	return state->kind == EF_BACKPRESSURE_SAMPLE ? 1u << state->level : 1;
}

void ef_backpressure_forget(struct ef_backpressure *state) {
	*state = (struct ef_backpressure){.kind = state->kind};
}
