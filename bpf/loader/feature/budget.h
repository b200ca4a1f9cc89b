/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BUDGET_H
#define EF_BUDGET_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/budgets.h"

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

/* The first budget that is exceeded, or EF_N_BUDGETS. What was not measured exceeds nothing. */
enum ef_budget ef_budget_exceeded(const struct ef_amounts *used, const struct ef_amounts *limits);

/* Is it below four fifths of its limit? So is what is not measured: a feature that is off uses
 * nothing. */
bool ef_budget_calm(const struct ef_amounts *used, const struct ef_amounts *limits,
		    enum ef_budget budget);

/* {"cpu_millicores": {"measured": n or null, "limit": n or null}}: a new reference. */
json_t *ef_budget_json(const struct ef_amounts *used, const struct ef_amounts *limits,
		       bool of_host);

#endif
