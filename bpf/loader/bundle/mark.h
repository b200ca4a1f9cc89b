/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_MARK_H
#define EF_MARK_H

#include <stdint.h>

#include "base/refusal.h"
#include "bundle/bundle.h"

#define EF_MARK_FILE "mark.json" /* below the etc folder */
#define EF_MARK_BELOW 8

/* The highest sequence that ran on this host. All zero: nothing is known of one. */
struct ef_mark {
	int64_t sequence;
	char digest[65];	       /* of the bundle that reached it */
	char below[EF_MARK_BELOW][65]; /* bundles that may run all the same: the way back */
	size_t n_below;
	int64_t seen;	      /* Unix seconds, the latest that a deployment saw */
	int64_t lowered_from; /* sequence that allow_downgrade lowered it from last; 0: none did */
};

/*
 * Read ETC/mark.json, which deployments write (plugins/module_utils/release/mark.py). No file:
 * *mark is zero. -1: EF_MARK_MALFORMED, for what is there and cannot be used.
 */
int ef_mark_read(const char *path, struct ef_mark *mark, struct ef_refusal *why);

/* "; mark 7", for the audit record of a start; "" where there is none. */
void ef_mark_sentence(const struct ef_mark *mark, char *text, size_t size);

/* May this bundle run here? -1: EF_SEQUENCE_DOWNGRADE. */
int ef_mark_check(const struct ef_mark *mark, const struct ef_bundle *bundle,
		  struct ef_refusal *why);

#endif
