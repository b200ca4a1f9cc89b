/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tell/metrics.h"

#include <stdio.h>

#include "base/must.h"
#include "base/prom.h"
#include "base/util.h"
#include "tell/labelled.h"
#include "tell/signals.h"

typedef const struct ef_snapshot host;
typedef const struct ef_feature_snapshot feature;
typedef const struct ef_program_seen program;
typedef const struct ef_map_seen map;

/*
 * A metric: its name without "ebpf_fleet_", type and help, how many decimal digits lie
 * between the number's unit and the metric's, and one getter. A getter gives -1 for what
 * is not measured: no sample rather than a 0. What has labels of its own has put().
 */
struct metric {
	const char *name, *type, *help;
	int digits;
	int64_t (*of_host)(host *);
	int64_t (*of_feature)(feature *);
	int64_t (*of_program)(program *);
	int64_t (*of_map)(map *);
	void (*put)(FILE *out, host *snapshot);
};

/* ---- numbers ---- */

static int64_t counted(struct ef_count count) {
	return count.known ? (int64_t)count.n : -1;
}

static int64_t wanted(feature *one) {
	return one->wanted;
}

static int64_t sample_every(feature *one) {
	return one->sample_every;
}

static int64_t produced(feature *one) {
	return counted(one->produced);
}

static int64_t delivered(feature *one) {
	return counted(one->delivered);
}

static int64_t dropped(feature *one) {
	return counted(one->dropped);
}

static int64_t sampled_out(feature *one) {
	return counted(one->sampled_out);
}

static int64_t in_flight(feature *one) {
	return counted(one->in_flight);
}

static int64_t aggregated(feature *one) {
	return one->has_events ? (int64_t)one->aggregated : -1;
}

static int64_t weighted(feature *one) {
	return counted(one->weighted);
}

static int64_t thinned(feature *one) {
	return one->fair ? (int64_t)(one->fairness.past + one->fairness.thinned) : -1;
}

static int64_t lag_bytes(feature *one) {
	return one->consumer.reads ? (int64_t)one->consumer.lag_bytes : -1;
}

static int64_t lag_ns(feature *one) {
	return one->consumer.reads ? one->consumer.lag_ns : -1;
}

static int64_t unkept(feature *one) {
	return one->counters ? (int64_t)one->series->unkept.raw : -1;
}

static int64_t run_time_ns(program *one) {
	return one->run_time_ns;
}

static int64_t run_cnt(program *one) {
	return one->run_cnt;
}

static int64_t entries(map *one) {
	return one->entries;
}

static int64_t max_entries(map *one) {
	return one->known ? one->max_entries : -1;
}

static int64_t memory_bytes(map *one) {
	return one->memory_bytes;
}

static int64_t orders_unknown(host *snapshot) {
	return (int64_t)snapshot->orders->n_unknown;
}

static int64_t desired_error(host *snapshot) {
	return *snapshot->desired_error != 0;
}

static int64_t policy_error(host *snapshot) {
	return *snapshot->policy_error != 0;
}

static int64_t stats_enabled(host *snapshot) {
	return snapshot->stats_enabled;
}

static int64_t trust_withdrawn(host *snapshot) {
	return snapshot->bundle && ef_standing_is_lost(snapshot->standing);
}

static int64_t clock_unknown(host *snapshot) {
	return !snapshot->clock_known;
}

static int64_t lease_left_ns(host *snapshot) {
	const struct ef_lease *lease = snapshot->lease;

	int64_t left_ns = lease->expires_ns - snapshot->boottime_ns;

	if (!lease->there || lease->unusable)
		return -1;
	return left_ns > 0 ? left_ns : 0;
}

static int64_t unshipped(host *snapshot) {
	return snapshot->shipping.segment < 0 ? -1 : snapshot->shipping.unshipped_bytes;
}

static int64_t unshipped_deleted(host *snapshot) {
	return snapshot->shipping.segment < 0 ? -1 : snapshot->shipping.unshipped_deleted_bytes;
}

static int64_t audit_lost(host *snapshot) {
	return (int64_t)snapshot->audit_lost;
}

static int64_t cpu_ns(host *snapshot) {
	return snapshot->cpu_ns;
}

static int64_t rss_bytes(host *snapshot) {
	return snapshot->rss_bytes;
}

static int64_t time_unix_ns(host *snapshot) {
	return snapshot->time_unix_ns;
}

