/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "must.h"
#include "pressure.h"
#include "prom.h"

#define BUCKETS 40 /* 2^40 ns are 18 minutes; what is above is in +Inf */

static void put_info(FILE *out, const struct ef_service *service) {
	ef_prom_head(out, "build_info", "gauge", "The loader and the bundle that it runs.");
	fputs("ebpf_fleet_build_info{loader_version=", out);
	ef_prom_label(out, EF_LOADER_VERSION);
	fputs(",bundle_version=", out);
	ef_prom_label(out, service->bundle ? service->bundle->version : "");
	fputs(",bundle_digest=", out);
	ef_prom_label(out, service->bundle ? service->bundle->digest : "");
	fputs("} 1\n", out);
	ef_prom_head(out, "kernel_info", "gauge", "The kernel of this host.");
	fputs("ebpf_fleet_kernel_info{release=", out);
	ef_prom_label(out, service->kernel.release);
	fputs(",family=", out);
	ef_prom_label(out, service->kernel.family);
	fputs("} 1\n", out);
}

static void put_profiles(FILE *out, const json_t *features) {
	static const char *const profiles[] = {"full", "reduced", "disabled"};
	const char *feature;
	json_t *value;

	ef_prom_head(out, "feature_profile", "gauge",
		     "1 for the profile that the feature has reached.");
	json_object_foreach ((json_t *)features, feature, value)
		for (int i = 0; i < 3; i++)
			fprintf(out,
				"ebpf_fleet_feature_profile{feature=\"%s\",profile=\"%s\"} %d\n",
				feature, profiles[i],
				!strcmp(profiles[i],
					json_string_value(json_object_get(value, "profile"))));
}

/* The state that holds is 1 and the others are 0, so that a change ends no series. */
static void put_states(FILE *out, const json_t *features) {
	static const char *const states[] = {"off", "attached", "killed", "disabled", "shed"};
	const char *feature;
	json_t *value;

	ef_prom_head(out, "feature_state", "gauge", "1 for the state that the feature is in.");
	json_object_foreach ((json_t *)features, feature, value)
		for (int i = 0; i < 5; i++)
			fprintf(
			    out, "ebpf_fleet_feature_state{feature=\"%s\",state=\"%s\"} %d\n",
			    feature, states[i],
			    !strcmp(states[i], json_string_value(json_object_get(value, "state"))));
}

static void put_wishes(FILE *out, const json_t *features) {
	const char *feature;
	json_t *value;

	ef_prom_head(out, "feature_wanted", "gauge", "1 where desired.json wants the feature.");
	json_object_foreach ((json_t *)features, feature, value)
		fprintf(out, "ebpf_fleet_feature_wanted{feature=\"%s\"} %d\n", feature,
			json_is_true(json_object_get(value, "wanted")));
	ef_prom_head(out, "feature_sample_every", "gauge",
		     "Of how many events one is measured; 1 is every event.");
	json_object_foreach ((json_t *)features, feature, value)
		fprintf(out,
			"ebpf_fleet_feature_sample_every{feature=\"%s\"} %" JSON_INTEGER_FORMAT
			"\n",
			feature, json_integer_value(json_object_get(value, "sample_every")));
}

/* One counter of every feature. */
static void put_counter(FILE *out, const json_t *features, const char *key, const char *name,
			const char *type, const char *help) {
	const char *feature;
	json_t *value, *number;

	ef_prom_head(out, name, type, help);
	json_object_foreach ((json_t *)features, feature, value) {
		number = json_object_get(json_object_get(value, "counters"), key);
		if (json_is_integer(number)) /* not measured: no sample rather than a 0 */
			fprintf(out, "ebpf_fleet_%s{feature=\"%s\"} %" JSON_INTEGER_FORMAT "\n",
				name, feature, json_integer_value(number));
	}
}

static void put_counters(FILE *out, const json_t *features) {
	put_counter(out, features, "produced", "events_produced_total", "counter",
		    "Events that happened while the feature was attached.");
	put_counter(out, features, "delivered", "events_delivered_total", "counter",
		    "Events that reached their metric or file.");
	put_counter(out, features, "dropped", "events_dropped_total", "counter",
		    "Events that were lost.");
	put_counter(out, features, "sampled_out", "events_sampled_out_total", "counter",
		    "Events that sampling passed over.");
	put_counter(out, features, "in_flight", "events_in_flight", "gauge",
		    "Events that have no outcome yet.");
}

