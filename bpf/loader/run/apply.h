/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_APPLY_H
#define EF_RUN_APPLY_H

#include "run/state.h"

/* The one place that brings a feature to where it should be. */

/* Bring a feature to where ef_decide() says that it should be; true when that is a change. */
bool ef_apply(struct ef_service *service, struct ef_live *live);

/* Detach it, where it is attached, and leave it in a state; true when that is a change. */
bool ef_apply_off(struct ef_service *service, struct ef_live *live, enum ef_state state,
		  const struct ef_reason *why);

/* Set sampling, or the rate of a fair feature, by what is asked, what its budgets took and how far
 * its reader is behind; true when the sampling changed. */
bool ef_apply_sampling(struct ef_service *service, struct ef_live *live);

/* Attach a feature that is due, or say why it is disabled. */
void ef_apply_attach(struct ef_service *service, struct ef_live *live);

#endif
