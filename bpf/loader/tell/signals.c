/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tell/signals.h"

#include <inttypes.h>

#include "base/prom.h"

#define BUCKETS 40 /* 2^40 ns are 18 minutes; what is above is in +Inf */

typedef const struct ef_snapshot host;
typedef const struct ef_feature_snapshot feature;

/* Decimal digits from the raw unit to the base unit. */
static int scale_digits(enum ef_scale scale) {
	if (scale == EF_SCALE_NANOSECONDS)
		return 9;
	return scale == EF_SCALE_MICROSECONDS ? 6 : 0;
}

static uint64_t of(const struct ef_sum *sum, bool weighted) {
	return weighted ? sum->weighted : sum->raw;
}

/* Slot i holds 2^i ... 2^(i+1) - 1, and the upper end belongs to the bucket. */
static void put_histogram(FILE *out, const struct ef_signal *signal, const struct ef_sum *hist,
			  bool weighted) {
	int digits = scale_digits(signal->scale);
	uint64_t sum = 0;
	char name[128];

	snprintf(name, sizeof(name), "%s%s", signal->name, weighted ? "_weighted" : "");
	ef_prom_head(out, name, "histogram", signal->help);
	for (int i = 0; i < EF_HIST_SLOTS; i++) {
		sum += of(&hist[i], weighted);
		if (i >= BUCKETS)
			continue;
		fprintf(out, "ebpf_fleet_%s_bucket{le=\"", name);
		ef_prom_decimal(out, (2ULL << i) - 1, digits);
		fprintf(out, "\"} %" PRIu64 "\n", sum);
	}
	fprintf(out, "ebpf_fleet_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, sum);
	fprintf(out, "ebpf_fleet_%s_sum ", name);
	ef_prom_decimal(out, of(&hist[EF_HIST_SUM], weighted), digits);
	fprintf(out, "\nebpf_fleet_%s_count %" PRIu64 "\n", name, sum);
}

/* `counters` signals: one metric each. */
static void put_series(FILE *out, feature *one, bool weighted) {
	char name[128];

	snprintf(name, sizeof(name), "%s%s_total", one->counters->name,
		 weighted ? "_weighted" : "");
	ef_prom_head(out, name, "counter", one->counters->help);
	ef_series_print(one->series, out, name, weighted);
}

/* As it was measured, and beside it what that stands for, where it was weighed. */
void ef_signals_put(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++) {
		feature *one = &snapshot->features[i];

		for (int weighted = 0; one->histogram && weighted <= one->weighted.known;
		     weighted++)
			put_histogram(out, one->histogram, one->hist, weighted);
	}
	for (size_t i = 0; i < snapshot->n; i++) {
		feature *one = &snapshot->features[i];

		for (int weighted = 0; one->counters && weighted <= one->weighted.known; weighted++)
			put_series(out, one, weighted);
	}
}
