/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BUDGET_H
#define EF_BUDGET_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "policy.h"

/* What one feature, or the host, has used: two readings make a rate. */
struct ef_account {
	bool known; /* there is a first reading */
	int64_t time_ns;
	int64_t cpu_ns; /* -1: not measured */
	int64_t events; /* that sampling let pass; -1: not measured */
	int64_t passed; /* likewise; -1 also where it is not counted apart */
	int64_t dropped, delivered;
	int64_t cpu_delta_ns;	/* of the last interval; -1: not measured */
	int64_t events_delta;	/* likewise */
	struct ef_amounts used; /* in the last interval, or at its end */
};

/*
 * Take a reading of a feature from its part of the status. consumer_ns is the
 * loader's CPU time for its records. Rates are rounded up. An interval in which
 * it was attached anew is not measured.
 */
void ef_budget_feature(struct ef_account *account, const json_t *feature, int64_t consumer_ns,
		       int64_t now_ns);

/*
 * Take a reading of the host: the loader's part of the status, the part of its
 * CPU time that attaching took (a cost of once, which no running budget is
 * charged with), and what the features ran in the kernel (run_ns) and let pass
 * (events), -1 where one of them was not measured.
 */
void ef_budget_host(struct ef_account *account, const json_t *loader, int64_t attaching_ns,
		    int64_t run_ns, int64_t events, int64_t now_ns);

/* The first budget that is exceeded, or EF_N_BUDGETS. What was not measured exceeds nothing. */
enum ef_budget ef_budget_exceeded(const struct ef_amounts *used, const struct ef_amounts *limits);

/* Is it below four fifths of its limit? So is what is not measured: a feature that is off uses
 * nothing. */
bool ef_budget_calm(const struct ef_amounts *used, const struct ef_amounts *limits,
		    enum ef_budget budget);

/* {"cpu_millicores": {"measured": n or null, "limit": n or null}}: a new reference. */
json_t *ef_budget_json(const struct ef_amounts *used, const struct ef_amounts *limits,
		       bool of_host);

/* Resident memory is the host's alone; drops and fill are held feature by feature. */
bool ef_budget_is_of(enum ef_budget budget, bool of_host);

#endif
