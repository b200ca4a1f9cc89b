/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_EXPIRY_H
#define EF_EXPIRY_H

#include "run/state.h"

/*
 * What may no longer run: the lease is over, a contract's day has come, the trust
 * is withdrawn. Detaches that first, then says it. True when one of them says
 * something else than before; the caller decides again about every feature.
 */
bool ef_expiry_obey(struct ef_service *service);

#endif
