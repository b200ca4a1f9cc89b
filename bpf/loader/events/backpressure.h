/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BACKPRESSURE_H
#define EF_BACKPRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#include "bundle/signal.h"

/*
 * What an events signal does when its reader cannot keep up, as its contract
 * says. Nothing here reads a clock or a map: time is counted in checks, so that
 * every path can be tried.
 */

#define EF_BACKPRESSURE_CHECK_NS 100000000 /* between two checks */
#define EF_BACKPRESSURE_CALM 30	   /* checks in a row before a step back; doubled by relapse */
#define EF_BACKPRESSURE_PATIENCE 8 /* times EF_BACKPRESSURE_CALM, at most */
#define EF_BACKPRESSURE_LEVELS 10  /* one event in 2^10, at the thinnest */

/* How far the reader is behind at a check. */
struct ef_strain {
	uint64_t lag_bytes;
	uint64_t ring_bytes;
	uint64_t dropped; /* so far, in the kernel and at the sink */
};

/* All zero but the kind: at ease, nothing seen yet. */
struct ef_backpressure {
	enum ef_backpressure_kind kind;
	unsigned level;	   /* 0: at ease. sample: one event in 2^level. aggregate: 1 */
	unsigned calm;	   /* checks in a row */
	unsigned patience; /* times EF_BACKPRESSURE_CALM; 0: 1 */
	unsigned since;	   /* checks since the last step back */
	bool stepped_back;
	bool known; /* there is a dropped_before */
	uint64_t dropped_before;
	struct ef_strain at; /* which made it step last; dropped: since the check before */
};

enum ef_backpressure_change {
	EF_BACKPRESSURE_SAME,
	EF_BACKPRESSURE_BEGUN,	 /* from level 0 */
	EF_BACKPRESSURE_CHANGED, /* to another level */
	EF_BACKPRESSURE_ENDED,	 /* to level 0 */
};

/*
 * One check. Strained is a ring that is over half full or a drop since the
 * check before; calm one that is at most three eighths full (a reader that keeps
 * up is woken at a quarter) with no drop. A strained check is a step at once, a
 * step back takes EF_BACKPRESSURE_CALM calm ones.
 */
enum ef_backpressure_change ef_backpressure_check(struct ef_backpressure *state,
						  const struct ef_strain *strain);

/* What its sampling is multiplied by: 1 and more. */
uint32_t ef_backpressure_thinning(const struct ef_backpressure *state);

/* It was detached: at ease, nothing seen yet. */
void ef_backpressure_forget(struct ef_backpressure *state);

#endif