/* One measured field of each item ("programs" or "maps") of every feature. */
static void put_items(FILE *out, const json_t *features, const char *list, const char *label,
		      const char *key, const char *name, int digits) {
	const char *feature;
	json_t *value, *item, *number;
	size_t i;

	json_object_foreach ((json_t *)features, feature, value)
		json_array_foreach (json_object_get(value, list), i, item) {
			number = json_object_get(item, key);
			if (!json_is_integer(number))
				continue; /* not measured: no sample rather than a 0 */
			fprintf(out, "ebpf_fleet_%s{feature=\"%s\",%s=\"%s\"} ", name, feature,
				label, json_string_value(json_object_get(item, "name")));
			ef_prom_decimal(out, (uint64_t)json_integer_value(number), digits);
			fputc('\n', out);
		}
}

static void put_programs(FILE *out, const json_t *features) {
	ef_prom_head(out, "program_run_seconds_total", "counter", "Time the program ran.");
	put_items(out, features, "programs", "program", "run_time_ns", "program_run_seconds_total",
		  9);
	ef_prom_head(out, "program_runs_total", "counter", "Times the program ran.");
	put_items(out, features, "programs", "program", "run_cnt", "program_runs_total", 0);
}

static void put_maps(FILE *out, const json_t *features) {
	ef_prom_head(out, "map_entries", "gauge", "Entries in the map.");
	put_items(out, features, "maps", "map", "entries", "map_entries", 0);
	ef_prom_head(out, "map_max_entries", "gauge", "Entries that the map can hold.");
	put_items(out, features, "maps", "map", "max_entries", "map_max_entries", 0);
	ef_prom_head(out, "map_memory_bytes", "gauge", "Kernel memory of the map.");
	put_items(out, features, "maps", "map", "memory_bytes", "map_memory_bytes", 0);
}

static void put_lag(FILE *out, const json_t *features) {
	const char *feature;
	json_t *value, *lag;

	ef_prom_head(out, "consumer_lag_bytes", "gauge",
		     "Bytes in the ring or perf buffers that wait to be read.");
	json_object_foreach ((json_t *)features, feature, value) {
		lag = json_object_get(json_object_get(value, "consumer"), "lag_bytes");
		if (json_is_integer(lag))
			fprintf(
			    out,
			    "ebpf_fleet_consumer_lag_bytes{feature=\"%s\"} %" JSON_INTEGER_FORMAT
			    "\n",
			    feature, json_integer_value(lag));
	}
}

static void put_lag_age(FILE *out, const json_t *features) {
	const char *feature;
	json_t *value, *lag;

	ef_prom_head(out, "consumer_lag_seconds", "gauge",
		     "Greatest age of an event that waited to be read, since the last status.");
	json_object_foreach ((json_t *)features, feature, value) {
		lag = json_object_get(json_object_get(value, "consumer"), "lag_ns");
		if (!json_is_integer(lag))
			continue;
		fprintf(out, "ebpf_fleet_consumer_lag_seconds{feature=\"%s\"} ", feature);
		ef_prom_decimal(out, (uint64_t)json_integer_value(lag), 9);
		fputc('\n', out);
	}
}

static void put_backpressure(FILE *out, const json_t *features) {
	const char *feature;
	json_t *value, *state;

	ef_prom_head(out, "backpressure_active", "gauge",
		     "1 while the feature's reader is behind and its contract's policy acts.");
	json_object_foreach ((json_t *)features, feature, value) {
		state = json_object_get(json_object_get(value, "consumer"), "backpressure");
		if (json_is_object(state))
			fprintf(out,
				"ebpf_fleet_backpressure_active{feature=\"%s\",policy=\"%s\"} %d\n",
				feature, json_string_value(json_object_get(state, "policy")),
				json_is_true(json_object_get(state, "active")));
	}
}

static void put_aggregated(FILE *out, const struct ef_service *service) {
	ef_prom_head(out, "events_aggregated_total", "counter",
		     "Events told together, as one line a group; they are among the sampled out.");
	for (size_t i = 0; i < service->n; i++)
		if (ef_contract_signal(&service->lives[i].contract, EF_SIGNAL_EVENTS))
			fprintf(
			    out, "ebpf_fleet_events_aggregated_total{feature=\"%s\"} %" PRIu64 "\n",
			    service->lives[i].files->name, ef_live_aggregated(&service->lives[i]));
}

static void put_thinned(FILE *out, const struct ef_service *service) {
	ef_prom_head(out, "events_thinned_total", "counter",
		     "Events of loud sources, passed over so that the others find room; they are "
		     "among the sampled out.");
	for (size_t i = 0; i < service->n; i++) {
		const struct ef_live *live = &service->lives[i];

		if (ef_live_is_fair(live))
			fprintf(out,
				"ebpf_fleet_events_thinned_total{feature=\"%s\"} %" PRIu64 "\n",
				live->files->name, live->fairness.past + live->fairness.thinned);
	}
}

