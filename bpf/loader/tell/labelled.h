/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LABELLED_H
#define EF_LABELLED_H

#include <stdio.h>

#include "tell/snapshot.h"

/*
 * The samples of metrics that have labels of their own, for the table in metrics.c:
 * each writes all samples of one metric, without its head.
 */
void ef_put_build(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_kernel(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_profiles(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_unobserved(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_states(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_backpressure(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_sources(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_kills(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_uses(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_host_uses(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_steps(FILE *out, const struct ef_snapshot *snapshot);
void ef_put_falls(FILE *out, const struct ef_snapshot *snapshot);

#endif
