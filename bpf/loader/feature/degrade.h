/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_DEGRADE_H
#define EF_DEGRADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budgets.h"
#include "base/reason.h"

/*
 * Step by step down, and more slowly up again. Nothing here reads a clock or a
 * map: time is counted in intervals, so that every path can be tried.
 */

#define EF_DEGRADE_BAD 2       /* intervals in a row before a step down */
#define EF_DEGRADE_GOOD 12     /* before a step up; doubled by each relapse */
#define EF_DEGRADE_PATIENCE 16 /* times EF_DEGRADE_GOOD, at most */
#define EF_DEGRADE_THINNING 64 /* times what was asked, at most */
#define EF_DEGRADE_RELAPSE 720 /* intervals after a recovery in which a fall is a relapse */

enum ef_step { EF_STEP_NONE, EF_STEP_SAMPLING, EF_STEP_REDUCED, EF_STEP_SHED };

/* How far down a feature is. All zero: not at all. */
struct ef_fall {
	unsigned thinning; /* 0 and 1: none */
	bool reduced;	   /* no full variant */
	bool shed;
	uint64_t taken[2][EF_N_BUDGETS]; /* steps down over this process's life, [of_host] */
	unsigned bad, good;
	unsigned patience; /* times EF_DEGRADE_GOOD; 0: 1 */
	unsigned since_recovery;
	bool recovered;

	/* Why, of the step taken last. */
	bool of_host;
	enum ef_budget budget;
	int64_t measured, limit;
	int64_t since_ns; /* CLOCK_BOOTTIME */
};

/* What a feature could still give up, and what it is worth. */
struct ef_candidate {
	struct ef_fall *fall; /* borrowed */
	bool attached;
	bool can_thin;
	bool can_reduce;
	int64_t cost; /* of the budget that is exceeded; -1: not known */
	int64_t cost_order;
};

/* Which step a feature stands on: the lowest of those taken. */
enum ef_step ef_fall_step(const struct ef_fall *fall);

/* How many steps down it stands. */
unsigned ef_fall_depth(const struct ef_fall *fall);

/* It is no longer wanted: it begins again with the next wish. Counts of steps stay. */
void ef_fall_forget(struct ef_fall *fall);

/* Why it stands where it does: by the step taken last. */
void ef_fall_reason(const struct ef_fall *fall, struct ef_reason *why);

/* "sampling", "reduced", "shed". */
const char *ef_step_name(enum ef_step step);

/*
 * One interval's verdict; true when it is bad for the EF_DEGRADE_BAD-th time in
 * a row, or at_once.
 */
bool ef_fall_bad(unsigned *bad, bool exceeded, bool at_once);

/* One good or not so good interval; true when it has been good for long enough to step up. */
bool ef_fall_good(struct ef_fall *fall, bool calm);

/* The feature that a host's excess falls on, and its step in *step; NULL: nothing is left. */
struct ef_candidate *ef_degrade_choose(struct ef_candidate *all, size_t n, enum ef_step *step);

/* The next step down of one feature for its own excess; EF_STEP_NONE: it is down already. */
enum ef_step ef_degrade_next(const struct ef_candidate *one);

void ef_fall_down(struct ef_fall *fall, enum ef_step step);

/* Undo the lowest step. */
void ef_fall_up(struct ef_fall *fall);

#endif
