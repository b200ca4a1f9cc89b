/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_SEEN_H
#define EF_RUN_SEEN_H

#include "run/state.h"

/*
 * When this loader was there last, for the next one: LOG/unobserved.json. It is written with
 * every status, so that of a crash the gap is known to an interval, and of a stop exactly.
 */

/*
 * After the wishes were read first: take what the features lacked in earlier lives, and the
 * gap since the last. had_gap: false after a handover, which has none.
 */
void ef_seen_read(struct ef_service *service, bool had_gap);

void ef_seen_write(struct ef_service *service);

#endif
