/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_OPEN_H
#define EF_RUN_OPEN_H

#include "run/state.h"

/* The bundle and its features, opened at start and closed at the end. */

/* Verify and open the bundle and its features. 0, or -1: the service's refusal says why. */
int ef_open_bundle(struct ef_service *service);

void ef_close_features(struct ef_service *service);

#endif
