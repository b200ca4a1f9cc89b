/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SIGNALS_H
#define EF_SIGNALS_H

#include <stdio.h>

#include "tell/snapshot.h"

/* The histograms and counters that the features' contracts name, with their heads. */
void ef_signals_put(FILE *out, const struct ef_snapshot *snapshot);

#endif
