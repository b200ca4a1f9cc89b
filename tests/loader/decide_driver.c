/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One case of ef_decide(), by words NAME=VALUE; prints "ACT STATE CODE WANTED SENTENCE".
 * All that is not said is a feature "f" that is wanted, not attached and allowed everything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feature/decide.h"

#define DAY_S 86400

static struct ef_order orders[4];
static struct ef_wish wish = {.feature = (char *)"f", .enabled = true};
static struct ef_inputs inputs = {.desired_path = (char *)"/etc/desired.json",
				  .desired = {.n = 1, .wishes = &wish},
				  .wall_s = 20000LL * DAY_S};
static struct ef_contract contract = {.feature = "f"};
static struct ef_fall fall;
static struct ef_present present;

static void order(const char *scope) {
	orders[inputs.orders.n] = (struct ef_order){.scope = (char *)scope, .path = (char *)scope};
	inputs.orders.orders = orders;
	inputs.orders.n++;
}

static void of_host(const char *name, const char *value) {
	if (!strcmp(name, "order"))
		order(value);
	else if (!strcmp(name, "lease"))
		inputs.lease_expired = inputs.lease.there = !strcmp(value, "over");
	else if (!strcmp(name, "trust")) {
		inputs.standing.lost = true;
		ef_refuse(&inputs.standing.why, value, "allowed_signers", "it says so");
	} else if (!strcmp(name, "desired"))
		inputs.desired_result = !strcmp(value, "absent") ? EF_DESIRED_ABSENT
					: !strcmp(value, "bad")	 ? EF_DESIRED_BAD
								 : EF_DESIRED_READ;
	else if (!strcmp(name, "wish"))
		wish.enabled = !strcmp(value, "on");
	else if (!strcmp(name, "policy"))
		inputs.policy_result = !strcmp(value, "bad") ? EF_POLICY_BAD : EF_POLICY_READ;
	else if (!strcmp(name, "wall_day"))
		inputs.wall_s = atoll(value) * DAY_S;
	else if (!strcmp(name, "floor_day"))
		inputs.floor_s = atoll(value) * DAY_S;
}

static void of_feature(const char *name, const char *value) {
	long number = atol(value);

	if (!strcmp(name, "expires"))
		contract.expires = (int)number;
	else if (!strcmp(name, "shed"))
		fall.shed = number;
	else if (!strcmp(name, "reduced"))
		fall.reduced = number;
	else if (!strcmp(name, "of_host"))
		fall.of_host = number;
	else if (!strcmp(name, "budget"))
		fall.budget = (enum ef_budget)number;
	else if (!strcmp(name, "state"))
		present.state = (enum ef_state)number;
	else if (!strcmp(name, "opened"))
		present.opened = number;
	else if (!strcmp(name, "linked"))
		present.linked = number;
	else if (!strcmp(name, "stale"))
		present.stale = number;
	else if (!strcmp(name, "without_full"))
		present.without_full = number;
	else if (!strcmp(name, "due"))
		present.due = number;
	else if (!strcmp(name, "in_vain"))
		present.tried_in_vain = number;
}

int main(int argc, char **argv) {
	static const char *const acts[] = {"none", "rest", "renew", "attach"};
	struct ef_verdict verdict;

	for (int i = 1; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		*value++ = 0;
		of_host(argv[i], value);
		of_feature(argv[i], value);
	}
	ef_decide(&inputs, &contract, &fall, &present, &verdict);
	printf("%s %s %s %d %s\n", acts[verdict.act], ef_state_name(verdict.state),
	       verdict.reason.code ? verdict.reason.code : "-", verdict.wanted,
	       verdict.reason.text);
	return 0;
}
