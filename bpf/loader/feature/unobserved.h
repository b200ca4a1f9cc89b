/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_UNOBSERVED_H
#define EF_UNOBSERVED_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "feature/state.h"

/* Why a feature that is wanted sees nothing; the names are those of the metric's label. */
enum ef_gap {
	EF_GAP_NONE,
	EF_GAP_ATTACHING, /* it is being attached, at start or again */
	EF_GAP_DOWN,	  /* no loader ran: it was stopped, or died */
	EF_GAP_REBOOT,	  /* likewise, and the host was booted meanwhile */
	EF_GAP_HANDOVER,  /* from one loader to the next */
	EF_GAP_KILL,	  /* a kill order */
	EF_GAP_HOLD,	  /* lease, trust, clock or the host's limits keep everything off */
	EF_GAP_BUDGET,	  /* shed */
	EF_GAP_UNABLE,	  /* no variant works here, or its contract has ended */
	EF_N_GAPS,
};

/* Time in which a feature was wanted and not attached, over the lives of the loader. */
struct ef_unobserved {
	uint64_t ns[EF_N_GAPS];
	enum ef_gap gap; /* since at_ns */
	int64_t at_ns;	 /* CLOCK_BOOTTIME; 0: not noted yet */
};

/* "attaching", ..., "unable". */
const char *ef_gap_name(enum ef_gap gap);

/* What a feature lacks that is in that state, for that reason code. */
enum ef_gap ef_gap_of(bool wanted, bool linked, enum ef_state state, const char *code);

/*
 * It is now so. What it was before held until now, or until it was cut (CLOCK_BOOTTIME; 0:
 * not known), where that was since.
 */
void ef_unobserved_note(struct ef_unobserved *unobserved, enum ef_gap gap, int64_t cut_ns,
			int64_t now_ns);

/* When a loader was there last. */
struct ef_last_seen {
	bool same_boot;
	int64_t boottime_ns;
	int64_t unix_ns;
};

/*
 * The time until now in which no loader ran. In the same boot by its clock. In another by the wall
 * clock, and at least as long as this boot is (also where the wall clock is not known).
 */
int64_t ef_gap_since(const struct ef_last_seen *seen, int64_t boottime_ns, int64_t unix_ns,
		     bool clock_known);

/* {"attaching": ns, ...}: a new reference. */
json_t *ef_unobserved_json(const struct ef_unobserved *unobserved);

/* Take the times of such a document; what it does not have is 0. */
void ef_unobserved_take(struct ef_unobserved *unobserved, const json_t *doc);

#endif
