/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_INPUTS_H
#define EF_INPUTS_H

#include <stdbool.h>
#include <time.h>

#include "base/moment.h"
#include "bundle/standing.h"
#include "control/desired.h"
#include "control/lease.h"
#include "control/orders.h"
#include "control/policy.h"

/*
 * All that is asked of the loader, as one value: what the control files say, whether
 * the host still trusts what runs, and the clock. Whoever decides reads this and
 * nothing else; whoever reads the files changes this and decides nothing.
 */
struct ef_inputs {
	struct ef_orders orders;

	char *desired_path;
	enum ef_desired_result desired_result; /* of what is in force */
	struct ef_desired desired;	       /* in force */
	char desired_error[1024];	       /* of what was read last; "" when good */

	char *policy_path;
	enum ef_policy_result policy_result; /* of what is in force */
	struct ef_policy policy;	     /* in force */
	char policy_error[1024];	     /* of what was read last; "" when good */

	char *lease_path;
	struct ef_lease lease; /* as read last */
	bool lease_expired;    /* it keeps everything off */

	struct ef_standing standing; /* as judged last */

	time_t wall_s;	/* the greatest wall-clock time seen: no contract comes back to life */
	time_t floor_s; /* a time that has been for certain; before it a clock is wrong */
};

/* The time by which limits are judged. */
struct ef_moment ef_inputs_moment(const struct ef_inputs *inputs);

/* Frees what the inputs own. */
void ef_inputs_free(struct ef_inputs *inputs);

#endif
