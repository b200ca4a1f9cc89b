/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_METRICS_H
#define EF_METRICS_H

#include <stddef.h>

#include "tell/snapshot.h"

/* The metrics in Prometheus' text format: a malloc'ed buffer that the caller frees. */
char *ef_metrics_text(const struct ef_snapshot *snapshot, size_t *size);

#endif
