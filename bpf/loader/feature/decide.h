/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_DECIDE_H
#define EF_DECIDE_H

#include <stdbool.h>

#include "base/reason.h"
#include "bundle/contract.h"
#include "control/inputs.h"
#include "feature/degrade.h"
#include "feature/state.h"

/* What is to be done about a feature. */
enum ef_act {
	EF_ACT_NONE,   /* it is as it should be, or nothing can be done */
	EF_ACT_OFF,    /* detach it, where it is attached, and leave it in the verdict's state */
	EF_ACT_RENEW,  /* detach it, and attach it again */
	EF_ACT_ATTACH, /* attach it */
};

/* A feature as it is now. */
struct ef_present {
	enum ef_state state;
	bool opened;	    /* its programs are loaded */
	bool linked;	    /* and attached */
	bool stale;	    /* a CPU came or went: its buffers must be made again */
	bool without_full;  /* attached while a budget forbade the full variants */
	bool due;	    /* it will be attached already */
	bool tried_in_vain; /* and is not to be tried now */
};

struct ef_verdict {
	bool wanted; /* desired.json says so */
	enum ef_act act;
	enum ef_state state;	 /* EF_ACT_OFF */
	struct ef_reason reason; /* EF_ACT_OFF and EF_ACT_RENEW */
};

/*
 * What one feature should be, by what is asked, what its budgets took from it and what
 * it is. Pure: it reads no clock, file or map, tells nothing and changes nothing but
 * *verdict. What takes a feature away goes before what gives it: orders, lease, trust,
 * wish, host limits, contract's end, clock, budget.
 */
void ef_decide(const struct ef_inputs *inputs, const struct ef_contract *contract,
	       const struct ef_fall *fall, const struct ef_present *present,
	       struct ef_verdict *verdict);

#endif