/* ---- the table ---- */

static const struct metric metrics[] = {
    {.name = "build_info",
     .type = "gauge",
     .help = "The loader and the bundle that it runs.",
     .put = ef_put_build},
    {.name = "kernel_info",
     .type = "gauge",
     .help = "The kernel of this host.",
     .put = ef_put_kernel},
    {.name = "feature_profile",
     .type = "gauge",
     .help = "1 for the profile that the feature has reached.",
     .put = ef_put_profiles},
    {.name = "feature_state",
     .type = "gauge",
     .help = "1 for the state that the feature is in.",
     .put = ef_put_states},
    {.name = "feature_wanted",
     .type = "gauge",
     .help = "1 where desired.json wants the feature.",
     .of_feature = wanted},
    {.name = "feature_sample_every",
     .type = "gauge",
     .help = "Of how many events one is measured; 1 is every event.",
     .of_feature = sample_every},
    {.name = "feature_unobserved_seconds_total",
     .type = "counter",
     .help = "Time in which the feature was wanted and not attached, by why.",
     .put = ef_put_unobserved},
    {.name = "events_produced_total",
     .type = "counter",
     .help = "Events that happened while the feature was attached.",
     .of_feature = produced},
    {.name = "events_delivered_total",
     .type = "counter",
     .help = "Events that reached their metric or file.",
     .of_feature = delivered},
    {.name = "events_weighted_total",
     .type = "counter",
     .help =
	 "Events that the delivered and the aggregated ones stand for: their weights, added up.",
     .of_feature = weighted},
    {.name = "events_dropped_total",
     .type = "counter",
     .help = "Events that were lost.",
     .of_feature = dropped},
    {.name = "events_sampled_out_total",
     .type = "counter",
     .help = "Events that sampling passed over.",
     .of_feature = sampled_out},
    {.name = "events_in_flight",
     .type = "gauge",
     .help = "Events that have no outcome yet.",
     .of_feature = in_flight},
    {.name = "program_run_seconds_total",
     .type = "counter",
     .help = "Time the program ran.",
     .digits = 9,
     .of_program = run_time_ns},
    {.name = "program_runs_total",
     .type = "counter",
     .help = "Times the program ran.",
     .of_program = run_cnt},
    {.name = "map_entries", .type = "gauge", .help = "Entries in the map.", .of_map = entries},
    {.name = "map_max_entries",
     .type = "gauge",
     .help = "Entries that the map can hold.",
     .of_map = max_entries},
    {.name = "map_memory_bytes",
     .type = "gauge",
     .help = "Kernel memory of the map.",
     .of_map = memory_bytes},
    {.name = "consumer_lag_bytes",
     .type = "gauge",
     .help = "Bytes in the ring or perf buffers that wait to be read.",
     .of_feature = lag_bytes},
    {.name = "consumer_lag_seconds",
     .type = "gauge",
     .help = "Greatest age of an event that waited to be read, since the last status.",
     .digits = 9,
     .of_feature = lag_ns},
    {.name = "backpressure_active",
     .type = "gauge",
     .help = "1 while the feature's reader is behind and its contract's backpressure acts.",
     .put = ef_put_backpressure},
    {.name = "events_aggregated_total",
     .type = "counter",
     .help = "Events told together, as one line a group; they are among the sampled out.",
     .of_feature = aggregated},
    {.name = "events_thinned_total",
     .type = "counter",
     .help = "Events of loud sources, passed over so that the others find room; they are among the "
	     "sampled out.",
     .of_feature = thinned},
    {.name = "source_thinned_events",
     .type = "gauge",
     .help =
	 "Thinned events of the users that are thinned most, while their source is in the table.",
     .put = ef_put_sources},
    {.name = "kill_engaged",
     .type = "gauge",
     .help = "1 while a kill order of this scope holds.",
     .put = ef_put_kills},
    {.name = "kill_orders_unknown",
     .type = "gauge",
     .help = "Kill orders with a name that holds nothing off.",
     .of_host = orders_unknown},
    {.name = "desired_error",
     .type = "gauge",
     .help = "1 while desired.json cannot be followed.",
     .of_host = desired_error},
    {.name = "stats_enabled",
     .type = "gauge",
     .help = "1 while the loader has run time statistics on.",
     .of_host = stats_enabled},
    {.name = "policy_error",
     .type = "gauge",
     .help = "1 while policy.json cannot be followed.",
     .of_host = policy_error},
    {.name = "trust_withdrawn",
     .type = "gauge",
     .help = "1 while this host does not trust the release that the loader holds.",
     .of_host = trust_withdrawn},
    {.name = "clock_unknown",
     .type = "gauge",
     .help = "1 while the clock stands before a time that has been for certain.",
     .of_host = clock_unknown},
    {.name = "lease_left_seconds",
     .type = "gauge",
     .help = "Until the lease of a rollout runs out.",
     .digits = 9,
     .of_host = lease_left_ns},
    {.name = "events_unshipped_bytes",
     .type = "gauge",
     .help = "Bytes of events in the files that the log shipper has not taken.",
     .of_host = unshipped},
    {.name = "events_unshipped_deleted_bytes_total",
     .type = "counter",
     .help = "Bytes of events that were removed before the log shipper took them.",
     .of_host = unshipped_deleted},
    {.name = "audit_lost_total",
     .type = "counter",
     .help = "Audit records that could not be written to their file.",
     .of_host = audit_lost},
    {.name = "loader_cpu_seconds_total",
     .type = "counter",
     .help = "CPU time of the loader process.",
     .digits = 9,
     .of_host = cpu_ns},
    {.name = "loader_resident_memory_bytes",
     .type = "gauge",
     .help = "Memory of the loader process.",
     .of_host = rss_bytes},
    {.name = "status_timestamp_seconds",
     .type = "gauge",
     .help = "When this was written.",
     .digits = 9,
     .of_host = time_unix_ns},
    {.name = "series_unkept_total",
     .type = "counter",
     .help = "Counted by a counters signal for labels for which there was no room.",
     .of_feature = unkept},
    {.name = "budget_used_ratio",
     .type = "gauge",
     .help = "What the feature used in the last interval, as a part of its limit.",
     .put = ef_put_uses},
    {.name = "host_budget_used_ratio",
     .type = "gauge",
     .help = "What loader and features used in the last interval, as a part of the host's limit.",
     .put = ef_put_host_uses},
    {.name = "feature_degraded",
     .type = "gauge",
     .help = "1 for the deepest step down that the feature stands on.",
     .put = ef_put_steps},
    {.name = "degradations_total",
     .type = "counter",
     .help = "Steps down that a budget took the feature.",
     .put = ef_put_falls},
};

