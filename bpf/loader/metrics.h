/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_METRICS_H
#define EF_METRICS_H

#include <stddef.h>

#include "service.h"

/*
 * The metrics in Prometheus' text format, from the status document that was
 * made at the same moment. A malloc'ed buffer that the caller frees.
 */
char *ef_metrics_text(const struct ef_service *service, const json_t *status, size_t *size);

#endif
