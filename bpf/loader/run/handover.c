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
#include "base/paths.h"
#include "base/util.h"
#include "base/version.h"
#include "feature/totals.h"
#include "run/apply.h"
#include "run/background.h"
#include "run/meet.h"
#include "run/seen.h"
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
#define TOTALS "handover.json"

static const struct ef_control_rules totals_rules = {.limit = 64 * 1024 * 1024,
						     .remedy = "counters begin again from 0"};

static struct ef_live *find(struct ef_service *service, const char *name) {
	for (size_t i = 0; name && i < service->n; i++)
		if (!strcmp(ef_live_name(&service->lives[i]), name))
			return &service->lives[i];
	return NULL;
}

static bool holds(const json_t *names, const char *name) {
	json_t *one;
	size_t i;

	json_array_foreach (names, i, one)
		if (json_string_value(one) && !strcmp(json_string_value(one), name))
			return true;
	return false;
}

static void set_gate(struct ef_live *live, enum ef_gate gate, int64_t at_ns) {
	int err = ef_live_set_gate(live, gate, at_ns);

	if (err)
		ef_err("feature %s: its gate cannot be set: %s", ef_live_name(live),
		       strerror(-err));
}

/* Over; the gates are the caller's. */
static void end(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;

	if (handover->fd > 0)
		close(handover->fd);
	if (handover->timer_fd > 0)
		close(handover->timer_fd);
	json_decref(handover->attached);
	*handover = (struct ef_handover){.parent_fd = handover->parent_fd};
}

/* ---- the next loader ---- */

bool ef_handover_is_silent(const struct ef_service *service) {
	enum ef_handover_phase phase = service->handover.phase;

	return phase == EF_HANDOVER_ATTACHING || phase == EF_HANDOVER_READY ||
	       phase == EF_HANDOVER_COUNTING;
}

bool ef_handover_holds_rings(const struct ef_service *service) {
	return ef_handover_is_silent(service) && !service->handover.rings_read;
}

bool ef_handover_must_wait(const struct ef_service *service, const struct ef_live *live) {
	return ef_handover_is_silent(service) && live->contract.third_party;
}

/* What systemd told the running loader, which is the one that it listens to. */
static void take_environment(const json_t *hello) {
	const char *socket_path = json_string_value(json_object_get(hello, "notify_socket"));
	json_int_t watchdog_us = json_integer_value(json_object_get(hello, "watchdog_us"));
	char text[32];

	unsetenv("WATCHDOG_PID");
	unsetenv("WATCHDOG_USEC");
	if (socket_path)
		setenv("NOTIFY_SOCKET", socket_path, 1);
	snprintf(text, sizeof(text), "%lld", (long long)watchdog_us);
	if (watchdog_us > 0)
		setenv("WATCHDOG_USEC", text, 1);
}

static void keep_moments(struct ef_handover *handover, const json_t *names, const int *fds,
			 size_t n) {
	for (size_t i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(names, i));

		if (!name) {
			close(fds[i]);
			continue;
		}
		snprintf(handover->moments[handover->n_moments].feature,
			 sizeof(handover->moments[0].feature), "%s", name);
		handover->moments[handover->n_moments++].fd = fds[i];
	}
}

int ef_handover_call(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;
	_cleanup_json_ json_t *message = NULL;
	int fds[EF_MEET_FDS];
	const json_t *hello;
	size_t n = 0;
	char why[400];
	int fd = ef_meet_call(service->options.state, why, sizeof(why));

	if (fd < 0) {
		ef_err("no handover: %s", why);
		return -1;
	}
	message = ef_meet_receive_fds(fd, EF_MEET_MS, fds, &n);
	hello = json_object_get(message, "hello");
	if (!hello) {
		ef_err("no handover: the running loader does not say what it has; restart it");
		close(fd);
		return -1;
	}
	handover->fd = fd;
	handover->phase = EF_HANDOVER_ATTACHING;
	handover->attached = json_incref(json_object_get(hello, "attached"));
	take_environment(hello);
	keep_moments(handover, json_object_get(hello, "moments"), fds, n);
	return 0;
}

