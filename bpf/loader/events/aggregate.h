/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_AGGREGATE_H
#define EF_AGGREGATE_H

#include <jansson.h>
#include <stdint.h>

#include "base/sum.h"
#include "kernel/format.h"

#define EF_AGGREGATE_GROUPS 256	   /* more than these are told together */
#define EF_AGGREGATE_KEY_BYTES 256 /* of all fields of a key */

/* Records counted by some of their fields, in memory that does not grow. */
struct ef_aggregate;

/*
 * Groups by these fields (names) of a record. NULL with errno: ENOKEY: the
 * record has no such field; E2BIG: together they are longer than
 * EF_AGGREGATE_KEY_BYTES.
 */
struct ef_aggregate *ef_aggregate_new(const struct ef_format *format, const json_t *by);
void ef_aggregate_free(struct ef_aggregate *aggregate);

/* Count one record of that weight. */
void ef_aggregate_add(struct ef_aggregate *aggregate, const void *record, uint64_t weight);

/* A group's count; key and its format, NULL for what found no group. */
typedef void (*ef_aggregate_fn)(void *ctx, const struct ef_format *format, const void *key,
				const struct ef_sum *count);

/* Tell each group once, and begin again. */
void ef_aggregate_tell(struct ef_aggregate *aggregate, ef_aggregate_fn tell, void *ctx);

#endif
