/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/loop.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"
#include "kernel/hook.h"
#include "run/apply.h"
#include "run/expiry.h"
#include "run/handover.h"
#include "run/pressure.h"
#include "run/publish.h"
#include "run/read.h"
#include "run/report.h"
#include "run/wake.h"
#include "tell/notify.h"

#define UNSHIPPED_CALM_NS 600000000000LL
#define TRIM_TICKS 12	/* a minute at the usual interval */
#define READ_LIMIT 4096 /* records of one feature before the loop looks at its orders again */

/* Read orders and wishes and act on what takes features away; true on any change. */
bool ef_loop_rescan(struct ef_service *service, bool at_start) {
	bool changed = ef_read_orders_obey(service);

	ef_read_renew_watch(service);
	changed |= ef_read_orders_obey(service); /* an order may have come before the new watch */
	changed |= ef_expiry_obey(service);
	changed |= ef_read_policy(service, at_start);
	changed |= ef_read_desired(service, at_start);
	for (size_t i = 0; i < service->n; i++) {
		changed |= ef_apply(service, &service->lives[i]);
		changed |= ef_apply_sampling(service, &service->lives[i]);
	}
	ef_wake_pace(service);
	return changed;
}

static struct ef_live *next_due(struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].decided.due &&
		    !ef_handover_must_wait(service, &service->lives[i]))
			return &service->lives[i];
	return NULL;
}

static void say_compatibility(struct ef_service *service) {
	json_t *now = ef_publish_compatibility(service);
	_cleanup_free_ char *line = NULL;

	if (service->compatibility &&
	    json_equal(json_object_get(now, "features"),
		       json_object_get(service->compatibility, "features"))) {
		json_decref(now);
		return;
	}
	json_decref(service->compatibility);
	service->compatibility = now;
	line = ef_must(json_dumps(now, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII));
	ef_log_line(EF_LOG_INFO, "", line);
}

/* Everything that was due has been tried: say how things stand. */
static void settle(struct ef_service *service) {
	struct ef_reason why;
	char message[700];

	service->settled = true;
	ef_hook_forget();
	if (ef_handover_is_silent(service)) {
		if (service->handover.phase == EF_HANDOVER_ATTACHING)
			ef_handover_ready(service);
		return;
	}
	say_compatibility(service);
	ef_publish(service);
	snprintf(message, sizeof(message), "READY=1\nSTATUS=%s: %s",
		 ef_service_state(service, &why), ef_reason_text(&why));
	ef_notify(message);
}

/* Before its records are read: so full is the ring that the reader found. */
static void check_strain(struct ef_service *service, struct ef_live *live) {
	enum ef_backpressure_change change =
	    ef_live_check_backpressure(live, ef_clock_ns(CLOCK_MONOTONIC));

	if (change == EF_BACKPRESSURE_SAME)
		return;
	ef_apply_sampling(service, live);
	ef_report_backpressure(service, live, change);
}

/* What its records cost is the feature's. True: there may be more. */
static bool read_ring(struct ef_service *service, struct ef_live *live) {
	int64_t before;
	bool more;

	check_strain(service, live);
	if (!ef_feed_lag(live->attached.feed))
		return false; /* mostly so: not worth a read of the clock */
	service->any_read = true;
	before = ef_clock_ns(CLOCK_THREAD_CPUTIME_ID);
	more = ef_feed_read(live->attached.feed, READ_LIMIT);
	live->counted.consumer_ns += ef_clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
	return more;
}

static void read_rings(struct ef_service *service) {
	service->more = false;
	if (ef_handover_holds_rings(service))
		return; /* records wait until the loader that runs has written its own */
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].attached.feed)
			service->more |= read_ring(service, &service->lives[i]);
}

static void on_signal(struct ef_service *service) {
	struct signalfd_siginfo info;

	while (read(service->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			service->settled &= !ef_loop_rescan(service, false);
			ef_handover_answer(service);
		} else
			service->stopping = true;
	}
}

/* Each status is a thousand small pieces that come and go; what they leave behind is given back. */
static void trim_memory(struct ef_service *service) {
	if (++service->ticks % TRIM_TICKS == 0)
		malloc_trim(0);
}

/* Who was thinned is read as often as it is told. */
static void check_fairness(struct ef_service *service) {
	int64_t now_ns = ef_clock_ns(CLOCK_MONOTONIC);

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		enum ef_fairness_change change = ef_live_check_fairness(live, now_ns);

		if (change != EF_FAIRNESS_SAME)
			ef_report_fairness(service, live, change);
	}
}

