/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_LOOP_H
#define EF_RUN_LOOP_H

#include "run/state.h"

/* The loop: wait, obey, read, attach one feature, publish. */

/* Read what is asked and bring every feature to where it should be; true on any change. */
bool ef_loop_rescan(struct ef_service *service, bool at_start);

/* Until the service is told to stop. 0 or -errno. */
int ef_loop(struct ef_service *service);

#endif
