/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "account.h"
#include "commands.h"
#include "json.h"
#include "log.h"
#include "metrics.h"
#include "must.h"
#include "pressure.h"
#include "privilege.h"
#include "util.h"

static const char *const state_names[] = {"off", "attached", "killed", "disabled", "shed"};

static json_t *text_or_null(const char *text) {
	return text && *text ? json_string(text) : json_null();
}

static json_t *programs_json(const struct ef_live *live, bool with_stats) {
	json_t *list = json_array(), *name;
	size_t i;

	if (!live->object)
		return list;
	json_array_foreach (live->variant->programs, i, name)
		json_array_append_new(
		    list, ef_program_json(bpf_object__find_program_by_name(live->object,
									   json_string_value(name)),
					  with_stats));
	return list;
}

/* A perf_event_array is little; its buffers are the memory. */
static uint64_t buffer_bytes(const struct ef_live *live, const struct bpf_map *map) {
	if (!live->feed || bpf_map__type(map) != BPF_MAP_TYPE_PERF_EVENT_ARRAY)
		return 0;
	return ef_feed_ring_bytes(live->feed);
}

static json_t *maps_json(const struct ef_live *live) {
	json_t *list = json_array();
	struct bpf_map *map;

	if (!live->object)
		return list;
	bpf_object__for_each_map (map, live->object)
		json_array_append_new(list, ef_map_json(map, buffer_bytes(live, map)));
	return list;
}

static json_t *count_or_null(bool known, uint64_t count) {
	return known ? json_integer((json_int_t)count) : json_null();
}

static json_t *counters_json(const struct ef_live *live) {
	bool counted = live->contract.counted;
	struct ef_counters counters;

	ef_live_counters(live, &counters);
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "produced",
			 count_or_null(counted, counters.produced), "delivered",
			 count_or_null(ef_live_knows_delivered(live), counters.delivered),
			 "dropped", count_or_null(ef_live_knows_dropped(live), counters.dropped),
			 "sampled_out", count_or_null(counted, counters.sampled_out), "in_flight",
			 count_or_null(counted, ef_counters_in_flight(&counters)));
}

/* Why fewer records than events arrive, where the contract says more than `drop`. */
static json_t *backpressure_json(const struct ef_live *live) {
	const struct ef_backpressure *state = &live->backpressure;

	return json_pack("{s:s, s:b, s:I, s:I}", "policy", ef_backpressure_name(state->kind),
			 "active", state->level > 0, "thinning",
			 (json_int_t)ef_backpressure_thinning(state), "aggregated",
			 (json_int_t)ef_live_aggregated(live));
}

static json_t *consumer_json(const struct ef_live *live) {
	if (!live->feed)
		return json_null();
	return json_pack("{s:I, s:o, s:I, s:o, s:I, s:o}", "lag_bytes",
			 (json_int_t)ef_feed_lag(live->feed), "lag_ns",
			 ef_json_measured(ef_feed_lag_ns(live->feed)), "ring_bytes",
			 (json_int_t)ef_feed_ring_bytes(live->feed), "lost",
			 count_or_null(ef_feed_lost(live->feed) >= 0, ef_live_lost(live)),
			 "unwritten", (json_int_t)(live->tally.dropped + live->aggregated.dropped),
			 "backpressure", backpressure_json(live));
}

static json_t *series_json(const struct ef_live *live) {
	const struct ef_series *series = &live->series;

	if (!ef_contract_signal(&live->contract, EF_SIGNAL_COUNTERS))
		return json_null();
	return json_pack("{s:I, s:I, s:I}", "entries", (json_int_t)series->totals.n, "max_entries",
			 (json_int_t)series->totals.max, "unkept", (json_int_t)series->unkept);
}

static json_t *fairness_json(const struct ef_live *live) {
	return ef_live_is_fair(live) ? ef_fairness_json(&live->fairness, live->rate) : json_null();
}

