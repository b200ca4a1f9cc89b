/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * The running loader's parts, without a kernel:
 *   rest STATE CODE               a feature that was about to be attached, after shortages, is put to rest: is that a
 *                                 change, and what is left
 *   twice STATE CODE STATE CODE   whether the second time is a change
 *   meet STATE self|other         call the loader whose status is in that folder; self: it is this very process
 *   publish STATE interval|now    whether the account was taken
 *   orders LOG BEFORE NOW         what the audit is told when the orders change: SCOPE=PATH by comma, "-": none
 *   polls POLL...                 q: quiet, r: a ring held something, s: a reader is behind; how often the rings'
 *                                 timer was set and the sink flushed until after each
 */
/* clang-format on */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "kernel/process.h"
#include "run/apply.h"
#include "run/loop.h"
#include "run/meet.h"
#include "run/publish.h"
#include "run/report.h"
#include "run/state.h"
#include "run/wake.h"
#include "tell/audit.h"

#include "driver.h"

static struct ef_feature files = {.name = (char *)"f"};
static struct ef_service service;

/* ---- put to rest ---- */

static int rest(struct ef_live *live, char **word) {
	struct ef_reason why;

	ef_reason_set(&why, word[1], "because");
	return ef_apply_off(&service, live, (enum ef_state)atoi(word[0]), &why);
}

static void do_rest(int n, char **word) {
	struct ef_live live = {.files = &files};

	live.decided.state = EF_STATE_DISABLED;
	live.decided.due = true;
	live.decided.retry_ns = 5;
	live.decided.retries = 3;
	printf("%d", rest(&live, word));
	if (n == 4)
		printf(" %d", rest(&live, word + 2));
	printf(" %d %d %d %u %s\n", live.decided.state, live.decided.due,
	       (int)live.decided.retry_ns, live.decided.retries,
	       ef_reason_code(&live.decided.reason));
}

/* ---- call the running loader ---- */

static void write_own_status(const char *state) {
	char text[200];
	int length =
	    snprintf(text, sizeof(text), "{\"pid\":%d,\"started_boottime_ns\":%" PRId64 "}\n",
		     (int)getpid(), ef_process_start_ns(getpid()));

	if (ef_write_atomic(state, "status.json", text, (size_t)length, 0644))
		abort();
}

static void do_meet(int n, char **word) {
	char why[4096] = "";
	int fd;

	(void)n;
	if (!strcmp(word[1], "self"))
		write_own_status(word[0]);
	fd = ef_meet_call(word[0], why, sizeof(why));
	printf("%d %s\n", fd, why);
}

/* ---- publish ---- */

static void do_publish(int n, char **word) {
	(void)n;
	service.options.state = word[0];
	service.stats_fd = -1;
	service.refusal.code = "EF_SIG_MISSING";
	if (!strcmp(word[1], "interval"))
		ef_publish_interval(&service);
	else
		ef_publish(&service);
	printf("%d\n", service.measured);
}

/* ---- the audit of orders ---- */

static void read_orders(char *text, struct ef_orders *orders) {
	static struct ef_order room[16];
	static size_t used;

	*orders = (struct ef_orders){.orders = room + used};
	for (char *one = strtok(text, ","); one && *one != '-'; one = strtok(NULL, ",")) {
		char *path = strchr(one, '=');

		*path = 0;
		orders->orders[orders->n++] = (struct ef_order){one, path + 1};
		used++;
	}
}

static void do_orders(int n, char **word) {
	struct ef_orders before;

	(void)n;
	service.audit = ef_audit_new(word[0], "boot");
	read_orders(word[1], &before);
	read_orders(word[2], &service.inputs.orders);
	ef_report_orders(&service, &before);
	ef_audit_free(service.audit);
}

/* ---- the polls of the rings ---- */

static struct ef_live one_live = {.files = &files};
static char **polls;
static int n_paced, n_flushed;
static bool began;

void __wrap_ef_wake_pace(struct ef_service *of);
void __wrap_ef_sink_flush(struct ef_sink *sink);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int room, int timeout_ms);

void __wrap_ef_wake_pace(struct ef_service *of) {
	(void)of;
	n_paced++;
}

void __wrap_ef_sink_flush(struct ef_sink *sink) {
	(void)sink;
	n_flushed++;
}

int __wrap_epoll_wait(int fd, struct epoll_event *events, int room, int timeout_ms) {
	(void)fd, (void)room;
	if (timeout_ms != -1)
		abort(); /* nothing is due and all is settled */
	if (began)
		printf("%d/%d ", n_paced, n_flushed);
	began = true;
	if (!*polls) {
		service.stopping = true;
		return 0;
	}
	if (**polls == 'r')
		service.any_read = true;
	one_live.counted.backpressure.level = **polls == 's';
	polls++;
	events[0].data.u32 = EF_SOURCE_POLL;
	return 1;
}

static void do_polls(int n, char **word) {
	(void)n;
	polls = word;
	service.poll_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	service.settled = true;
	service.lives = &one_live;
	service.n = 1;
	printf("%d\n", ef_loop(&service));
	close(service.poll_fd);
}

static const struct command commands[] = {
    {"rest", 2, do_rest},	{"twice", 4, do_rest},	  {"meet", 2, do_meet},
    {"publish", 2, do_publish}, {"orders", 3, do_orders}, {"polls", 0, do_polls},
};

int main(int argc, char **argv) {
	return run_command(commands, EF_ARRAY_SIZE(commands), argc, argv);
}
