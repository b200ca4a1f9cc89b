/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include "run/background.h"
#include "run/handover_parts.h"
#include "run/meet.h"
#include "run/seen.h"
#include "run/wake.h"

static const struct ef_control_rules totals_rules = {.limit = 64 * 1024 * 1024,
						     .remedy = "counters begin again from 0"};

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
		struct ef_live *live = ef_handover_find(service, handover->moments[i].feature);

		if (live)
			live->asked.moment_fd = handover->moments[i].fd;
		else
			close(handover->moments[i].fd);
	}
	handover->n_moments = 0;
	if (ef_wake_on(service, handover->fd, EF_SOURCE_HANDOVER))
		ef_err("the running loader cannot be waited for: %s", strerror(errno));
}

/* Attached by the running one, and not here for want of room: alone there would be. NULL: none. */
static const char *crowded_out(const struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].decided.retry_ns &&
		    ef_handover_names(service->handover.attached, ef_live_name(&service->lives[i])))
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
	if (ef_handover_send(service, json_pack("{s:o}", "ready", names)))
		service->handover.phase = EF_HANDOVER_READY;
}

/* Where this was too late, no one counted since the instant: that is measured. */
static void count_from(struct ef_service *service, const json_t *message) {
	int64_t instant = json_integer_value(json_object_get(message, "instant_ns"));
	int64_t missed = json_integer_value(json_object_get(message, "missed_ns"));
	const json_t *until = json_object_get(message, "until");

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		const char *name = ef_live_name(live);

		if (ef_handover_names(until, name)) {
			ef_handover_set_gate(live, EF_GATE_FROM, instant);
			live->asked.gap_ns = ef_clock_ns(CLOCK_MONOTONIC) - instant;
			live->asked.gap_ns =
			    missed + (live->asked.gap_ns > 0 ? live->asked.gap_ns : 0);
		} else if (!ef_handover_names(service->handover.attached, name)) {
			ef_handover_set_gate(live, EF_GATE_OPEN, 0); /* only this one has it */
		} else {
			live->asked.unshared = true;
		}
	}
	service->handover.phase = EF_HANDOVER_COUNTING;
}

static void take_totals(struct ef_service *service) {
	_cleanup_free_ char *path =
	    ef_must(ef_path_join(service->options.state, EF_HANDOVER_TOTALS));
	const json_t *totals;
	const char *name;
	char why[400] = "";
	int err;
	_cleanup_json_ json_t *doc = ef_json_read(path, &totals_rules, &err, why, sizeof(why));

	unlink(path);
	if (!doc)
		ef_warn("handover: what the loader before counted is not known: %s", why);
	json_object_foreach ((json_t *)json_object_get(doc, "features"), name, totals) {
		struct ef_live *live = ef_handover_find(service, name);

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
		bool was = ef_handover_names(service->handover.attached, ef_live_name(live));
		int64_t gap = live->asked.gap_ns;

		if (live->asked.unshared && cut_ns)
			gap = ef_clock_ns(CLOCK_BOOTTIME) - cut_ns;
		if (was)
			ef_handover_add_gap(live, gap);
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
		ef_handover_set_gate(&service->lives[i], EF_GATE_OPEN, 0);
	take_totals(service);
	begin_to_note(service, cut_ns);
	ef_handover_end(service);
	service->settled = false; /* says how things stand, and that it is ready */
	ef_background_tell(&service->handover.parent_fd, EF_EXIT_OK);
	ef_notice("took over from the loader before");
}

void ef_handover_hear_as_next(struct ef_service *service, const json_t *message, bool gone) {
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
