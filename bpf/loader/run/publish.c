/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/publish.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"
#include "kernel/process.h"
#include "run/handover.h"
#include "run/pressure.h"
#include "run/seen.h"
#include "tell/audit.h"
#include "tell/metrics.h"
#include "tell/snapshot.h"
#include "tell/status.h"

/* ---- the state of all ---- */

/* The first feature in a state; NULL: none. */
static const struct ef_live *first_in(const struct ef_service *service, enum ef_state state) {
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].decided.state == state &&
		    (service->lives[i].asked.wanted || state == EF_STATE_ATTACHED))
			return &service->lives[i];
	return NULL;
}

/* The first that is off because no one knows the time; NULL: none. */
static const struct ef_live *first_without_clock(const struct ef_service *service) {
	const struct ef_live *live = first_in(service, EF_STATE_OFF);

	return live && !strcmp(ef_reason_code(&live->decided.reason), "EF_CLOCK_UNKNOWN") ? live
											  : NULL;
}

static const char *idle_state(const struct ef_service *service, struct ef_reason *why) {
	const struct ef_inputs *inputs = &service->inputs;
	const struct ef_live *live = first_in(service, EF_STATE_KILLED);

	if (live) {
		*why = live->decided.reason;
		return "killed";
	}
	live = first_in(service, EF_STATE_SHED);
	if (!live)
		live = first_in(service, EF_STATE_DISABLED);
	if (!live)
		live = first_without_clock(service);
	if (live)
		*why = live->decided.reason;
	else if (inputs->policy_result == EF_POLICY_BAD)
		ef_reason_set(why, "EF_HOST_POLICY_MALFORMED", "%s", inputs->policy_error);
	else if (inputs->desired_result == EF_DESIRED_ABSENT)
		ef_reason_set(why, "EF_NO_DESIRED", "there is no %s: nothing runs",
			      inputs->desired_path);
	else if (inputs->desired_result == EF_DESIRED_BAD)
		ef_reason_set(why, "EF_DESIRED_MALFORMED", "%s", inputs->desired_error);
	else
		ef_reason_set(why, "EF_NOT_WANTED", "desired.json wants nothing to run");
	return "idle";
}

const char *ef_service_state(const struct ef_service *service, struct ef_reason *why) {
	const struct ef_inputs *inputs = &service->inputs;
	const struct ef_order *order = ef_orders_all(&inputs->orders);

	if (!service->bundle) {
		ef_reason_set(why, service->refusal.code, "%s", service->refusal.reason);
		return "refused";
	}
	if (service->stopping) {
		ef_reason_set(why, "EF_OK", "the loader was stopped");
		return "idle";
	}
	if (order) {
		ef_reason_set(why, ef_order_code(order), "kill order %s; remove it to release",
			      ef_order_path(order));
		return "killed";
	}
	if (inputs->lease_expired) {
		ef_lease_reason(&inputs->lease, why);
		return "idle";
	}
	if (ef_standing_is_lost(&inputs->standing)) {
		ef_standing_reason(&inputs->standing, why);
		return "idle";
	}
	if (!first_in(service, EF_STATE_ATTACHED))
		return idle_state(service, why);
	ef_reason_set(why, "EF_OK", "running");
	return "running";
}

/* ---- the snapshot ---- */

static bool in_bundle(const struct ef_service *service, const char *feature) {
	for (size_t i = 0; i < service->n; i++)
		if (!strcmp(ef_live_name(&service->lives[i]), feature))
			return true;
	return false;
}

/* A wish for a feature that no one shipped is told, not ignored. */
static void take_missing(const struct ef_service *service, struct ef_snapshot *snapshot) {
	const struct ef_desired *desired = &service->inputs.desired;

	for (size_t i = 0; i < desired->n; i++) {
		const struct ef_wish *wish = &desired->wishes[i];

		if (wish->enabled && !in_bundle(service, wish->feature))
			ef_feature_snapshot_missing(wish->feature, wish->sample_every,
						    &snapshot->features[snapshot->n++]);
	}
}

static void take_features(struct ef_service *service, struct ef_snapshot *snapshot) {
	size_t room = service->n + service->inputs.desired.n;

	snapshot->features = ef_must(calloc(room + 1, sizeof(*snapshot->features)));
	if (!service->bundle)
		return;
	for (size_t i = 0; i < service->n; i++)
		ef_feature_snapshot_take(&service->lives[i], service->stats_fd >= 0,
					 &snapshot->features[snapshot->n++]);
	take_missing(service, snapshot);
}