static json_t *feature_json(const struct ef_live *live, bool with_stats) {
	return json_pack(
	    "{s:b, s:s, s:s, s:o, s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "wanted",
	    live->wanted, "state", state_names[live->state], "profile", ef_live_profile(live),
	    "variant", text_or_null(live->variant ? live->variant->name : NULL), "reason_code",
	    live->reason.code, "reason", live->reason.text, "sample_every",
	    (json_int_t)ef_live_sample_every(live), "programs", programs_json(live, with_stats),
	    "links", ef_live_links_json(live), "maps", maps_json(live), "counters",
	    counters_json(live), "consumer", consumer_json(live), "series", series_json(live),
	    "degraded", ef_pressure_degraded_json(live), "fairness", fairness_json(live));
}

static bool in_bundle(const struct ef_service *service, const char *feature) {
	for (size_t i = 0; i < service->n; i++)
		if (!strcmp(service->lives[i].files->name, feature))
			return true;
	return false;
}

/* A wish for a feature that nobody shipped is said, not ignored. */
static json_t *missing_json(const struct ef_wish *wish) {
	struct ef_live none = {
	    .wanted = true,
	    .state = EF_STATE_DISABLED,
	    .sample_every = wish->sample_every ? wish->sample_every : 1,
	    .contract.counted = true, /* nothing ran: that is 0, not unknown */
	};

	ef_reason_set(&none.reason, "EF_NOT_IN_BUNDLE",
		      "the bundle has no feature '%s'; remove it from desired.json or deploy a "
		      "release that has it",
		      wish->feature);
	return feature_json(&none, false);
}

static json_t *features_json(const struct ef_service *service) {
	json_t *features = json_object();

	for (size_t i = 0; i < service->n; i++)
		json_object_set_new(features, service->lives[i].files->name,
				    feature_json(&service->lives[i], service->stats_fd >= 0));
	for (size_t i = 0; i < service->desired.n; i++) {
		const struct ef_wish *wish = &service->desired.wishes[i];

		if (wish->enabled && !in_bundle(service, wish->feature))
			json_object_set_new(features, wish->feature, missing_json(wish));
	}
	return features;
}

/* The first feature in a state; NULL: none. */
static const struct ef_live *first_in(const struct ef_service *service, enum ef_state state) {
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].state == state &&
		    (service->lives[i].wanted || state == EF_STATE_ATTACHED))
			return &service->lives[i];
	return NULL;
}

/* The first that is off because nobody knows the time; NULL: none. */
static const struct ef_live *first_without_clock(const struct ef_service *service) {
	const struct ef_live *live = first_in(service, EF_STATE_OFF);

	return live && !strcmp(live->reason.code, "EF_CLOCK_UNKNOWN") ? live : NULL;
}

static const char *idle_state(const struct ef_service *service, struct ef_reason *why) {
	const struct ef_live *live = first_in(service, EF_STATE_KILLED);

	if (live) {
		*why = live->reason;
		return "killed";
	}
	live = first_in(service, EF_STATE_SHED);
	if (!live)
		live = first_in(service, EF_STATE_DISABLED);
	if (!live)
		live = first_without_clock(service);
	if (live)
		*why = live->reason;
	else if (service->policy_result == EF_POLICY_BAD)
		ef_reason_set(why, "EF_HOST_POLICY_MALFORMED", "%s", service->policy_error);
	else if (service->desired_result == EF_DESIRED_ABSENT)
		ef_reason_set(why, "EF_NO_DESIRED", "there is no %s: nothing runs",
			      service->desired_path);
	else if (service->desired_result == EF_DESIRED_BAD)
		ef_reason_set(why, "EF_DESIRED_MALFORMED", "%s", service->desired_error);
	else
		ef_reason_set(why, "EF_NOT_WANTED", "desired.json wants nothing to run");
	return "idle";
}

