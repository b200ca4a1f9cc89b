/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names of files in kill.d, one a line. The loader's source is part of this
 * one: a folder with each input's files would cost more than what is tried.
 */
#include "control/orders.c"

#include "fuzz.h"

static const struct ef_kernel kernel = {.family = "6.1", .distro_family = "debian-6.1"};

/* As take_entry() sees a folder's entries. */
static void take_names(char *text, const struct ef_bundle *bundle) {
	struct ef_orders orders = {0};
	char *rest = text, *name;

	while ((name = strsep(&rest, "\n")))
		if (*name)
			take_entry(&orders, "kill.d", name, &kernel, bundle);
	ef_orders_all(&orders);
	ef_orders_feature(&orders, "runqlat");
	for (size_t i = 0; i < orders.n; i++)
		ef_order_code(&orders.orders[i]);
	json_decref(ef_orders_json(&orders));
	json_decref(ef_orders_unknown_json(&orders));
	ef_orders_free(&orders);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct ef_feature feature = {.name = (char *)"runqlat"};
	const struct ef_bundle bundle = {.n_features = 1, .features = &feature};
	_cleanup_free_ char *text = fuzz_text(data, size), *again = fuzz_text(data, size);

	take_names(text, &bundle);
	take_names(again, NULL);
	return 0;
}
