/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/budgets.h"

#include <stddef.h>

#define PPM 1000000

static const struct ef_budget_kind kinds[EF_N_BUDGETS] = {
    [EF_BUDGET_MAP_FILL] = {.name = "map_fill_ppm",
			    .unit = "ppm",
			    .code = "EF_BUDGET_MAP_FILL",
			    .least = 1,
			    .most = PPM,
			    .of_host = 900000},
    [EF_BUDGET_CPU] = {.name = "cpu_millicores",
		       .unit = "millicores",
		       .code = "EF_BUDGET_CPU",
		       .host_code = "EF_BUDGET_HOST_CPU",
		       .least = 1,
		       .most = 1000000,
		       .of_host = 20},
    [EF_BUDGET_RSS] = {.name = "rss_bytes",
		       .unit = "bytes",
		       .host_code = "EF_BUDGET_HOST_MEMORY",
		       .least = 1,
		       .most = 1LL << 50,
		       .of_host = 64 << 20},
    [EF_BUDGET_MAP_MEMORY] = {.name = "map_memory_bytes",
			      .unit = "bytes",
			      .code = "EF_BUDGET_MAP_MEMORY",
			      .host_code = "EF_BUDGET_HOST_MAP_MEMORY",
			      .least = 1,
			      .most = 1LL << 50,
			      .of_host = 128 << 20},
    [EF_BUDGET_EVENT_RATE] = {.name = "event_rate_per_second",
			      .unit = "per_second",
			      .code = "EF_BUDGET_EVENT_RATE",
			      .host_code = "EF_BUDGET_HOST_EVENT_RATE",
			      .least = 1,
			      .most = 1000000000,
			      .of_host = 200000},
    [EF_BUDGET_DROPS] = {.name = "drop_ratio_ppm",
			 .unit = "ppm",
			 .code = "EF_BUDGET_DROPS",
			 .least = 0,
			 .most = PPM,
			 .of_host = 10000},
};

const struct ef_budget_kind *ef_budget_kind(enum ef_budget budget) {
	return &kinds[budget];
}

int64_t ef_amount(const struct ef_amounts *amounts, enum ef_budget budget) {
	return amounts->of[budget];
}

void ef_amount_set(struct ef_amounts *amounts, enum ef_budget budget, int64_t amount) {
	amounts->of[budget] = amount;
}

const char *ef_budget_unit(enum ef_budget budget) {
	return kinds[budget].unit;
}

const char *ef_budget_name(enum ef_budget budget) {
	return kinds[budget].name;
}

const char *ef_budget_code(bool of_host, enum ef_budget budget) {
	return of_host ? kinds[budget].host_code : kinds[budget].code;
}

bool ef_budget_is_of(enum ef_budget budget, bool of_host) {
	return ef_budget_code(of_host, budget) != NULL;
}
