/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/wake.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "tell/notify.h"

/*
 * A ring tells of each wake-up once: as long as it is not empty it would be
 * ready, and under load the loop would read it record by record.
 */
int ef_wake_on(struct ef_service *service, int fd, enum ef_source source) {
	struct epoll_event event = {.events = EPOLLIN | (source == EF_SOURCE_RING ? EPOLLET : 0),
				    .data.u32 = source};

	return epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

int ef_wake_timer(int fd, uint64_t period_ns) {
	struct itimerspec spec = {
	    .it_interval = {(time_t)(period_ns / 1000000000), (long)(period_ns % 1000000000)}};

	spec.it_value = spec.it_interval;
	return timerfd_settime(fd, 0, &spec, NULL) ? -errno : 0;
}

void ef_wake_clear(int fd) {
	uint64_t expirations;

	if (read(fd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
		ef_err("a timer cannot be read: %s", strerror(errno));
}

void ef_wake_pace(struct ef_service *service) {
	bool needed = service->watch_fd < 0;
	uint64_t period_ms = EF_POLL_MS;

	for (size_t i = 0; i < service->n; i++)
		needed |= service->lives[i].attached.feed != NULL;
	if (service->watch_fd >= 0 && service->quiet_polls >= EF_QUIET_POLLS)
		period_ms = EF_QUIET_POLL_MS;
	ef_wake_timer(service->poll_fd, needed ? period_ms * 1000000 : 0);
}

int ef_wake_open(struct ef_service *service) {
	sigset_t signals;
	uint64_t watchdog_ns = ef_notify_watchdog_us() * 1000;
	uint64_t tick_ns = service->options.interval * 1000000000ULL;

	if (watchdog_ns && tick_ns > watchdog_ns / 3)
		tick_ns = watchdog_ns / 3;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	service->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	service->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	service->poll_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	service->lease_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	service->midnight_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (service->epoll_fd < 0 || service->signal_fd < 0 || service->tick_fd < 0 ||
	    service->poll_fd < 0 || service->lease_fd < 0 || service->midnight_fd < 0)
		return -errno;
	if (ef_wake_timer(service->tick_fd, tick_ns) ||
	    ef_wake_on(service, service->signal_fd, EF_SOURCE_SIGNAL) ||
	    ef_wake_on(service, service->tick_fd, EF_SOURCE_TICK) ||
	    ef_wake_on(service, service->poll_fd, EF_SOURCE_POLL) ||
	    ef_wake_on(service, service->lease_fd, EF_SOURCE_EXPIRY) ||
	    ef_wake_on(service, service->midnight_fd, EF_SOURCE_EXPIRY))
		return -errno;
	return 0;
}
