/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/signal.h"

#include <stddef.h>
#include <string.h>

#include "base/util.h"

static const char *const names[] = {"drop", "sample", "aggregate"};

const char *ef_backpressure_name(enum ef_backpressure_kind kind) {
	return names[kind];
}

int ef_backpressure_kind_of(const char *name) {
	for (size_t i = 0; name && i < EF_ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return (int)i;
	return -1;
}
