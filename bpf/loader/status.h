/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_STATUS_H
#define EF_STATUS_H

#include "service.h"

/* "running", "idle", "killed" or "refused", and why. */
const char *ef_status_state(const struct ef_service *service, struct ef_reason *why);

/*
 * Write the state folder's programs, status.json and metrics.prom, in this
 * order. A failure is logged: the features go on.
 */
void ef_status_publish(struct ef_service *service);

/* The same at the end of an interval, whose account it takes. */
void ef_status_publish_interval(struct ef_service *service);

/* The compatibility event: a new reference. */
json_t *ef_status_compatibility(const struct ef_service *service);

#endif
