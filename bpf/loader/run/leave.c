/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "feature/totals.h"
#include "run/handover_parts.h"
#include "run/meet.h"
#include "run/wake.h"
#include "tell/notify.h"

#define MS 1000000LL
/* Until the instant, when it is chosen; doubled where that was too late. */
#define AHEAD_NS (100 * MS)
#define AHEAD_MOST_NS (1600 * MS)
#define BEHIND_NS (20 * MS)  /* after it, before the rings are read for the last time */
#define DRAIN_NS (2000 * MS) /* for what has begun and not ended */
#define TICK_NS (20 * MS)
#define READ_RECORDS 1024

static json_t *hello_json(struct ef_service *service, int *fds, size_t *n) {
	json_t *moments = json_array(), *attached = json_array();
	const char *socket_path = getenv("NOTIFY_SOCKET");

	*n = 0;
	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		json_t *name = json_string(ef_live_name(live));

		if (ef_live_linked(live))
			json_array_append(attached, name);
		if (ef_live_linked(live) && ef_live_has_gate(live) && *n < EF_MEET_FDS) {
			fds[(*n)++] = ef_live_moment_fd(live);
			json_array_append(moments, name);
		}
		json_decref(name);
	}
	return json_pack("{s:{s:i, s:s?, s:I, s:o, s:o}}", "hello", "pid", (int)getpid(),
			 "notify_socket", socket_path, "watchdog_us",
			 (json_int_t)ef_notify_watchdog_us(), "moments", moments, "attached",
			 attached);
}

static void meet(struct ef_service *service, int fd) {
	struct ef_handover *handover = &service->handover;
	int fds[EF_MEET_FDS];
	size_t n;
	_cleanup_json_ json_t *hello = hello_json(service, fds, &n);

	handover->fd = fd;
	handover->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (handover->timer_fd < 0 || ef_wake_on(service, handover->timer_fd, EF_SOURCE_HANDOVER) ||
	    ef_wake_on(service, fd, EF_SOURCE_HANDOVER) || ef_meet_send(fd, hello, fds, n)) {
		ef_err("no handover: the next loader cannot be answered: %s", strerror(errno));
		ef_handover_end(service);
		return;
	}
	handover->phase = EF_HANDOVER_MET;
	ef_notice("the next loader attaches beside this one");
}

void ef_handover_answer(struct ef_service *service) {
	char why[400];
	int fd;

	if (service->handover.phase == EF_HANDOVER_CLOSING ||
	    service->handover.phase == EF_HANDOVER_LEAVING || ef_handover_is_silent(service))
		return;
	fd = ef_meet_answer(service->options.state, why, sizeof(why));
	if (fd == -ENOENT)
		return;
	ef_handover_end(service); /* one that came before, and is stuck */
	if (fd < 0)
		ef_warn("no handover: %s", why);
	else
		meet(service, fd);
}

static void set_gates(struct ef_service *service, const json_t *names, enum ef_gate gate,
		      int64_t at_ns) {
	for (size_t i = 0; i < service->n; i++)
		if (ef_handover_names(names, ef_live_name(&service->lives[i])))
			ef_handover_set_gate(&service->lives[i], gate, at_ns);
}

/* Those of the next loader's that this one counts too, and by the same moments. */
static json_t *shared(struct ef_service *service, const json_t *ready) {
	json_t *names = json_array();

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];

		if (ef_handover_names(ready, ef_live_name(live)) && ef_live_linked(live) &&
		    ef_live_has_gate(live))
			json_array_append_new(names, json_string(ef_live_name(live)));
	}
	return names;
}

/*
 * The instant lies ahead, so that both have set their gates before it. Where that took longer, no
 * one counted since it: then it was that long, and the next one tells.
 */
static void choose_instant(struct ef_service *service, const json_t *ready) {
	struct ef_handover *handover = &service->handover;
	int64_t ahead = AHEAD_NS, missed = 0, late;

	handover->shared = shared(service, ready);
	for (;;) {
		handover->instant_ns = ef_clock_ns(CLOCK_MONOTONIC) + ahead;
		set_gates(service, handover->shared, EF_GATE_UNTIL, handover->instant_ns);
		late = ef_clock_ns(CLOCK_MONOTONIC) - handover->instant_ns;
		if (late < 0 || ahead >= AHEAD_MOST_NS)
			break;
		set_gates(service, handover->shared, EF_GATE_OPEN, 0);
		missed += ef_clock_ns(CLOCK_MONOTONIC) - handover->instant_ns;
		ahead *= 2;
	}
	handover->phase = EF_HANDOVER_CLOSING;
	ef_wake_timer(handover->timer_fd, TICK_NS);
	ef_handover_send(service, json_pack("{s:I, s:I, s:O}", "instant_ns",
					    (json_int_t)handover->instant_ns, "missed_ns",
					    (json_int_t)missed, "until", handover->shared));
}