const char *ef_status_state(const struct ef_service *service, struct ef_reason *why) {
	const struct ef_order *order = ef_orders_all(&service->orders);

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
			      order->path);
		return "killed";
	}
	if (service->lease_expired) {
		ef_lease_reason(&service->lease, why);
		return "idle";
	}
	if (service->standing.lost) {
		ef_standing_reason(&service->standing, why);
		return "idle";
	}
	if (!first_in(service, EF_STATE_ATTACHED))
		return idle_state(service, why);
	ef_reason_set(why, "EF_OK", "running");
	return "running";
}

/* Of all maps of all features; null when one of them is not known. */
static json_t *map_memory_json(const json_t *features) {
	const char *name;
	json_t *feature, *map, *bytes;
	json_int_t sum = 0;
	size_t i;

	json_object_foreach ((json_t *)features, name, feature) {
		json_array_foreach (json_object_get(feature, "maps"), i, map) {
			bytes = json_object_get(map, "memory_bytes");
			if (!json_is_integer(bytes))
				return json_null();
			sum += json_integer_value(bytes);
		}
	}
	return json_integer(sum);
}

static json_t *loader_json(const json_t *features) {
	return json_pack("{s:o, s:o, s:o}", "cpu_ns", ef_json_measured(ef_self_cpu_ns()),
			 "rss_bytes", ef_json_measured(ef_self_rss_bytes()), "map_memory_bytes",
			 map_memory_json(features));
}

static void add_times(json_t *status, const struct ef_service *service) {
	json_object_set_new(status, "time_unix_ns", json_integer(ef_clock_ns(CLOCK_REALTIME)));
	json_object_set_new(status, "boottime_ns", json_integer(ef_clock_ns(CLOCK_BOOTTIME)));
	json_object_set_new(status, "boot_id", json_string(service->boot_id));
	json_object_set_new(status, "pid", json_integer(getpid()));
	json_object_set_new(status, "started_boottime_ns",
			    ef_json_measured(service->started_boottime_ns));
	json_object_set_new(status, "loader_version", json_string(EF_LOADER_VERSION));
}

static void add_state(json_t *status, const struct ef_service *service) {
	struct ef_reason why;
	const char *state = ef_status_state(service, &why);

	json_object_set_new(status, "state", json_string(state));
	json_object_set_new(status, "reason_code", json_string(why.code));
	json_object_set_new(status, "reason", json_string(why.text));
	json_object_set_new(status, "kills", ef_orders_json(&service->orders));
	json_object_set_new(status, "kill_unknown", ef_orders_unknown_json(&service->orders));
	json_object_set_new(status, "desired_error", text_or_null(service->desired_error));
	json_object_set_new(status, "policy_error", text_or_null(service->policy_error));
	json_object_set_new(status, "lease",
			    ef_lease_json(&service->lease, ef_clock_ns(CLOCK_BOOTTIME)));
	json_object_set_new(status, "trust",
			    service->bundle ? ef_standing_json(&service->standing) : json_null());
	json_object_set_new(status, "clock_known", json_boolean(!service->clock_unknown));
	json_object_set_new(status, "audit_lost",
			    json_integer((json_int_t)ef_audit_lost(service->audit)));
	json_object_set_new(status, "stats_enabled", json_boolean(service->stats_fd >= 0));
	json_object_set_new(status, "privileges", ef_privilege_json());
}

/* null where the policy names no cursor of a log shipper: nothing is known of one then. */
static json_t *shipping_json(const struct ef_service *service) {
	struct ef_sink_state state;

	ef_sink_tell(service->sink, &state);
	if (state.segment < 0)
		return json_null();
	return json_pack("{s:I, s:o, s:o, s:o, s:I}", "segment", (json_int_t)state.segment,
			 "cursor_segment", ef_json_measured(state.cursor_segment), "cursor_offset",
			 ef_json_measured(state.cursor_offset), "unshipped_bytes",
			 ef_json_measured(state.unshipped_bytes), "unshipped_deleted_bytes",
			 (json_int_t)state.unshipped_deleted_bytes);
}

