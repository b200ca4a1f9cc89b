/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tell/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/json.h"
#include "base/must.h"
#include "base/version.h"
#include "kernel/privilege.h"

static json_t *text_or_null(const char *text) {
	return text && *text ? json_string(text) : json_null();
}

static json_t *count_or_null(struct ef_count count) {
	return count.known ? json_integer((json_int_t)count.n) : json_null();
}

/* ---- a feature ---- */

static json_t *programs_json(const struct ef_feature_snapshot *feature) {
	json_t *list = json_array();

	for (size_t i = 0; i < feature->n_programs; i++)
		json_array_append_new(list, ef_program_json(&feature->programs[i]));
	return list;
}

static json_t *links_json(const struct ef_feature_snapshot *feature) {
	json_t *list = json_array();

	for (size_t i = 0; i < feature->n_links; i++)
		json_array_append_new(list, ef_json_measured(feature->links[i]));
	return list;
}

static json_t *maps_json(const struct ef_feature_snapshot *feature) {
	json_t *list = json_array();

	for (size_t i = 0; i < feature->n_maps; i++)
		json_array_append_new(list, ef_map_json(&feature->maps[i]));
	return list;
}

static json_t *counters_json(const struct ef_feature_snapshot *feature) {
	return json_pack("{s:o, s:o, s:o, s:o, s:o}", "produced", count_or_null(feature->produced),
			 "delivered", count_or_null(feature->delivered), "dropped",
			 count_or_null(feature->dropped), "sampled_out",
			 count_or_null(feature->sampled_out), "in_flight",
			 count_or_null(feature->in_flight));
}

static json_t *backpressure_json(const struct ef_feature_snapshot *feature) {
	const struct ef_consumer_seen *consumer = &feature->consumer;

	return json_pack("{s:s, s:b, s:I, s:I}", "policy", ef_backpressure_name(consumer->policy),
			 "active", consumer->behind, "thinning", (json_int_t)consumer->thinning,
			 "aggregated", (json_int_t)feature->aggregated);
}

static json_t *consumer_json(const struct ef_feature_snapshot *feature) {
	const struct ef_consumer_seen *consumer = &feature->consumer;

	if (!consumer->reads)
		return json_null();
	return json_pack(
	    "{s:I, s:o, s:I, s:o, s:I, s:o}", "lag_bytes", (json_int_t)consumer->lag_bytes,
	    "lag_ns", ef_json_measured(consumer->lag_ns), "ring_bytes",
	    (json_int_t)consumer->ring_bytes, "lost", count_or_null(consumer->lost), "unwritten",
	    (json_int_t)consumer->unwritten, "backpressure", backpressure_json(feature));
}

static json_t *series_json(const struct ef_feature_snapshot *feature) {
	const struct ef_series *series = feature->series;

	if (!feature->counters)
		return json_null();
	return json_pack("{s:I, s:I, s:I}", "entries", (json_int_t)series->totals.n, "max_entries",
			 (json_int_t)series->totals.max, "unkept", (json_int_t)series->unkept.raw);
}

static json_t *degraded_json(const struct ef_fall *fall) {
	struct ef_reason why;

	if (ef_fall_step(fall) == EF_STEP_NONE)
		return json_null();
	ef_fall_reason(fall, &why);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:i}", "step",
			 ef_step_name(ef_fall_step(fall)), "reason_code", ef_reason_code(&why),
			 "reason", ef_reason_text(&why), "measured", (json_int_t)fall->measured,
			 "limit", (json_int_t)fall->limit, "unit", ef_budget_unit(fall->budget),
			 "since_boottime_ns", (json_int_t)fall->since_ns, "steps",
			 (int)ef_fall_depth(fall));
}

static json_t *feature_json(const struct ef_feature_snapshot *feature) {
	return json_pack(
	    "{s:b, s:s, s:s, s:o, s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
	    "wanted", feature->wanted, "state", ef_state_name(feature->state), "profile",
	    feature->profile, "variant", text_or_null(feature->variant), "reason_code",
	    ef_reason_code(&feature->reason), "reason", ef_reason_text(&feature->reason),
	    "sample_every", (json_int_t)feature->sample_every, "programs", programs_json(feature),
	    "links", links_json(feature), "maps", maps_json(feature), "counters",
	    counters_json(feature), "weighted", count_or_null(feature->weighted), "unobserved_ns",
	    ef_unobserved_json(&feature->unobserved), "consumer", consumer_json(feature), "series",
	    series_json(feature), "degraded", degraded_json(&feature->fall), "fairness",
	    feature->fair ? ef_fairness_json(&feature->fairness, feature->rate) : json_null());
}

static json_t *features_json(const struct ef_snapshot *snapshot) {
	json_t *features = json_object();

	if (!snapshot->bundle) {
		json_decref(features);
		return json_null();
	}
	for (size_t i = 0; i < snapshot->n; i++)
		json_object_set_new(features, snapshot->features[i].name,
				    feature_json(&snapshot->features[i]));
	return features;
}

/* ---- the host ---- */

static json_t *budget_json(const struct ef_snapshot *snapshot) {
	json_t *features = json_object();

	for (size_t i = 0; i < snapshot->n; i++) {
		const struct ef_feature_snapshot *feature = &snapshot->features[i];

		if (feature->measured)
			json_object_set_new(
			    features, feature->name,
			    ef_budget_json(&feature->used, &feature->limits, false));
	}
	if (!snapshot->measured) {
		json_decref(features);
		return json_null();
	}
	return json_pack("{s:o, s:o}", "host",
			 ef_budget_json(&snapshot->used, &snapshot->policy->host, true), "features",
			 features);
}

