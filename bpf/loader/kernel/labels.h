/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LABELS_H
#define EF_LABELS_H

#include <stdio.h>

#include "kernel/format.h"

/*
 * The labels of a map's key, `a="1",b="x"`: each field of its struct but those
 * without a name and those whose name begins with "_" or "pad".
 */
void ef_labels_print(FILE *out, const struct ef_format *format, const void *key);

#endif