static json_t *status_json(const struct ef_service *service) {
	json_t *status = json_object();
	json_t *features = service->bundle ? features_json(service) : json_null();

	json_object_set_new(status, "schema", json_string("ebpf.fleet/status/v1"));
	add_times(status, service);
	json_object_set_new(status, "bundle",
			    service->bundle ? ef_bundle_json(service->bundle) : json_null());
	json_object_set_new(status, "kernel", ef_kernel_json(&service->kernel));
	add_state(status, service);
	json_object_set_new(status, "loader", loader_json(features));
	json_object_set_new(status, "features", features);
	json_object_set_new(status, "shipping", shipping_json(service));
	json_object_set(status, "compatibility",
			service->compatibility ? service->compatibility : json_null());
	return status;
}

/* Write one file of the state folder. A full disk is said once, and its end. */
static void publish(struct ef_service *service, const char *name, const char *text, size_t size,
		    bool *failed) {
	int err = ef_write_atomic(service->options.state, name, text, size, 0644);

	*failed |= err != 0;
	if (err && !service->publish_failing)
		ef_err("cannot write %s/%s: %s; see that the folder belongs to the loader's user "
		       "and has space; what it says is old until then",
		       service->options.state, name, strerror(-err));
	service->publish_failing |= err != 0;
}

static void write_programs(struct ef_service *service, const json_t *status, bool *failed) {
	_cleanup_free_ char *text = NULL;
	size_t size = 0, i;
	FILE *out = ef_must(open_memstream(&text, &size));
	const char *feature;
	json_t *value, *program;

	json_object_foreach (json_object_get(status, "features"), feature, value)
		json_array_foreach (json_object_get(value, "programs"), i, program)
			fprintf(out, "%" JSON_INTEGER_FORMAT " %s %s %s\n",
				json_integer_value(json_object_get(program, "id")),
				json_string_value(json_object_get(program, "tag")), feature,
				json_string_value(json_object_get(program, "name")));
	fclose(out);
	publish(service, "programs", text, size, failed);
}

static void publish_all(struct ef_service *service, bool ends_interval) {
	_cleanup_json_ json_t *status = NULL;
	_cleanup_free_ char *text = NULL, *metrics = NULL;
	bool failed = false;
	size_t size = 0;

	for (size_t i = 0; i < service->n; i++)
		ef_series_read(&service->lives[i].series, service->lives[i].files->name);
	status = status_json(service);
	if (ends_interval)
		ef_pressure_measure(service, status);
	json_object_set_new(status, "budget", ef_pressure_budget_json(service));
	write_programs(service, status, &failed);
	metrics = ef_metrics_text(service, status, &size);
	publish(service, "metrics.prom", metrics, size, &failed);
	text = ef_json_canonical(status, &size); /* last: who sees it finds the others as new */
	if (text)
		publish(service, "status.json", text, size, &failed);
	else
		ef_err("status.json cannot be made from the status: out of memory");
	if (service->publish_failing && !failed)
		ef_notice("%s can be written again", service->options.state);
	service->publish_failing = failed;
}

void ef_status_publish(struct ef_service *service) {
	publish_all(service, false);
}

void ef_status_publish_interval(struct ef_service *service) {
	publish_all(service, true);
}

static json_t *profiles_json(const struct ef_service *service) {
	json_t *features = json_object();

	for (size_t i = 0; i < service->n; i++) {
		const struct ef_live *live = &service->lives[i];

		json_object_set_new(
		    features, live->files->name,
		    json_pack("{s:s, s:o, s:s, s:s}", "profile", ef_live_profile(live), "variant",
			      text_or_null(live->variant ? live->variant->name : NULL),
			      "reason_code", live->reason.code, "reason", live->reason.text));
	}
	return features;
}

json_t *ef_status_compatibility(const struct ef_service *service) {
	time_t now = time(NULL);
	struct tm utc;
	char stamp[32];

	gmtime_r(&now, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "schema", "ebpf.fleet/compatibility/v1",
			 "event", "compatibility", "time", stamp, "kernel",
			 ef_kernel_json(&service->kernel), "bundle",
			 ef_bundle_json(service->bundle), "features", profiles_json(service));
}
