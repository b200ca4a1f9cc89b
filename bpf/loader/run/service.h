/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SERVICE_H
#define EF_SERVICE_H

#include "run/state.h"

/* Run until SIGTERM or SIGINT, or until it is refused. Returns an enum ef_exit. */
int ef_service_run(const struct ef_options *options);

#endif
