/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/guard.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/orders.h"
#include "feature/live.h"

#define CHECK_MS 100

/* Is the loop at work on the same round as 100 ms ago? */
static bool stands_still(struct ef_service *service, unsigned *round) {
	unsigned now = __atomic_load_n(&service->round, __ATOMIC_RELAXED);
	bool same = now == *round;

	*round = now;
	return same && !__atomic_load_n(&service->waiting, __ATOMIC_RELAXED);
}

/* A lease or a contract that ran out, trust that is gone; read again, they may have changed
 * meanwhile. */
static void cut_expired(struct ef_service *service) {
	time_t seen = __atomic_load_n(&service->inputs.wall_s, __ATOMIC_RELAXED), now = time(NULL);
	struct ef_standing standing;
	struct ef_moment at = ef_moment_at(now > seen ? now : seen, service->inputs.floor_s);
	struct ef_lease lease;
	bool expired;

	ef_lease_read(service->inputs.lease_path, ef_bundle_digest(service->bundle),
		      service->boot_id, &lease);
	ef_standing_read(&service->trust, service->bundle, &at, &standing);
	expired =
	    ef_standing_is_lost(&standing) || ef_lease_expired(&lease, ef_clock_ns(CLOCK_BOOTTIME));
	for (size_t i = 0; i < service->n; i++)
		if (expired ||
		    ef_contract_expired_at(&service->lives[i].contract, now > seen ? now : seen))
			ef_live_cut(&service->lives[i]);
}

/* Only what does not change while the loop runs is read here, and links have their lock. */
static void cut_killed(struct ef_service *service) {
	struct ef_orders orders;

	ef_orders_read(service->options.etc, service->options.run, &service->kernel,
		       service->bundle, &orders);
	for (size_t i = 0; i < service->n; i++)
		if (ef_orders_feature(&orders, ef_live_name(&service->lives[i])) &&
		    ef_live_cut(&service->lives[i]))
			__atomic_add_fetch(&service->cut_by_guard, 1, __ATOMIC_RELAXED);
	ef_orders_free(&orders);
}

static void *watch(void *arg) {
	struct ef_service *service = arg;
	struct pollfd end = {.fd = service->guard_fd, .events = POLLIN};
	unsigned round = 0;

	while (poll(&end, 1, CHECK_MS) <= 0)
		if (stands_still(service, &round)) {
			cut_killed(service);
			cut_expired(service);
		}
	return NULL;
}

int ef_guard_start(struct ef_service *service) {
	int err;

	service->guard_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (service->guard_fd < 0)
		return -errno;
	err = pthread_create(&service->guard, NULL, watch, service);
	if (!err)
		return 0;
	close(service->guard_fd);
	service->guard_fd = -1;
	return -err;
}

void ef_guard_stop(struct ef_service *service) {
	if (service->guard_fd < 0)
		return;
	eventfd_write(service->guard_fd, 1);
	pthread_join(service->guard, NULL);
	close(service->guard_fd);
	service->guard_fd = -1;
}