static void put_number(FILE *out, const struct metric *metric, const char *one, const char *label,
		       const char *of, int64_t number) {
	if (number < 0)
		return;
	fprintf(out, "ebpf_fleet_%s", metric->name);
	if (label)
		fprintf(out, "{feature=\"%s\",%s=\"%s\"}", one, label, of);
	else if (one)
		fprintf(out, "{feature=\"%s\"}", one);
	fputc(' ', out);
	ef_prom_decimal(out, (uint64_t)number, metric->digits);
	fputc('\n', out);
}

static void put_of_feature(FILE *out, const struct metric *metric, feature *one) {
	if (metric->of_feature)
		put_number(out, metric, one->name, NULL, NULL, metric->of_feature(one));
	for (size_t i = 0; metric->of_program && i < one->n_programs; i++)
		put_number(out, metric, one->name, "program", one->programs[i].name,
			   metric->of_program(&one->programs[i]));
	for (size_t i = 0; metric->of_map && i < one->n_maps; i++)
		put_number(out, metric, one->name, "map", one->maps[i].name,
			   metric->of_map(&one->maps[i]));
}

static void put_metric(FILE *out, const struct metric *metric, host *snapshot) {
	ef_prom_head(out, metric->name, metric->type, metric->help);
	if (metric->put)
		metric->put(out, snapshot);
	if (metric->of_host)
		put_number(out, metric, NULL, NULL, NULL, metric->of_host(snapshot));
	for (size_t i = 0; i < snapshot->n; i++)
		put_of_feature(out, metric, &snapshot->features[i]);
}

char *ef_metrics_text(host *snapshot, size_t *size) {
	char *text = NULL;
	FILE *out = ef_must(open_memstream(&text, size));

	for (size_t i = 0; i < EF_ARRAY_SIZE(metrics); i++)
		put_metric(out, &metrics[i], snapshot);
	ef_signals_put(out, snapshot);
	fclose(out);
	return ef_must(text);
}
