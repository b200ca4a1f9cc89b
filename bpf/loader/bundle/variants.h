/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_VARIANTS_H
#define EF_VARIANTS_H

#include "bundle/bundle.h"

/*
 * A contract that lists variants lists the manifest's, in its order, which is the
 * order of preference. What else a contract says is judged where it is used. -1:
 * EF_CONTRACT_MALFORMED.
 */
int ef_variants_check(const struct ef_bundle *bundle, struct ef_refusal *why);

#endif
