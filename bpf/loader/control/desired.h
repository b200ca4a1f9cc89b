/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_DESIRED_H
#define EF_DESIRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ef_wish {
	char *feature;
	bool enabled;
	uint32_t sample_every; /* 0: as the contract says */
};

/* What should run. */
struct ef_desired {
	size_t n;
	struct ef_wish *wishes;
};

enum ef_desired_result { EF_DESIRED_READ, EF_DESIRED_ABSENT, EF_DESIRED_BAD };

/*
 * Read ETC/desired.json. digest is the running bundle's. On EF_DESIRED_BAD
 * error[0..size) names file, field and remedy, and *desired is empty.
 */
enum ef_desired_result ef_desired_read(const char *path, const char *digest,
				       struct ef_desired *desired, char *error, size_t size);

void ef_desired_free(struct ef_desired *desired);

/* The wish for a feature, or NULL. */
const struct ef_wish *ef_desired_find(const struct ef_desired *desired, const char *feature);

#endif
