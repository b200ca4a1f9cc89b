/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PUBLISH_H
#define EF_PUBLISH_H

#include "run/state.h"

/*
 * Take a snapshot and write the state folder's programs, metrics.prom and
 * status.json from it, in this order: who sees the last finds the others as new.
 * A failure is logged: the features go on.
 */
void ef_publish(struct ef_service *service);

/* The same at the end of an interval, whose account is taken. */
void ef_publish_interval(struct ef_service *service);

/* The compatibility event: a new reference. */
json_t *ef_publish_compatibility(struct ef_service *service);

/* "running", "idle", "killed" or "refused", and why. */
const char *ef_service_state(const struct ef_service *service, struct ef_reason *why);

#endif
