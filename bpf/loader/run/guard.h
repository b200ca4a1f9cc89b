/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_GUARD_H
#define EF_GUARD_H

#include "run/state.h"

/*
 * A thread that obeys kill orders and the expiry of lease, contracts and trust while
 * the loop is held up: by a disk that does not answer, a frozen file system, a
 * verifier at work. It checks every 100 ms, acts only when the loop stood still
 * meanwhile, detaches and says nothing; the loop tells when it is back. 0 or
 * -errno.
 */
int ef_guard_start(struct ef_service *service);

/* Ends it; nothing to do when it was not started. */
void ef_guard_stop(struct ef_service *service);

#endif
