/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_MEASURE_H
#define EF_MEASURE_H

#include "feature/budget.h"
#include "feature/snapshot.h"

/*
 * Take a reading of a feature. consumer_ns is the loader's CPU time for its records.
 * Rates are rounded up. An interval in which it was attached again is not measured.
 */
void ef_budget_feature(struct ef_account *account, const struct ef_feature_snapshot *feature,
		       int64_t consumer_ns, int64_t now_ns);

/* What the loader's process uses; -1: not known. */
struct ef_own_use {
	int64_t cpu_ns;
	int64_t attaching_ns; /* of it: a cost of once, which no running budget is charged with */
	int64_t rss_bytes;
	int64_t map_memory_bytes; /* of all maps */
};

/*
 * Take a reading of the host: the loader's own use, and what the features ran in the
 * kernel (run_ns) and let pass (events), -1 where one of them was not measured.
 */
void ef_budget_host(struct ef_account *account, const struct ef_own_use *own, int64_t run_ns,
		    int64_t events, int64_t now_ns);

#endif
