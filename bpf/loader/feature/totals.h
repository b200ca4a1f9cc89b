/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_TOTALS_H
#define EF_TOTALS_H

#include <jansson.h>

#include "feature/feature.h"

/*
 * What a feature counted over a process's life, so that the next process goes on from there:
 * counters never go back in a handover.
 */

/* Of a feature that is detached, so that no map holds a part of it. A new reference. */
json_t *ef_totals_json(const struct ef_live *live);

/* Begin with such totals; what is not in the document is 0. */
void ef_totals_take(struct ef_live *live, const json_t *doc);

#endif
