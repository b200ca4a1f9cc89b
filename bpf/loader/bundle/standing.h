/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_STANDING_H
#define EF_STANDING_H

#include <jansson.h>
#include <stdbool.h>

#include "base/moment.h"
#include "base/reason.h"
#include "base/refusal.h"
#include "bundle/bundle.h"
#include "bundle/trust.h"

/* Does this host still trust what runs? All zero: it does. */
struct ef_standing {
	bool lost;
	struct ef_refusal why; /* lost: as at a start */
};

/*
 * Judge the signer of a verified bundle by the trust files as they are now. What a
 * start would refuse does not run on: a signer who is revoked, no longer named or
 * out of his time, files that are empty, missing or not to be read. From any
 * thread; says nothing.
 */
void ef_standing_read(const struct ef_trust_paths *paths, const struct ef_bundle *bundle,
		      const struct ef_moment *at, struct ef_standing *standing);

bool ef_standing_is_lost(const struct ef_standing *standing);
bool ef_standing_equal(const struct ef_standing *a, const struct ef_standing *b);

/* EF_TRUST_WITHDRAWN or EF_CLOCK_UNKNOWN and the sentence, for one that is lost. */
void ef_standing_reason(const struct ef_standing *standing, struct ef_reason *why);

/* status.json's "trust": a new reference. */
json_t *ef_standing_json(const struct ef_standing *standing);

#endif
