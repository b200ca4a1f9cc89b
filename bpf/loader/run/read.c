/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/read.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"
#include "control/watch.h"
#include "run/report.h"
#include "run/wake.h"

/* A fresh watch, before anything is read; without one the poll timer does it. */
void ef_read_renew_watch(struct ef_service *service) {
	_cleanup_free_ char *etc = ef_must(ef_path_join(service->options.etc, "kill.d"));
	_cleanup_free_ char *run = ef_must(ef_path_join(service->options.run, "kill.d"));
	const char *folders[] = {etc, run};
	const char *files[] = {service->inputs.desired_path, service->inputs.lease_path,
			       service->inputs.policy_path, service->trust.allowed_signers,
			       service->trust.revoked_keys};
	int fd = ef_watch_open(folders, 2, files, EF_ARRAY_SIZE(files));
	int err = fd < 0 ? fd : ef_wake_on(service, fd, EF_SOURCE_WATCH);

	if (err && fd >= 0)
		close(fd);
	if (err && !service->watch_failing)
		ef_err("orders cannot be watched for: %s; they are looked for every %d ms; raise "
		       "fs.inotify.max_user_instances and max_user_watches",
		       strerror(-err), EF_POLL_MS);
	service->watch_failing = err != 0;
	if (service->watch_fd >= 0)
		close(service->watch_fd);
	service->watch_fd = err ? -1 : fd;
}

/* True when the orders are not what they were; *before is the caller's to free. */
static bool read_orders(struct ef_service *service, struct ef_orders *before) {
	*before = service->inputs.orders;
	ef_orders_read(service->options.etc, service->options.run, &service->kernel,
		       service->bundle, &service->inputs.orders);
	return !ef_orders_equal(&service->inputs.orders, before);
}

/* Off is always allowed; that strangers can say it must be known. */
static void say_folder(const char *order) {
	_cleanup_free_ char *folder = ef_must(strdup(order));
	char why[400];

	*strrchr(folder, '/') = 0;
	if (ef_folder_check(folder, why, sizeof(why)) == -EPERM)
		ef_warn("kill order %s is obeyed, whoever gave it: %s", order, why);
}

static void say_orders(const struct ef_service *service) {
	const struct ef_orders *orders = &service->inputs.orders;

	for (size_t i = 0; i < orders->n; i++) {
		ef_notice("kill order %s holds", ef_order_path(&orders->orders[i]));
		say_folder(ef_order_path(&orders->orders[i]));
	}
	for (size_t i = 0; i < orders->n_unknown; i++)
		ef_warn(
		    "kill order %s is not understood and holds nothing: the name must be global, "
		    "feature.NAME or family.FAMILY",
		    orders->unknown[i]);
}

/* Detach what the orders forbid; returns how many features that were, the guard's too. */
static unsigned cut_killed(struct ef_service *service) {
	unsigned cut = __atomic_exchange_n(&service->cut_by_guard, 0, __ATOMIC_RELAXED);

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];

		if (ef_orders_feature(&service->inputs.orders, ef_live_name(live)))
			cut += ef_live_cut(live);
	}
	return cut;
}

/*
 * Read the orders and detach. Nothing stands between an order and its effect,
 * not even a message: a journal may block. True when the orders changed.
 */
bool ef_read_orders_obey(struct ef_service *service) {
	struct ef_orders before;
	bool changed = read_orders(service, &before);
	unsigned cut = cut_killed(service);
	int64_t took_ns = ef_clock_ns(CLOCK_MONOTONIC) - service->woken_ns;

	if (changed) {
		say_orders(service);
		ef_report_orders(service, &before);
	}
	ef_orders_free(&before);
	if (cut)
		ef_notice("kill: %u features detached %lld us after the order was seen", cut,
			  (long long)took_ns / 1000);
	return changed;
}

static bool same_error(struct ef_service *service, const char *error) {
	if (!strcmp(service->inputs.desired_error, error))
		return true;
	snprintf(service->inputs.desired_error, sizeof(service->inputs.desired_error), "%s", error);
	if (*error)
		ef_err("%s", error);
	return false;
}

/* What cannot be read leaves in force what was; true when a word of it is new. */
bool ef_read_desired(struct ef_service *service, bool at_start) {
	char error[sizeof(service->inputs.desired_error)];
	struct ef_desired desired;
	enum ef_desired_result result =
	    ef_desired_read(service->inputs.desired_path, ef_bundle_digest(service->bundle),
			    &desired, error, sizeof(error));
	bool changed = !same_error(service, error) || result != service->inputs.desired_result;
	struct ef_desired before = service->inputs.desired;

	if (result == EF_DESIRED_BAD && !at_start) {
		ef_report_desired(service, &before, changed);
		return changed;
	}
	service->inputs.desired = desired;
	service->inputs.desired_result = result;
	ef_report_desired(service, &before, changed || at_start);
	ef_desired_free(&before);
	return changed;
}

/* As desired.json: what cannot be read leaves in force what was. True when a word of it is new. */
bool ef_read_policy(struct ef_service *service, bool at_start) {
	char error[sizeof(service->inputs.policy_error)];
	struct ef_policy policy;
	enum ef_policy_result result =
	    ef_policy_read(service->inputs.policy_path, &policy, error, sizeof(error));
	bool changed =
	    strcmp(error, service->inputs.policy_error) ||
	    (result != EF_POLICY_BAD && (result != service->inputs.policy_result ||
					 !ef_policy_equal(&policy, &service->inputs.policy)));

	if (*error && strcmp(error, service->inputs.policy_error))
		ef_err("%s", error);
	snprintf(service->inputs.policy_error, sizeof(service->inputs.policy_error), "%s", error);
	if (result == EF_POLICY_BAD && !at_start) {
		if (changed)
			ef_report_policy(service);
		ef_policy_free(&policy);
		return changed;
	}
	ef_policy_free(&service->inputs.policy);
	service->inputs.policy = policy;
	service->inputs.policy_result = result;
	if (changed && !(at_start && result == EF_POLICY_ABSENT))
		ef_report_policy(service);
	return changed;
}
