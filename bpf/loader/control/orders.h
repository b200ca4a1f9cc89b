/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_ORDERS_H
#define EF_ORDERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "bundle/bundle.h"
#include "kernel/kernel.h"

/* One kill order that holds on this host. */
struct ef_order {
	char *scope; /* "global", "feature.NAME" or "family.FAMILY" */
	char *path;  /* the file that gave it */
};

/* What both kill.d folders say. */
struct ef_orders {
	size_t n;
	struct ef_order *orders;
	size_t n_unknown;
	char **unknown; /* paths of orders that were mistyped */
};

/*
 * Read the orders of ETC/kill.d and RUN/kill.d. A folder that is not there
 * holds none; one that cannot be read is an order "global". An order for a
 * feature that the bundle does not hold is unknown; one for another kernel
 * family is neither. bundle may be NULL: then every feature is known.
 */
void ef_orders_read(const char *etc, const char *run, const struct ef_kernel *kernel,
		    const struct ef_bundle *bundle, struct ef_orders *orders);

void ef_orders_free(struct ef_orders *orders);

/* The order that keeps everything off, or NULL. */
const struct ef_order *ef_orders_all(const struct ef_orders *orders);

/* The order that keeps this feature off, or NULL. */
const struct ef_order *ef_orders_feature(const struct ef_orders *orders, const char *feature);

const char *ef_order_scope(const struct ef_order *order);
const char *ef_order_path(const struct ef_order *order);

/* EF_KILLED_GLOBAL, EF_KILLED_FAMILY or EF_KILLED_FEATURE. */
const char *ef_order_code(const struct ef_order *order);

bool ef_orders_equal(const struct ef_orders *a, const struct ef_orders *b);

/* status.json's "kills" and "kill_unknown": new references. */
json_t *ef_orders_json(const struct ef_orders *orders);
json_t *ef_orders_unknown_json(const struct ef_orders *orders);

#endif
