/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_NOTIFY_H
#define EF_NOTIFY_H

#include <stdint.h>

/*
 * Tell systemd ("READY=1\nSTATUS=..."). Does nothing without NOTIFY_SOCKET.
 * 0 or -errno.
 */
int ef_notify(const char *state);

/* How long systemd waits for WATCHDOG=1, in microseconds; 0: it does not. */
uint64_t ef_notify_watchdog_us(void);

#endif
