/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BUDGETS_H
#define EF_BUDGETS_H

#include <stdbool.h>
#include <stdint.h>

/* What is held to a limit. In the sequence in which an excess is looked for. */
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

int64_t ef_amount(const struct ef_amounts *amounts, enum ef_budget budget);

void ef_amount_set(struct ef_amounts *amounts, enum ef_budget budget, int64_t amount);

/* All that is known of a budget as such. */
struct ef_budget_kind {
	const char *name;      /* the key in a contract, in policy.json and in the status */
	const char *unit;      /* of its amounts */
	const char *code;      /* the reason code of a feature's excess; NULL: none is held to it */
	const char *host_code; /* the same of the host */
	int64_t least, most;   /* what policy.json may say */
	int64_t of_host;       /* the host's limit where policy.json says none */
};

const struct ef_budget_kind *ef_budget_kind(enum ef_budget budget);
const char *ef_budget_unit(enum ef_budget budget);
const char *ef_budget_name(enum ef_budget budget);

/* Resident memory is the host's alone; drops and fill are held feature by feature. */
bool ef_budget_is_of(enum ef_budget budget, bool of_host);

/* The reason code of an excess. */
const char *ef_budget_code(bool of_host, enum ef_budget budget);

#endif
