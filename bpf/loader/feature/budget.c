/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/budget.h"

#include "base/json.h"

#define PPM 1000000

enum ef_budget ef_budget_exceeded(const struct ef_amounts *used, const struct ef_amounts *limits) {
	for (int i = 0; i < EF_N_BUDGETS; i++) {
		/* At its mark already, unless that is a full map. */
		bool full =
		    i == EF_BUDGET_MAP_FILL && used->of[i] == limits->of[i] && limits->of[i] < PPM;

		if (used->of[i] >= 0 && limits->of[i] >= 0 && (full || used->of[i] > limits->of[i]))
			return (enum ef_budget)i;
	}
	return EF_N_BUDGETS;
}

bool ef_budget_calm(const struct ef_amounts *used, const struct ef_amounts *limits,
		    enum ef_budget budget) {
	int64_t amount = used->of[budget], limit = limits->of[budget];

	return amount <= 0 || limit < 0 || amount < limit / 5 * 4;
}

json_t *ef_budget_json(const struct ef_amounts *used, const struct ef_amounts *limits,
		       bool of_host) {
	json_t *doc = json_object();

	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_budget_is_of((enum ef_budget)i, of_host))
			json_object_set_new(doc, ef_budget_name((enum ef_budget)i),
					    json_pack("{s:o, s:o}", "measured",
						      ef_json_measured(used->of[i]), "limit",
						      ef_json_measured(limits->of[i])));
	return doc;
}
