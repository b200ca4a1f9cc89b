/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/expiry.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "run/report.h"

/* At the lease's end, or never. */
static void set_lease_timer(struct ef_service *service) {
	const struct ef_lease *lease = &service->inputs.lease;
	struct itimerspec spec = {0};

	if (lease->there && !service->inputs.lease_expired)
		spec.it_value = (struct timespec){(time_t)(lease->expires_ns / 1000000000),
						  (long)(lease->expires_ns % 1000000000)};
	if (timerfd_settime(service->lease_fd, TFD_TIMER_ABSTIME, &spec, NULL))
		ef_err("the lease's timer cannot be set: %s", strerror(errno));
}

/* At the next midnight of UTC, or as soon as the clock is set. */
static void set_midnight_timer(struct ef_service *service) {
	struct itimerspec spec = {.it_value.tv_sec = (time(NULL) / 86400 + 1) * 86400};

	if (timerfd_settime(service->midnight_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
			    &spec, NULL))
		ef_err("the timer of contracts' ends cannot be set: %s", strerror(errno));
}

/* Detach what lease, trust or contract allow no more, before anything else is done about it. */
static void cut_expired(struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++)
		if (service->inputs.lease_expired ||
		    ef_standing_is_lost(&service->inputs.standing) ||
		    ef_contract_expired_at(&service->lives[i].contract, service->inputs.wall_s))
			ef_live_cut(&service->lives[i]);
}

static void say_lease(struct ef_service *service, const struct ef_lease *before, bool expired) {
	struct ef_reason why;

	if (!ef_lease_equal(&service->inputs.lease, before))
		ef_report_lease(service, before);
	if (service->inputs.lease_expired && !expired) {
		ef_lease_reason(&service->inputs.lease, &why);
		ef_warn("%s (%s)", ef_reason_text(&why), ef_reason_code(&why));
		ef_report_expiry(service);
	}
}

static void say_standing(struct ef_service *service, const struct ef_standing *before) {
	struct ef_reason why;

	if (ef_standing_equal(&service->inputs.standing, before))
		return;
	if (ef_standing_is_lost(&service->inputs.standing)) {
		ef_standing_reason(&service->inputs.standing, &why);
		ef_err("%s (%s)", ef_reason_text(&why), ef_reason_code(&why));
	} else {
		ef_notice("this host trusts the release that runs again");
	}
	ef_report_standing(service);
}

/* Said when it begins and when it ends. */
static void say_clock(struct ef_service *service) {
	bool known = ef_inputs_moment(&service->inputs).known;

	if (known == !service->clock_unknown)
		return;
	service->clock_unknown = !known;
	if (known)
		ef_notice("the clock is plausible again: times are judged");
	else
		ef_warn("the clock stands at %lld s, before %lld s, which this host has seen or "
			"its release was made at; nothing that is limited in time runs until it "
			"is set (EF_CLOCK_UNKNOWN)",
			(long long)service->inputs.wall_s, (long long)service->inputs.floor_s);
}

/* Lease, trust and the calendar. True when one of them says something else than before. */
bool ef_expiry_obey(struct ef_service *service) {
	struct ef_standing stood = service->inputs.standing;
	struct ef_lease before = service->inputs.lease;
	struct ef_moment at;
	bool expired = service->inputs.lease_expired;
	time_t now = time(NULL);

	if (now > service->inputs.wall_s)
		__atomic_store_n(&service->inputs.wall_s, now, __ATOMIC_RELAXED);
	ef_lease_read(service->inputs.lease_path, ef_bundle_digest(service->bundle),
		      service->boot_id, &service->inputs.lease);
	service->inputs.lease_expired =
	    ef_lease_expired(&service->inputs.lease, ef_clock_ns(CLOCK_BOOTTIME));
	at = ef_inputs_moment(&service->inputs);
	ef_standing_read(&service->trust, service->bundle, &at, &service->inputs.standing);
	cut_expired(service);
	set_lease_timer(service);
	set_midnight_timer(service);
	say_lease(service, &before, expired);
	say_standing(service, &stood);
	say_clock(service);
	return !ef_standing_equal(&service->inputs.standing, &stood) ||
	       expired != service->inputs.lease_expired ||
	       !ef_lease_equal(&service->inputs.lease, &before);
}
