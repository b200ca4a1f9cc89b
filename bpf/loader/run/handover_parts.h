/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_HANDOVER_PARTS_H
#define EF_HANDOVER_PARTS_H

#include "run/state.h"

/* What the files behind handover.h ask of each other; no other file includes this. */

#define EF_HANDOVER_TOTALS "handover.json" /* in the state folder, from one loader to the next */

/* handover.c: what both do. */
struct ef_live *ef_handover_find(struct ef_service *service, const char *name); /* or NULL */
bool ef_handover_names(const json_t *names, const char *name);
void ef_handover_set_gate(struct ef_live *live, enum ef_gate gate, int64_t at_ns);
void ef_handover_add_gap(struct ef_live *live, int64_t ns);

/* True: the other one has it now. Takes the message over. */
bool ef_handover_send(struct ef_service *service, json_t *message);

/* It is over; the gates are the caller's. */
void ef_handover_end(struct ef_service *service);

/* next.c, leave.c: the other one's message, or NULL; gone: it is. */
void ef_handover_hear_as_next(struct ef_service *service, const json_t *message, bool gone);
void ef_handover_hear_as_running(struct ef_service *service, const json_t *message, bool gone);

#endif
