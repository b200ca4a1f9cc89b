/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_HANDOVER_H
#define EF_RUN_HANDOVER_H

#include "run/state.h"

/*
 * From one loader to the next without a moment in which no program counts, or two do:
 *
 *   next                                   running
 *   calls, and takes its moments  ──────▶  hello
 *   attaches all, closed
 *   ready: these are attached     ──────▶
 *                                 ◀──────  instant: these count until then
 *   counts from then on                    reads its rings
 *                                 ◀──────  rings: its records are written
 *   reads its rings                        waits for what has begun, such as a wait for a CPU
 *                                 ◀──────  done: detached, its totals are in handover.json
 *   publishes                              ends
 *
 * Whatever goes wrong before the instant leaves the running one as it was; after it the time that
 * no one counted is measured (EF_GAP_HANDOVER). What cannot be shared is attached by the
 * next one once the running one has let go.
 */

/* The next loader, before its system calls are filtered: 0, or -1 as logged. */
int ef_handover_call(struct ef_service *service);

/* Its features, opened and not yet attached: closed, and judging by the other's moments. */
void ef_handover_close_gates(struct ef_service *service);

/* Does it keep silent, as the running one speaks? */
bool ef_handover_is_silent(const struct ef_service *service);

/* Or does it leave its rings unread, as the running one has not written all of its own yet? */
bool ef_handover_holds_rings(const struct ef_service *service);

/* Is this feature to wait until the running loader has let go? */
bool ef_handover_must_wait(const struct ef_service *service, const struct ef_live *live);

/* Every feature of the next loader that could be attached is: say so. */
void ef_handover_ready(struct ef_service *service);

/* The running loader was called, maybe by the next one. */
void ef_handover_answer(struct ef_service *service);

/* The other one has said something, or is gone; or its time has come. */
void ef_handover_event(struct ef_service *service);

/* It has let go of everything: leave the totals to the next one, and name it to systemd. */
void ef_handover_leave(struct ef_service *service);

#endif
