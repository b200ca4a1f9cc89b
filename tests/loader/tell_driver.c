/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the loader tells of one snapshot that is made up here: "metrics", "status" or "programs".
 * No two numbers in it are equal, so that one that stands in another's place is seen. The
 * features: "one" has everything, "two" is attached and nothing of it is known, "three" is
 * wanted and no one shipped it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tell/metrics.h"
#include "tell/status.h"

#define SECOND 1000000000LL

static struct ef_order orders[] = {
    {.scope = (char *)"feature.one", .path = (char *)"/etc/feature.one"},
    {.scope = (char *)"feature.one", .path = (char *)"/run/feature.one"},
    {.scope = (char *)"family.6.1", .path = (char *)"/run/family.6.1"},
};
static char *unknown[] = {(char *)"/run/globl", (char *)"/run/x"};
static struct ef_inputs inputs = {
    .orders = {.n = 3, .orders = orders, .n_unknown = 2, .unknown = unknown},
    .policy = {.host = {.of = {-1, 20, 6400, 12800, 2000, -1}}},
    .lease = {.there = true, .expires_ns = 107 * SECOND + 250000000, .uid = 0, .holder = "h"},
};
static struct ef_kernel kernel = {.release = "6.1.0-\"x\"", .family = "6.1", .btf_fd = -1};
static struct ef_bundle bundle = {.name = (char *)"fleet",
				  .version = (char *)"1.2.3",
				  .digest = "abc",
				  .sequence = 77,
				  .signer = (char *)"me@x"};
static struct ef_signal counters = {.kind = EF_SIGNAL_COUNTERS, .name = "calls", .help = "Calls."};
static struct ef_signal histogram = {.kind = EF_SIGNAL_HISTOGRAM,
				     .name = "wait_seconds",
				     .help = "Waits.",
				     .scale = EF_SCALE_NANOSECONDS};
static struct ef_series series = {.unkept = {61, 0}};
static struct ef_program_seen programs[] = {
    {.name = "p",
     .known = true,
     .id = 71,
     .tag = "0123456789abcdef",
     .run_cnt = 41,
     .run_time_ns = 42,
     .verified_insns = 43},
    {.name = "q", .known = false, .id = -1, .run_cnt = -1, .run_time_ns = -1, .verified_insns = -1},
};
static int64_t links[] = {72, -1};
static struct ef_map_seen maps[] = {
    {.name = "m",
     .known = true,
     .id = 73,
     .type = "hash",
     .max_entries = 51,
     .entries = 52,
     .memory_bytes = 53},
    {.name = "n",
     .known = false,
     .id = -1,
     .type = "array",
     .evicts = true,
     .max_entries = 54,
     .entries = -1,
     .memory_bytes = -1},
};
static struct ef_feature_snapshot features[] = {
    {.name = "one",
     .shipped = true,
     .wanted = true,
     .state = EF_STATE_ATTACHED,
     .profile = "full",
     .variant = "ring",
     .reason = {.code = "EF_OK", .text = "fine"},
     .sample_every = 2,
     .n_programs = 2,
     .n_links = 2,
     .n_maps = 2,
     .programs = programs,
     .links = links,
     .maps = maps,
     .produced = {true, 31},
     .delivered = {true, 32},
     .dropped = {true, 33},
     .sampled_out = {true, 34},
     .in_flight = {true, 35},
     .consumer = {.reads = true,
		  .lag_bytes = 36,
		  .ring_bytes = 37,
		  .lag_ns = 2500000,
		  .lost = {true, 38},
		  .unwritten = 39,
		  .policy = EF_BACKPRESSURE_SAMPLE,
		  .behind = true,
		  .thinning = 4},
     .aggregated = 44,
     .weighted = {true, 45},
     .has_events = true,
     .counters = &counters,
     .series = &series,
     .histogram = &histogram,
     .fair = true,
     .fairness = {.past = 100,
		  .thinned = 11,
		  .produced = 12,
		  .active = true,
		  .n_sources = 5,
		  .others_thinned = 7,
		  .n_top = 3,
		  .top = {{1, 1000, 8, 5}, {2, 1001, 9, 3}, {3, 1000, 6, 2}}},
     .rate = 45,
     .fall = {.thinning = 4,
	      .taken = {{1, 2, 3, 4, 5, 6}, {7, 8, 9, 10, 11, 12}},
	      .budget = EF_BUDGET_CPU,
	      .measured = 46,
	      .limit = 47,
	      .since_ns = 48},
     .measured = true,
     .used = {.of = {450000, 5, -1, 300, 0, 1}},
     .limits = {.of = {900000, 10, -1, 1200, 7, 0}}},
    {.name = "two",
     .shipped = true,
     .state = EF_STATE_DISABLED,
     .profile = "disabled",
     .reason = {.code = "EF_X", .text = "why"},
     .sample_every = 1,
     .rate = -1,
     .consumer = {.lag_ns = -1}},
    {.name = "three",
     .wanted = true,
     .profile = "disabled",
     .sample_every = 3,
     .reason = {.code = "EF_Y", .text = "unshipped"},
     .rate = -1,
     .consumer = {.lag_ns = -1}},
};
static struct ef_snapshot snapshot = {.time_unix_ns = 1700000000 * SECOND + 5,
				      .boottime_ns = 100 * SECOND,
				      .started_boottime_ns = 90 * SECOND,
				      .boot_id = "boot",
				      .pid = 21,
				      .state = "running",
				      .reason = {.code = "EF_OK", .text = "all is well"},
				      .bundle = &bundle,
				      .kernel = &kernel,
				      .orders = &inputs.orders,
				      .policy = &inputs.policy,
				      .lease = &inputs.lease,
				      .standing = &inputs.standing,
				      .desired_error = inputs.desired_error,
				      .policy_error = inputs.policy_error,
				      .clock_known = true,
				      .stats_enabled = true,
				      .audit_lost = 22,
				      .shipping = {.segment = 81,
						   .cursor_segment = 82,
						   .cursor_offset = 83,
						   .unshipped_bytes = 84,
						   .unshipped_deleted_bytes = 85},
				      .cpu_ns = 1500000000,
				      .rss_bytes = 24,
				      .map_memory_bytes = 25,
				      .measured = true,
				      .used = {.of = {-1, 5, 1600, 12801, 0, -1}},
				      .n = 3,
				      .features = features};

