/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PRESSURE_H
#define EF_PRESSURE_H

#include <stdbool.h>

#include "run/state.h"
#include "tell/snapshot.h"

/*
 * Take the account of an interval, from the snapshot that ended it. Its first
 * features are the service's, in their order.
 */
void ef_pressure_measure(struct ef_service *service, const struct ef_snapshot *snapshot);

/* Write what was measured last into a snapshot. */
void ef_pressure_tell(const struct ef_service *service, struct ef_snapshot *snapshot);

/*
 * At most one step, down or up, by what was measured last. True: a feature is
 * to be brought to where its fall says (see ef_decide()).
 */
bool ef_pressure_act(struct ef_service *service);

#endif
