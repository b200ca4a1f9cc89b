/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PRESSURE_H
#define EF_PRESSURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

struct ef_service;
struct ef_live;

/* Take the account of an interval, from the status that ended it. */
void ef_pressure_measure(struct ef_service *service, const json_t *status);

/*
 * At most one step, down or up, by what was measured last. True: a feature is
 * to be brought to where its fall says (see decide()).
 */
bool ef_pressure_act(struct ef_service *service);

/* The reason of a feature's fall, for a state or a record. */
struct ef_reason;
void ef_pressure_reason(const struct ef_live *live, struct ef_reason *why);

/* Status fields: new references. */
json_t *ef_pressure_degraded_json(const struct ef_live *live);
json_t *ef_pressure_budget_json(const struct ef_service *service);

/* The metrics of budgets and steps. */
void ef_pressure_metrics(FILE *out, const struct ef_service *service);

#endif