/* Of all maps of all features; -1 when one of them is not known, or all are not as there is no
 * bundle. */
static int64_t map_memory(const struct ef_snapshot *snapshot) {
	int64_t sum = 0;

	for (size_t i = 0; i < snapshot->n; i++)
		for (size_t j = 0; j < snapshot->features[i].n_maps; j++) {
			int64_t bytes = snapshot->features[i].maps[j].memory_bytes;

			if (bytes < 0)
				return -1;
			sum += bytes;
		}
	return sum;
}

static void take(struct ef_service *service, struct ef_snapshot *snapshot) {
	*snapshot = (struct ef_snapshot){
	    .time_unix_ns = ef_clock_ns(CLOCK_REALTIME),
	    .boottime_ns = ef_clock_ns(CLOCK_BOOTTIME),
	    .started_boottime_ns = service->started_boottime_ns,
	    .boot_id = service->boot_id,
	    .pid = getpid(),
	    .bundle = service->bundle,
	    .kernel = &service->kernel,
	    .orders = &service->inputs.orders,
	    .policy = &service->inputs.policy,
	    .lease = &service->inputs.lease,
	    .standing = &service->inputs.standing,
	    .desired_error = service->inputs.desired_error,
	    .policy_error = service->inputs.policy_error,
	    .clock_known = !service->clock_unknown,
	    .stats_enabled = service->stats_fd >= 0,
	    .audit_lost = ef_audit_lost(service->audit),
	    .compatibility = service->compatibility,
	};
	snapshot->state = ef_service_state(service, &snapshot->reason);
	ef_sink_tell(service->sink, &snapshot->shipping);
	take_features(service, snapshot);
	snapshot->cpu_ns = ef_self_cpu_ns();
	snapshot->rss_bytes = ef_self_rss_bytes();
	snapshot->map_memory_bytes = map_memory(snapshot);
}

static void let_go(struct ef_snapshot *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++)
		ef_feature_snapshot_free(&snapshot->features[i]);
	free(snapshot->features);
}

/* ---- the files ---- */

/* Write one file of the state folder. A full disk is logged once, and its end. */
static void write_file(struct ef_service *service, const char *name, const char *text, size_t size,
		       bool *failed) {
	int err = ef_write_atomic(service->options.state, name, text, size, 0644);

	*failed |= err != 0;
	if (err && !service->publish_failing)
		ef_err("cannot write %s/%s: %s; see that the folder belongs to the loader's user "
		       "and has space; what it says is old until then",
		       service->options.state, name, strerror(-err));
	service->publish_failing |= err != 0;
}

static void write_status(struct ef_service *service, const struct ef_snapshot *snapshot,
			 bool *failed) {
	_cleanup_json_ json_t *status = ef_status_json(snapshot);
	_cleanup_free_ char *text = NULL;
	size_t size = 0;

	text = ef_json_canonical(status, &size);
	if (text)
		write_file(service, "status.json", text, size, failed);
	else
		ef_err("status.json cannot be made from the status: out of memory");
}

static void write_all(struct ef_service *service, const struct ef_snapshot *snapshot) {
	_cleanup_free_ char *programs = NULL, *metrics = NULL;
	bool failed = false;
	size_t size = 0;

	programs = ef_status_programs(snapshot, &size);
	write_file(service, "programs", programs, size, &failed);
	metrics = ef_metrics_text(snapshot, &size);
	write_file(service, "metrics.prom", metrics, size, &failed);
	write_status(service, snapshot, &failed);
	if (service->publish_failing && !failed)
		ef_notice("%s can be written again", service->options.state);
	service->publish_failing = failed;
}

static void publish(struct ef_service *service, bool ends_interval) {
	struct ef_snapshot snapshot;

	if (ef_handover_is_silent(service))
		return; /* the loader that runs publishes still */
	take(service, &snapshot);
	if (ends_interval)
		ef_pressure_measure(service, &snapshot);
	ef_pressure_tell(service, &snapshot);
	write_all(service, &snapshot);
	ef_seen_write(service);
	let_go(&snapshot);
}

void ef_publish(struct ef_service *service) {
	publish(service, false);
}

void ef_publish_interval(struct ef_service *service) {
	publish(service, true);
}

json_t *ef_publish_compatibility(struct ef_service *service) {
	struct ef_snapshot snapshot;
	json_t *event;

	take(service, &snapshot);
	event = ef_status_compatibility(&snapshot);
	let_go(&snapshot);
	return event;
}