/* Every slot has a number of its own: 1 in the first, 64 in the last, which only +Inf has. */
static void fill_histogram(void) {
	for (int i = 0; i < EF_HIST_SLOTS; i++)
		features[0].hist[i] = (struct ef_sum){(uint64_t)i + 1, 10 * ((uint64_t)i + 1)};
	features[0].hist[EF_HIST_SUM] = (struct ef_sum){3 * SECOND + 1, 30 * SECOND + 10};
}

static void fill_series(void) {
	static const char labels[] = "call=\"read\"";

	ef_dict_init(&series.totals, 62);
	*ef_dict_need(&series.totals, labels, strlen(labels)) = (struct ef_sum){63, 630};
}

/* What a word changes. */
static void change(const char *word) {
	if (!strcmp(word, "bare")) {
		snapshot.stats_enabled = snapshot.clock_known = false;
		snapshot.shipping.segment = -1;
		snapshot.measured = features[0].measured = false;
		inputs.standing.lost = true;
		ef_refuse(&inputs.standing.why, "EF_SIG_REVOKED", "", "revoked");
		strcpy(inputs.desired_error, "x");
		strcpy(inputs.policy_error, "x");
	} else if (!strcmp(word, "refused")) {
		inputs.standing.lost = true;
		snapshot.bundle = NULL;
		snapshot.n = 0;
	} else if (!strcmp(word, "lease=over"))
		inputs.lease.expires_ns = 99 * SECOND;
	else if (!strcmp(word, "lease=none"))
		inputs.lease.there = false;
	else if (!strcmp(word, "lease=unusable"))
		inputs.lease.unusable = true;
	else if (!strcmp(word, "us"))
		histogram.scale = EF_SCALE_MICROSECONDS;
	else if (!strcmp(word, "bytes"))
		histogram.scale = EF_SCALE_BYTES;
}

int main(int argc, char **argv) {
	char *text;
	size_t size;

	if (argc < 2)
		return 2;
	fill_histogram();
	fill_series();
	for (int i = 1; i < EF_N_GAPS; i++)
		features[0].unobserved.ns[i] = (uint64_t)i * SECOND + SECOND / 2;
	for (int i = 2; i < argc; i++)
		change(argv[i]);
	if (!strcmp(argv[1], "metrics"))
		text = ef_metrics_text(&snapshot, &size);
	else if (!strcmp(argv[1], "programs"))
		text = ef_status_programs(&snapshot, &size);
	else {
		json_t *status = ef_status_json(&snapshot);

		text = json_dumps(status, 0);
		json_decref(status);
	}
	fputs(text, stdout);
	free(text);
	ef_dict_clear(&series.totals);
	return 0;
}
