/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_POLICY_H
#define EF_POLICY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sink.h"

#define EF_POLICY_FILE "policy.json"

/* What is held to a limit. The order is that in which an excess is looked for. */
enum ef_budget {
	EF_BUDGET_MAP_FILL,
	EF_BUDGET_CPU,
	EF_BUDGET_RSS, /* of the host only */
	EF_BUDGET_MAP_MEMORY,
	EF_BUDGET_EVENT_RATE,
	EF_BUDGET_DROPS,
	EF_N_BUDGETS,
};

/* By enum ef_budget; -1: no limit, or not measured. */
struct ef_amounts {
	int64_t of[EF_N_BUDGETS];
};

struct ef_policy_feature {
	char *name;
	struct ef_amounts limits;
};

/* What this host allows. */
struct ef_policy {
	struct ef_amounts host; /* defaults where the file says nothing */
	size_t n;
	struct ef_policy_feature *features;
	struct ef_sink_policy sink; /* acted on at start only */
};

enum ef_policy_result { EF_POLICY_READ, EF_POLICY_ABSENT, EF_POLICY_BAD };

/* "cpu_millicores": the key in a contract, in policy.json and in the status. */
const char *ef_budget_name(enum ef_budget budget);

/*
 * Read policy.json. ABSENT and BAD: *policy holds the defaults; BAD: error[0..size)
 * names file, field and remedy. The caller frees with ef_policy_free() in each case.
 */
enum ef_policy_result ef_policy_read(const char *path, struct ef_policy *policy, char *error,
				     size_t size);

bool ef_policy_equal(const struct ef_policy *a, const struct ef_policy *b);

void ef_policy_free(struct ef_policy *policy);

/* The smaller of the contract's limits and the policy's: a policy loosens nothing. */
struct ef_amounts ef_policy_limits(const struct ef_policy *policy, const char *feature,
				   const struct ef_amounts *contract);

#endif
