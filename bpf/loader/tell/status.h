/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_STATUS_H
#define EF_STATUS_H

#include "tell/snapshot.h"

/* status.json (docs/formats/status.md): a new reference. */
json_t *ef_status_json(const struct ef_snapshot *snapshot);

/* The file `programs`, a line for each program that is loaded: malloc'ed, the caller's to free. */
char *ef_status_programs(const struct ef_snapshot *snapshot, size_t *size);

/* The compatibility event: a new reference. */
json_t *ef_status_compatibility(const struct ef_snapshot *snapshot);

#endif
