/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_BACKGROUND_H
#define EF_RUN_BACKGROUND_H

#include <stdbool.h>

#define EF_BACKGROUND_S 45 /* that the first process waits; systemd's own limit is longer */

/*
 * Go on in a process of its own, while the one that was started waits for its word: so that who
 * started it knows how a handover ended. True: this is the one that waited, *code is its exit
 * status. Before there are threads, or a filter of system calls.
 */
bool ef_background_start(int *parent_fd, int *code);

/* The word; a SIGPIPE where no one waits is ignored by then. *parent_fd of 0: it was given. */
void ef_background_tell(int *parent_fd, int code);

#endif
