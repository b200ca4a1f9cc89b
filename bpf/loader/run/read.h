/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_READ_H
#define EF_RUN_READ_H

#include "run/state.h"

/* Read what is asked into the inputs, and say what is new of it. */

/* A fresh watch of the control files; without one the poll timer does it. */
void ef_read_renew_watch(struct ef_service *service);

/*
 * Read the orders and detach what they forbid. Nothing stands between an order and its
 * effect, not even a message. True when the orders changed.
 */
bool ef_read_orders_obey(struct ef_service *service);

/* What cannot be read leaves in force what was; true when a word of it is new. */
bool ef_read_desired(struct ef_service *service, bool at_start);
bool ef_read_policy(struct ef_service *service, bool at_start);

#endif