/* A uid of many control groups is one series. */
static void put_thinned_uids(FILE *out, const char *feature, const struct ef_fairness *fairness) {
	for (unsigned i = 0; i < fairness->n_top; i++) {
		uint64_t thinned = 0;
		bool again = false;

		for (unsigned j = 0; j < fairness->n_top; j++) {
			bool same = fairness->top[i].uid == fairness->top[j].uid;

			again |= same && j < i;
			thinned += same ? fairness->top[j].thinned : 0;
		}
		if (!again)
			fprintf(out,
				"ebpf_fleet_source_thinned_events{feature=\"%s\",uid=\"%" PRIu32
				"\"} %" PRIu64 "\n",
				feature, fairness->top[i].uid, thinned);
	}
	fprintf(out, "ebpf_fleet_source_thinned_events{feature=\"%s\",uid=\"other\"} %" PRIu64 "\n",
		feature, fairness->others_thinned);
}

static void put_thinned_sources(FILE *out, const struct ef_service *service) {
	ef_prom_head(out, "source_thinned_events", "gauge",
		     "Thinned events of the users that are thinned most, while their source is in "
		     "the table.");
	for (size_t i = 0; i < service->n; i++)
		if (ef_live_is_fair(&service->lives[i]))
			put_thinned_uids(out, service->lives[i].files->name,
					 &service->lives[i].fairness);
}

/* One series for each scope; the same order may be in both folders. */
static void put_kills(FILE *out, const struct ef_orders *orders) {
	ef_prom_head(out, "kill_engaged", "gauge", "1 while a kill order of this scope holds.");
	for (size_t i = 0; i < orders->n; i++) {
		bool again = false;

		for (size_t j = 0; j < i; j++)
			again |= !strcmp(orders->orders[i].scope, orders->orders[j].scope);
		if (again)
			continue;
		fputs("ebpf_fleet_kill_engaged{scope=", out);
		ef_prom_label(out, orders->orders[i].scope);
		fputs("} 1\n", out);
	}
}

static void put_single(FILE *out, const char *name, const char *type, const char *help,
		       const json_t *value, int digits) {
	ef_prom_head(out, name, type, help);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return;
	fprintf(out, "ebpf_fleet_%s ", name);
	ef_prom_decimal(out, (uint64_t)json_integer_value(value), digits);
	fputc('\n', out);
}

static void put_loader(FILE *out, const json_t *status) {
	const json_t *loader = json_object_get(status, "loader");

	put_single(out, "loader_cpu_seconds_total", "counter", "CPU time of the loader process.",
		   json_object_get(loader, "cpu_ns"), 9);
	put_single(out, "loader_resident_memory_bytes", "gauge", "Memory of the loader process.",
		   json_object_get(loader, "rss_bytes"), 0);
	put_single(out, "status_timestamp_seconds", "gauge", "When this was written.",
		   json_object_get(status, "time_unix_ns"), 9);
}

static void put_flag(FILE *out, const char *name, const char *help, bool is_set) {
	ef_prom_head(out, name, "gauge", help);
	fprintf(out, "ebpf_fleet_%s %d\n", name, is_set);
}

/* What a person has to look after: each is quiet in a fleet where nobody erred. */
static void put_control(FILE *out, const json_t *status) {
	const json_t *lease = json_object_get(status, "lease");

	ef_prom_head(out, "kill_orders_unknown", "gauge",
		     "Kill orders with a name that holds nothing off.");
	fprintf(out, "ebpf_fleet_kill_orders_unknown %zu\n",
		json_array_size(json_object_get(status, "kill_unknown")));
	put_flag(out, "desired_error", "1 while desired.json cannot be followed.",
		 json_is_string(json_object_get(status, "desired_error")));
	put_flag(out, "stats_enabled", "1 while the loader has run time statistics on.",
		 json_is_true(json_object_get(status, "stats_enabled")));
	put_flag(out, "policy_error", "1 while policy.json cannot be followed.",
		 json_is_string(json_object_get(status, "policy_error")));
	put_flag(out, "trust_withdrawn",
		 "1 while this host does not trust the release that the loader holds.",
		 json_is_false(json_object_get(json_object_get(status, "trust"), "ok")));
	put_flag(out, "clock_unknown",
		 "1 while the clock stands before a time that has been for certain.",
		 json_is_false(json_object_get(status, "clock_known")));
	put_single(out, "lease_left_seconds", "gauge", "Until the lease of a rollout runs out.",
		   json_object_get(lease, "left_ns"), 9);
	put_single(out, "events_unshipped_bytes", "gauge",
		   "Bytes of events in the files that the log shipper has not taken.",
		   json_object_get(json_object_get(status, "shipping"), "unshipped_bytes"), 0);
	put_single(out, "events_unshipped_deleted_bytes_total", "counter",
		   "Bytes of events that were removed before the log shipper took them.",
		   json_object_get(json_object_get(status, "shipping"), "unshipped_deleted_bytes"),
		   0);
	put_single(out, "audit_lost_total", "counter",
		   "Audit records that could not be written to their file.",
		   json_object_get(status, "audit_lost"), 0);
}