/* null where policy.json names no cursor of a log shipper: nothing is known of one then. */
static json_t *shipping_json(const struct ef_sink_state *state) {
	if (state->segment < 0)
		return json_null();
	return json_pack("{s:I, s:o, s:o, s:o, s:I}", "segment", (json_int_t)state->segment,
			 "cursor_segment", ef_json_measured(state->cursor_segment), "cursor_offset",
			 ef_json_measured(state->cursor_offset), "unshipped_bytes",
			 ef_json_measured(state->unshipped_bytes), "unshipped_deleted_bytes",
			 (json_int_t)state->unshipped_deleted_bytes);
}

static void add_process(json_t *status, const struct ef_snapshot *snapshot) {
	json_object_set_new(status, "time_unix_ns", json_integer(snapshot->time_unix_ns));
	json_object_set_new(status, "boottime_ns", json_integer(snapshot->boottime_ns));
	json_object_set_new(status, "boot_id", json_string(snapshot->boot_id));
	json_object_set_new(status, "pid", json_integer(snapshot->pid));
	json_object_set_new(status, "started_boottime_ns",
			    ef_json_measured(snapshot->started_boottime_ns));
	json_object_set_new(status, "loader_version", json_string(EF_LOADER_VERSION));
	json_object_set_new(status, "loader",
			    json_pack("{s:o, s:o, s:o}", "cpu_ns",
				      ef_json_measured(snapshot->cpu_ns), "rss_bytes",
				      ef_json_measured(snapshot->rss_bytes), "map_memory_bytes",
				      ef_json_measured(snapshot->map_memory_bytes)));
}

static void add_inputs(json_t *status, const struct ef_snapshot *snapshot) {
	json_object_set_new(status, "kills", ef_orders_json(snapshot->orders));
	json_object_set_new(status, "kill_unknown", ef_orders_unknown_json(snapshot->orders));
	json_object_set_new(status, "desired_error", text_or_null(snapshot->desired_error));
	json_object_set_new(status, "policy_error", text_or_null(snapshot->policy_error));
	json_object_set_new(status, "lease", ef_lease_json(snapshot->lease, snapshot->boottime_ns));
	json_object_set_new(status, "trust",
			    snapshot->bundle ? ef_standing_json(snapshot->standing) : json_null());
	json_object_set_new(status, "clock_known", json_boolean(snapshot->clock_known));
}

json_t *ef_status_json(const struct ef_snapshot *snapshot) {
	json_t *status = json_object();

	json_object_set_new(status, "schema", json_string("ebpf.fleet/status/v1"));
	add_process(status, snapshot);
	json_object_set_new(status, "bundle",
			    snapshot->bundle ? ef_bundle_json(snapshot->bundle) : json_null());
	json_object_set_new(status, "kernel", ef_kernel_json(snapshot->kernel));
	json_object_set_new(status, "state", json_string(snapshot->state));
	json_object_set_new(status, "reason_code", json_string(ef_reason_code(&snapshot->reason)));
	json_object_set_new(status, "reason", json_string(ef_reason_text(&snapshot->reason)));
	add_inputs(status, snapshot);
	json_object_set_new(status, "audit_lost", json_integer((json_int_t)snapshot->audit_lost));
	json_object_set_new(status, "stats_enabled", json_boolean(snapshot->stats_enabled));
	json_object_set_new(status, "privileges", ef_privilege_json());
	json_object_set_new(status, "features", features_json(snapshot));
	json_object_set_new(status, "shipping", shipping_json(&snapshot->shipping));
	json_object_set_new(status, "budget", budget_json(snapshot));
	json_object_set_new(status, "compatibility",
			    snapshot->compatibility ? json_incref((json_t *)snapshot->compatibility)
						    : json_null());
	return status;
}

char *ef_status_programs(const struct ef_snapshot *snapshot, size_t *size) {
	char *text = NULL;
	FILE *out = ef_must(open_memstream(&text, size));

	for (size_t i = 0; i < snapshot->n; i++) {
		const struct ef_feature_snapshot *feature = &snapshot->features[i];

		for (size_t j = 0; j < feature->n_programs; j++) {
			const struct ef_program_seen *program = &feature->programs[j];

			if (program->known)
				fprintf(out, "%" PRId64 " %s %s %s\n", program->id, program->tag,
					feature->name, program->name);
		}
	}
	fclose(out);
	return ef_must(text);
}

/* ---- the compatibility event ---- */

static json_t *profiles_json(const struct ef_snapshot *snapshot) {
	json_t *features = json_object();

	for (size_t i = 0; i < snapshot->n; i++) {
		const struct ef_feature_snapshot *feature = &snapshot->features[i];

		if (feature->shipped)
			json_object_set_new(features, feature->name,
					    json_pack("{s:s, s:o, s:s, s:s}", "profile",
						      feature->profile, "variant",
						      text_or_null(feature->variant), "reason_code",
						      ef_reason_code(&feature->reason), "reason",
						      ef_reason_text(&feature->reason)));
	}
	return features;
}

json_t *ef_status_compatibility(const struct ef_snapshot *snapshot) {
	time_t now = (time_t)(snapshot->time_unix_ns / 1000000000);
	struct tm utc;
	char stamp[32];

	gmtime_r(&now, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "schema", "ebpf.fleet/compatibility/v1",
			 "event", "compatibility", "time", stamp, "kernel",
			 ef_kernel_json(snapshot->kernel), "bundle",
			 ef_bundle_json(snapshot->bundle), "features", profiles_json(snapshot));
}
