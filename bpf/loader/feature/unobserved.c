/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/unobserved.h"

#include <string.h>

const char *ef_gap_name(enum ef_gap gap) {
	static const char *const names[EF_N_GAPS] = {
	    [EF_GAP_NONE] = "none",	    [EF_GAP_ATTACHING] = "attaching",
	    [EF_GAP_DOWN] = "down",	    [EF_GAP_REBOOT] = "reboot",
	    [EF_GAP_HANDOVER] = "handover", [EF_GAP_KILL] = "kill",
	    [EF_GAP_HOLD] = "hold",	    [EF_GAP_BUDGET] = "budget",
	    [EF_GAP_UNABLE] = "unable",
	};

	return names[gap];
}

/* Off, but no one decided that: it is about to be attached. */
static enum ef_gap of_off(const char *code) {
	return !code || !strcmp(code, "EF_UNKNOWN") || !strcmp(code, "EF_OK") ||
		       !strcmp(code, "EF_NOT_WANTED")
		   ? EF_GAP_ATTACHING
		   : EF_GAP_HOLD;
}

enum ef_gap ef_gap_of(bool wanted, bool linked, enum ef_state state, const char *code) {
	if (!wanted || linked)
		return EF_GAP_NONE;
	switch (state) {
	case EF_STATE_KILLED:
		return EF_GAP_KILL;
	case EF_STATE_SHED:
		return EF_GAP_BUDGET;
	case EF_STATE_DISABLED:
		return EF_GAP_UNABLE;
	case EF_STATE_OFF:
		return of_off(code);
	default:
		return EF_GAP_ATTACHING;
	}
}

void ef_unobserved_note(struct ef_unobserved *unobserved, enum ef_gap gap, int64_t cut_ns,
			int64_t now_ns) {
	int64_t from = unobserved->at_ns;
	enum ef_gap was = unobserved->gap;

	if (!was && gap && cut_ns > from && from) {
		from = cut_ns;
		was = gap;
	}
	if (from && was && now_ns > from)
		unobserved->ns[was] += (uint64_t)(now_ns - from);
	unobserved->gap = gap;
	unobserved->at_ns = now_ns;
}

int64_t ef_gap_since(const struct ef_last_seen *seen, int64_t boottime_ns, int64_t unix_ns,
		     bool clock_known) {
	int64_t gap = clock_known ? unix_ns - seen->unix_ns : 0;

	if (seen->same_boot)
		return boottime_ns > seen->boottime_ns ? boottime_ns - seen->boottime_ns : 0;
	return gap > boottime_ns ? gap : boottime_ns;
}

json_t *ef_unobserved_json(const struct ef_unobserved *unobserved) {
	json_t *doc = json_object();

	for (enum ef_gap gap = EF_GAP_NONE + 1; gap < EF_N_GAPS; gap++)
		json_object_set_new(doc, ef_gap_name(gap),
				    json_integer((json_int_t)unobserved->ns[gap]));
	return doc;
}

void ef_unobserved_take(struct ef_unobserved *unobserved, const json_t *doc) {
	for (enum ef_gap gap = EF_GAP_NONE + 1; gap < EF_N_GAPS; gap++) {
		json_int_t ns = json_integer_value(json_object_get(doc, ef_gap_name(gap)));

		unobserved->ns[gap] = ns > 0 ? (uint64_t)ns : 0;
	}
}