/* What began before the instant and has not ended is this loader's. */
static bool has_begun(struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++) {
		struct ef_counters counters;

		if (service->lives[i].attached.feed || !ef_live_linked(&service->lives[i]))
			continue;
		ef_live_counters(&service->lives[i], &counters);
		if (ef_counters_in_flight(&counters))
			return true;
	}
	return false;
}

/* Records of one file are written by one loader at a time; nothing comes into these rings any more.
 */
static void read_rings(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;

	if (handover->rings_read)
		return;
	handover->rings_read = true;
	for (size_t i = 0; i < service->n; i++) {
		struct ef_feed *feed = service->lives[i].attached.feed;

		while (feed && ef_feed_read(feed, READ_RECORDS))
			;
		if (feed)
			ef_feed_tell(feed);
	}
	ef_sink_settle(service->sink);
	ef_handover_send(service, json_pack("{s:b}", "rings", true));
}

static void leave_when_it_is_time(struct ef_service *service) {
	int64_t past = ef_clock_ns(CLOCK_MONOTONIC) - service->handover.instant_ns;

	if (past < BEHIND_NS)
		return;
	read_rings(service);
	if (past < DRAIN_NS && has_begun(service))
		return;
	service->handover.phase = EF_HANDOVER_LEAVING;
	service->stopping = true;
}

/* The next loader is gone: this one goes on, and what no one counted is measured. */
static void go_on(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;
	int64_t gap =
	    handover->instant_ns ? ef_clock_ns(CLOCK_MONOTONIC) - handover->instant_ns : 0;

	for (size_t i = 0; i < service->n; i++)
		if (ef_handover_names(handover->shared, ef_live_name(&service->lives[i])))
			ef_handover_add_gap(&service->lives[i], gap);
	set_gates(service, handover->shared, EF_GATE_OPEN, 0);
	json_decref(handover->shared);
	handover->shared = NULL;
	ef_warn("no handover: the next loader is gone; this one goes on%s",
		gap > 0 ? ", with a gap that is counted" : "");
	ef_handover_end(service);
}

void ef_handover_hear_as_running(struct ef_service *service, const json_t *message, bool gone) {
	const json_t *ready = json_object_get(message, "ready");

	if (gone)
		go_on(service);
	else if (ready && service->handover.phase == EF_HANDOVER_MET)
		choose_instant(service, ready);
	else if (service->handover.phase == EF_HANDOVER_CLOSING)
		leave_when_it_is_time(service);
}

static void write_totals(const struct ef_service *service) {
	json_t *features = json_object();
	_cleanup_json_ json_t *doc =
	    json_pack("{s:s, s:o}", "schema", "ebpf.fleet/handover/v1", "features", features);
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int err;

	for (size_t i = 0; i < service->n; i++)
		json_object_set_new(features, ef_live_name(&service->lives[i]),
				    ef_totals_json(&service->lives[i]));
	text = ef_must(ef_json_canonical(doc, &size));
	err = ef_write_atomic(service->options.state, EF_HANDOVER_TOTALS, text, size, 0600);
	if (err)
		ef_err("handover: cannot write %s/" EF_HANDOVER_TOTALS
		       ": %s; the next loader's counters begin "
		       "again from 0",
		       service->options.state, strerror(-err));
}

void ef_handover_leave(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;
	char state[64];

	write_totals(service);
	/* Only the main process is heard, and that is this one until now. */
	snprintf(state, sizeof(state), "MAINPID=%d", (int)ef_meet_peer(handover->fd));
	ef_notify(state);
	ef_handover_send(
	    service, json_pack("{s:{s:I}}", "done", "boottime_ns", (json_int_t)handover->cut_ns));
	json_decref(handover->shared);
	handover->shared = NULL;
	ef_handover_end(service);
	ef_notice("handed over to the next loader");
}
