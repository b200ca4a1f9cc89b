/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_POLICY_H
#define EF_POLICY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budgets.h"
#include "control/sink_policy.h"

#define EF_POLICY_FILE "policy.json"

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