void ef_handover_close_gates(struct ef_service *service) {
	struct ef_handover *handover = &service->handover;

	for (size_t i = 0; i < service->n; i++)
		service->lives[i].asked.gate = EF_GATE_CLOSED;
	for (size_t i = 0; i < handover->n_moments; i++) {
		struct ef_live *live = find(service, handover->moments[i].feature);

		if (live)
			live->asked.moment_fd = handover->moments[i].fd;
		else
			close(handover->moments[i].fd);
	}
	handover->n_moments = 0;
	if (ef_wake_on(service, handover->fd, EF_SOURCE_HANDOVER))
		ef_err("the running loader cannot be waited for: %s", strerror(errno));
}

/* True: the other one has it now. */
static bool send_message(struct ef_service *service, json_t *message) {
	int err = ef_meet_send(service->handover.fd, message, NULL, 0);

	json_decref(message);
	if (err)
		ef_err("handover: the other loader cannot be told: %s", strerror(-err));
	return !err;
}

/* Attached by the running one, and not here for want of room: alone there would be. NULL: none. */
static const char *crowded_out(const struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].decided.retry_ns &&
		    holds(service->handover.attached, ef_live_name(&service->lives[i])))
			return ef_live_name(&service->lives[i]);
	return NULL;
}

static void give_up(struct ef_service *service, const char *why) {
	ef_err("no handover: %s; the running loader goes on", why);
	service->handover.failed = true;
	service->stopping = true;
}

void ef_handover_ready(struct ef_service *service) {
	json_t *names = json_array();
	const char *crowded = crowded_out(service);
	char why[300];

	if (crowded) {
		snprintf(why, sizeof(why), "there is no room for two of feature %s", crowded);
		give_up(service, why);
		json_decref(names);
		return;
	}
	for (size_t i = 0; i < service->n; i++)
		if (ef_live_linked(&service->lives[i]) && ef_live_has_gate(&service->lives[i]))
			json_array_append_new(names, json_string(ef_live_name(&service->lives[i])));
	if (send_message(service, json_pack("{s:o}", "ready", names)))
		service->handover.phase = EF_HANDOVER_READY;
}

static void add_gap(struct ef_live *live, int64_t ns) {
	if (ns > 0 && live->asked.wanted)
		live->counted.unobserved.ns[EF_GAP_HANDOVER] += (uint64_t)ns;
}

/* Where this was too late, no one counted since the instant: that is measured. */
static void count_from(struct ef_service *service, const json_t *message) {
	int64_t instant = json_integer_value(json_object_get(message, "instant_ns"));
	int64_t missed = json_integer_value(json_object_get(message, "missed_ns"));
	const json_t *until = json_object_get(message, "until");

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		const char *name = ef_live_name(live);

		if (holds(until, name)) {
			set_gate(live, EF_GATE_FROM, instant);
			live->asked.gap_ns = ef_clock_ns(CLOCK_MONOTONIC) - instant;
			live->asked.gap_ns =
			    missed + (live->asked.gap_ns > 0 ? live->asked.gap_ns : 0);
		} else if (!holds(service->handover.attached, name)) {
			set_gate(live, EF_GATE_OPEN, 0); /* only this one has it */
		} else {
			live->asked.unshared = true;
		}
	}
	service->handover.phase = EF_HANDOVER_COUNTING;
}

static void take_totals(struct ef_service *service) {
	_cleanup_free_ char *path = ef_must(ef_path_join(service->options.state, TOTALS));
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_json_ json_t *doc = NULL;
	struct ef_control file = {0};
	const json_t *totals;
	const char *name;
	char why[400] = "";

	if (!ef_control_read(path, &totals_rules, &file, why, sizeof(why))) {
		data = file.data;
		doc = ef_json_parse(file.data, file.size, why, sizeof(why));
	}
	unlink(path);
	if (!doc)
		ef_warn("handover: what the loader before counted is not known: %s", why);
	json_object_foreach ((json_t *)json_object_get(doc, "features"), name, totals) {
		struct ef_live *live = find(service, name);

		if (live)
			ef_totals_take(live, totals);
	}
}

/* What the running loader had seen until it let go, and from then on what this one lacks. */
static void begin_to_note(struct ef_service *service, int64_t cut_ns) {
	for (size_t i = 0; i < service->n; i++) {
		struct ef_unobserved *unobserved = &service->lives[i].counted.unobserved;

		memset(unobserved, 0, sizeof(*unobserved));
		unobserved->at_ns = ef_clock_ns(CLOCK_BOOTTIME);
	}
	ef_seen_read(service, false);
	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		bool was = holds(service->handover.attached, ef_live_name(live));
		int64_t gap = live->asked.gap_ns;

		if (live->asked.unshared && cut_ns)
			gap = ef_clock_ns(CLOCK_BOOTTIME) - cut_ns;
		if (was)
			add_gap(live, gap);
		if (was && gap > 0)
			ef_warn("feature %s: handed over with a gap of %lld us", ef_live_name(live),
				(long long)gap / 1000);
		live->asked.gap_ns = 0;
		live->asked.unshared = false;
		live->asked.after_handover = was && !ef_live_linked(live);
		ef_live_note(live);
	}
}

