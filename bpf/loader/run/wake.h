/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_WAKE_H
#define EF_RUN_WAKE_H

#include "run/state.h"

/* What wakes the loop: descriptors and timers in one epoll. */

#define EF_POLL_MS 100	  /* how long an event may wait in its ring */
#define EF_QUIET_POLLS 50 /* in a row that found nothing, before they are fewer */
#define EF_QUIET_POLL_MS 300

enum ef_source {
	EF_SOURCE_SIGNAL,
	EF_SOURCE_WATCH,
	EF_SOURCE_TICK,
	EF_SOURCE_POLL,
	EF_SOURCE_RING,
	EF_SOURCE_EXPIRY,
	EF_SOURCE_HANDOVER,
};

/* 0 or -errno. A ring tells of each wake-up once. */
int ef_wake_on(struct ef_service *service, int fd, enum ef_source source);

/* Every period_ns; 0: never. 0 or -errno. */
int ef_wake_timer(int fd, uint64_t period_ns);

/* Take note of a timer that went off. */
void ef_wake_clear(int fd);

/* How often the rings are looked at, by what there is to read and how quiet they are. */
void ef_wake_pace(struct ef_service *service);

/* Signals, timers and the epoll that holds them. 0 or -errno. */
int ef_wake_open(struct ef_service *service);

#endif