/* Records that are gone before a shipper took them: logged once, until it was well for a while. */
static void check_shipping(struct ef_service *service) {
	int64_t now_ns = ef_clock_ns(CLOCK_MONOTONIC);
	struct ef_sink_state state;
	bool grew;

	ef_sink_tell(service->sink, &state);
	grew = state.unshipped_deleted_bytes > service->unshipped_deleted;
	if (grew && !service->unshipped_ns)
		ef_report_unshipped(service, &state);
	if (grew)
		service->unshipped_ns = now_ns;
	else if (now_ns - service->unshipped_ns > UNSHIPPED_CALM_NS)
		service->unshipped_ns = 0;
	service->unshipped_deleted = state.unshipped_deleted_bytes;
}

static void on_tick(struct ef_service *service) {
	ef_wake_clear(service->tick_fd);
	trim_memory(service);
	if (ef_loop_rescan(service, false))
		service->settled = false;
	check_fairness(service);
	check_shipping(service);
	ef_publish_interval(service);
	if (!ef_handover_is_silent(service) && ef_pressure_act(service) &&
	    ef_loop_rescan(service, false))
		service->settled = false;
	if (!ef_handover_is_silent(service))
		ef_notify("WATCHDOG=1");
}

/* Did no ring have anything since the poll before, and does every reader keep up? */
static bool is_quiet(struct ef_service *service) {
	bool quiet = !service->any_read;

	service->any_read = false;
	for (size_t i = 0; i < service->n; i++)
		quiet &= !service->lives[i].counted.backpressure.level;
	return quiet;
}

/* Rings that stay empty are looked at less often: most of what idling costs is waking up. */
static void pace_polls(struct ef_service *service) {
	bool was_slow = service->quiet_polls >= EF_QUIET_POLLS;

	if (!is_quiet(service))
		service->quiet_polls = 0;
	else if (!was_slow)
		service->quiet_polls++;
	if (was_slow != (service->quiet_polls >= EF_QUIET_POLLS))
		ef_wake_pace(service);
}

static void on_poll(struct ef_service *service) {
	ef_wake_clear(service->poll_fd);
	read_rings(service);
	ef_sink_flush(service->sink); /* nothing waits longer than to the next */
	pace_polls(service);
	if (service->watch_fd < 0 && ef_loop_rescan(service, false))
		service->settled = false;
}

/* Read or not, a timer that was set again is no longer ready; one of a clock that was set says
 * ECANCELED. */
static void on_expiry(struct ef_service *service) {
	if (ef_loop_rescan(service, false))
		service->settled = false;
}

/* The rings that are ready are read together, after all else. */
static void on_event(struct ef_service *service, enum ef_source source) {
	if (source == EF_SOURCE_SIGNAL)
		on_signal(service);
	else if (source == EF_SOURCE_WATCH && ef_loop_rescan(service, false))
		service->settled = false;
	else if (source == EF_SOURCE_TICK)
		on_tick(service);
	else if (source == EF_SOURCE_POLL)
		on_poll(service);
	else if (source == EF_SOURCE_HANDOVER)
		ef_handover_event(service);
	else if (source == EF_SOURCE_EXPIRY)
		on_expiry(service);
	else if (source == EF_SOURCE_RING)
		service->more = true;
}

/* Orders before all else that became ready in the same moment. */
static void dispatch(struct ef_service *service, const struct epoll_event *events, int n) {
	service->woken_ns = ef_clock_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < n; i++)
		if (events[i].data.u32 == EF_SOURCE_WATCH)
			on_event(service, EF_SOURCE_WATCH);
	for (int i = 0; i < n; i++)
		if (events[i].data.u32 != EF_SOURCE_WATCH)
			on_event(service, events[i].data.u32);
}

/* Returns the number of events, 0 when a signal came between; -errno. */
static int wait_for_events(struct ef_service *service, struct epoll_event *events, int room,
			   bool busy) {
	int n;

	__atomic_store_n(&service->waiting, !busy, __ATOMIC_RELAXED);
	n = epoll_wait(service->epoll_fd, events, room, busy ? 0 : -1);
	__atomic_store_n(&service->waiting, false, __ATOMIC_RELAXED);
	__atomic_add_fetch(&service->round, 1, __ATOMIC_RELAXED);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n;
}

int ef_loop(struct ef_service *service) {
	struct epoll_event events[16];

	while (!service->stopping) {
		struct ef_live *due = next_due(service);
		bool busy = due || !service->settled || service->more;
		int n = wait_for_events(service, events, EF_ARRAY_SIZE(events), busy);

		if (n < 0)
			return n;
		dispatch(service, events, n);
		if (service->stopping)
			break;
		due = next_due(service);
		if (due)
			ef_apply_attach(service, due);
		else if (!service->settled)
			settle(service);
		if (service->more)
			read_rings(service);
	}
	return 0;
}