/* Decimal digits from the raw unit to the base unit. */
static int scale_digits(enum ef_scale scale) {
	if (scale == EF_SCALE_NANOSECONDS)
		return 9;
	return scale == EF_SCALE_MICROSECONDS ? 6 : 0;
}

/* Slot i holds 2^i ... 2^(i+1) - 1, and the upper end belongs to the bucket. */
static void put_histogram(FILE *out, const struct ef_signal *signal, const uint64_t *hist) {
	int digits = scale_digits(signal->scale);
	uint64_t sum = 0;

	ef_prom_head(out, signal->name, "histogram", signal->help);
	for (int i = 0; i < EF_HIST_SLOTS; i++) {
		sum += hist[i];
		if (i >= BUCKETS)
			continue;
		fprintf(out, "ebpf_fleet_%s_bucket{le=\"", signal->name);
		ef_prom_decimal(out, (2ULL << i) - 1, digits);
		fprintf(out, "\"} %" PRIu64 "\n", sum);
	}
	fprintf(out, "ebpf_fleet_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", signal->name, sum);
	fprintf(out, "ebpf_fleet_%s_sum ", signal->name);
	ef_prom_decimal(out, hist[EF_HIST_SUM], digits);
	fprintf(out, "\nebpf_fleet_%s_count %" PRIu64 "\n", signal->name, sum);
}

static void put_histograms(FILE *out, const struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++) {
		const struct ef_live *live = &service->lives[i];
		const struct ef_signal *signal =
		    ef_contract_signal(&live->contract, EF_SIGNAL_HISTOGRAM);
		uint64_t hist[EF_HIST_SLOTS + 1];

		if (signal && !ef_live_hist(live, hist))
			put_histogram(out, signal, hist);
	}
}

/* `counters` signals: one metric each, and what had no room in it. */
static void put_series(FILE *out, const struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++) {
		const struct ef_live *live = &service->lives[i];
		const struct ef_signal *signal =
		    ef_contract_signal(&live->contract, EF_SIGNAL_COUNTERS);
		char name[128];

		if (!signal)
			continue;
		snprintf(name, sizeof(name), "%s_total", signal->name);
		ef_prom_head(out, name, "counter", signal->help);
		ef_series_print(&live->series, out, signal->name);
	}
}

static void put_unkept(FILE *out, const json_t *features) {
	const char *feature;
	json_t *value, *series;

	ef_prom_head(out, "series_unkept_total", "counter",
		     "Counted by a counters signal for labels for which there was no room.");
	json_object_foreach ((json_t *)features, feature, value) {
		series = json_object_get(value, "series");
		if (json_is_object(series))
			fprintf(out,
				"ebpf_fleet_series_unkept_total{feature=\"%s\"} "
				"%" JSON_INTEGER_FORMAT "\n",
				feature, json_integer_value(json_object_get(series, "unkept")));
	}
}

char *ef_metrics_text(const struct ef_service *service, const json_t *status, size_t *size) {
	const json_t *features = json_object_get(status, "features");
	char *text = NULL;
	FILE *out = ef_must(open_memstream(&text, size));

	put_info(out, service);
	put_profiles(out, features);
	put_states(out, features);
	put_wishes(out, features);
	put_counters(out, features);
	put_programs(out, features);
	put_maps(out, features);
	put_lag(out, features);
	put_lag_age(out, features);
	put_backpressure(out, features);
	put_aggregated(out, service);
	put_thinned(out, service);
	put_thinned_sources(out, service);
	put_kills(out, &service->orders);
	put_control(out, status);
	put_loader(out, status);
	put_histograms(out, service);
	put_series(out, service);
	put_unkept(out, features);
	ef_pressure_metrics(out, service);
	fclose(out);
	return ef_must(text);
}