static void take_over(struct ef_service *service, int64_t cut_ns) {
	for (size_t i = 0; i < service->n; i++)
		set_gate(&service->lives[i], EF_GATE_OPEN, 0);
	take_totals(service);
	begin_to_note(service, cut_ns);
	end(service);
	service->settled = false; /* says how things stand, and that it is ready */
	ef_background_tell(&service->handover.parent_fd, EF_EXIT_OK);
	ef_notice("took over from the loader before");
}

static void hear_as_next(struct ef_service *service, const json_t *message, bool gone) {
	const json_t *done = json_object_get(message, "done");

	if (json_object_get(message, "rings"))
		service->handover.rings_read = true;
	else if (done)
		take_over(service, json_integer_value(json_object_get(done, "boottime_ns")));
	else if (json_object_get(message, "instant_ns"))
		count_from(service, message);
	else if (gone && service->handover.phase == EF_HANDOVER_COUNTING)
		take_over(service, 0);
	else if (gone)
		give_up(service, "the running loader ended the conversation");
}

/* ---- the running loader ---- */

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
		end(service);
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
	end(service); /* one that came before, and is stuck */
	if (fd < 0)
		ef_warn("no handover: %s", why);
	else
		meet(service, fd);
}

static void set_gates(struct ef_service *service, const json_t *names, enum ef_gate gate,
		      int64_t at_ns) {
	for (size_t i = 0; i < service->n; i++)
		if (holds(names, ef_live_name(&service->lives[i])))
			set_gate(&service->lives[i], gate, at_ns);
}

/* Those of the next loader's that this one counts too, and by the same moments. */
static json_t *shared(struct ef_service *service, const json_t *ready) {
	json_t *names = json_array();

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];

		if (holds(ready, ef_live_name(live)) && ef_live_linked(live) &&
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
	send_message(service,
		     json_pack("{s:I, s:I, s:O}", "instant_ns", (json_int_t)handover->instant_ns,
			       "missed_ns", (json_int_t)missed, "until", handover->shared));
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
	send_message(service, json_pack("{s:b}", "rings", true));
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
		if (holds(handover->shared, ef_live_name(&service->lives[i])))
			add_gap(&service->lives[i], gap);
	set_gates(service, handover->shared, EF_GATE_OPEN, 0);
	json_decref(handover->shared);
	handover->shared = NULL;
	ef_warn("no handover: the next loader is gone; this one goes on%s",
		gap > 0 ? ", with a gap that is counted" : "");
	end(service);
}

static void hear_as_running(struct ef_service *service, const json_t *message, bool gone) {
	const json_t *ready = json_object_get(message, "ready");

	if (gone)
		go_on(service);
	else if (ready && service->handover.phase == EF_HANDOVER_MET)
		choose_instant(service, ready);
	else if (service->handover.phase == EF_HANDOVER_CLOSING)
		leave_when_it_is_time(service);
}

void ef_handover_event(struct ef_service *service) {
	_cleanup_json_ json_t *message = NULL;
	bool gone = false;

	if (service->handover.phase == EF_HANDOVER_NONE)
		return;
	if (service->handover.timer_fd > 0)
		ef_wake_clear(service->handover.timer_fd);
	message = ef_meet_receive(service->handover.fd, &gone);
	if (ef_handover_is_silent(service))
		hear_as_next(service, message, gone);
	else
		hear_as_running(service, message, gone);
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
	err = ef_write_atomic(service->options.state, TOTALS, text, size, 0600);
	if (err)
		ef_err("handover: cannot write %s/" TOTALS ": %s; the next loader's counters begin "
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
	send_message(service,
		     json_pack("{s:{s:I}}", "done", "boottime_ns", (json_int_t)handover->cut_ns));
	json_decref(handover->shared);
	handover->shared = NULL;
	end(service);
	ef_notice("handed over to the next loader");
}
