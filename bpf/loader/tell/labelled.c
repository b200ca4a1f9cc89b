/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tell/labelled.h"

#include <inttypes.h>
#include <string.h>

#include "base/prom.h"
#include "base/version.h"

typedef const struct ef_snapshot host;
typedef const struct ef_feature_snapshot feature;

void ef_put_build(FILE *out, host *snapshot) {
	fputs("ebpf_fleet_build_info{loader_version=", out);
	ef_prom_label(out, EF_LOADER_VERSION);
	fputs(",bundle_version=", out);
	ef_prom_label(out, snapshot->bundle ? ef_bundle_version(snapshot->bundle) : "");
	fputs(",bundle_digest=", out);
	ef_prom_label(out, snapshot->bundle ? ef_bundle_digest(snapshot->bundle) : "");
	fputs("} 1\n", out);
}

void ef_put_kernel(FILE *out, host *snapshot) {
	fputs("ebpf_fleet_kernel_info{release=", out);
	ef_prom_label(out, ef_kernel_release(snapshot->kernel));
	fputs(",family=", out);
	ef_prom_label(out, ef_kernel_family(snapshot->kernel));
	fputs("} 1\n", out);
}

void ef_put_profiles(FILE *out, host *snapshot) {
	static const char *const profiles[] = {"full", "reduced", "disabled"};

	for (size_t i = 0; i < snapshot->n; i++)
		for (int j = 0; j < 3; j++)
			fprintf(out,
				"ebpf_fleet_feature_profile{feature=\"%s\",profile=\"%s\"} %d\n",
				snapshot->features[i].name, profiles[j],
				!strcmp(profiles[j], snapshot->features[i].profile));
}

/* The state that holds is 1 and the others are 0, so that a change ends no series. */
void ef_put_states(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++)
		for (enum ef_state state = 0; state < EF_N_STATES; state++)
			fprintf(out, "ebpf_fleet_feature_state{feature=\"%s\",state=\"%s\"} %d\n",
				snapshot->features[i].name, ef_state_name(state),
				snapshot->features[i].state == state);
}

/* All reasons always, so that one that begins is seen to grow. */
void ef_put_unobserved(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++)
		for (enum ef_gap gap = EF_GAP_NONE + 1; gap < EF_N_GAPS; gap++) {
			fprintf(out,
				"ebpf_fleet_feature_unobserved_seconds_total{feature=\"%s\","
				"reason=\"%s\"} ",
				snapshot->features[i].name, ef_gap_name(gap));
			ef_prom_decimal(out, snapshot->features[i].unobserved.ns[gap], 9);
			fputc('\n', out);
		}
}

void ef_put_backpressure(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++) {
		feature *one = &snapshot->features[i];

		if (one->consumer.reads)
			fprintf(out,
				"ebpf_fleet_backpressure_active{feature=\"%s\",policy=\"%s\"} %d\n",
				one->name, ef_backpressure_name(one->consumer.policy),
				one->consumer.behind);
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

void ef_put_sources(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++)
		if (snapshot->features[i].fair)
			put_thinned_uids(out, snapshot->features[i].name,
					 &snapshot->features[i].fairness);
}

/* One series for each scope; the same order may be in both folders. */
void ef_put_kills(FILE *out, host *snapshot) {
	const struct ef_orders *orders = snapshot->orders;

	for (size_t i = 0; i < orders->n; i++) {
		bool again = false;

		for (size_t j = 0; j < i; j++)
			again |= !strcmp(ef_order_scope(&orders->orders[i]),
					 ef_order_scope(&orders->orders[j]));
		if (again)
			continue;
		fputs("ebpf_fleet_kill_engaged{scope=", out);
		ef_prom_label(out, ef_order_scope(&orders->orders[i]));
		fputs("} 1\n", out);
	}
}

/* Parts of the limit; without a limit, or not measured, there is none. A limit of 0 has +Inf. */
static void put_ratio(FILE *out, const char *metric, const char *feature, enum ef_budget budget,
		      int64_t used, int64_t limit) {
	if (used < 0 || limit < 0)
		return;
	fprintf(out, "ebpf_fleet_%s{", metric);
	if (feature)
		fprintf(out, "feature=\"%s\",", feature);
	fprintf(out, "budget=\"%s\"} ", ef_budget_name(budget));
	if (limit || !used)
		ef_prom_decimal(out, limit ? (uint64_t)((__int128)used * 1000000 / limit) : 0, 6);
	else
		fputs("+Inf", out);
	fputc('\n', out);
}

static void put_use(FILE *out, const char *metric, const char *feature,
		    const struct ef_amounts *used, const struct ef_amounts *limits) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_budget_is_of((enum ef_budget)i, !feature))
			put_ratio(out, metric, feature, (enum ef_budget)i,
				  ef_amount(used, (enum ef_budget)i),
				  ef_amount(limits, (enum ef_budget)i));
}

void ef_put_uses(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++)
		if (snapshot->features[i].measured)
			put_use(out, "budget_used_ratio", snapshot->features[i].name,
				&snapshot->features[i].used, &snapshot->features[i].limits);
}

void ef_put_host_uses(FILE *out, host *snapshot) {
	if (snapshot->measured)
		put_use(out, "host_budget_used_ratio", NULL, &snapshot->used,
			&snapshot->policy->host);
}

void ef_put_steps(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++) {
		feature *one = &snapshot->features[i];

		for (enum ef_step step = EF_STEP_SAMPLING; one->shipped && step <= EF_STEP_SHED;
		     step++)
			fprintf(out, "ebpf_fleet_feature_degraded{feature=\"%s\",step=\"%s\"} %d\n",
				one->name, ef_step_name(step), ef_fall_step(&one->fall) == step);
	}
}

/* A series for each reason from the start: the first step is an increase of 1. */
static void put_taken(FILE *out, feature *one, bool of_host) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (ef_budget_is_of((enum ef_budget)i, of_host))
			fprintf(out,
				"ebpf_fleet_degradations_total{feature=\"%s\",reason_code=\"%s\"} "
				"%" PRIu64 "\n",
				one->name, ef_budget_code(of_host, (enum ef_budget)i),
				one->fall.taken[of_host][i]);
}

void ef_put_falls(FILE *out, host *snapshot) {
	for (size_t i = 0; i < snapshot->n; i++) {
		if (!snapshot->features[i].shipped)
			continue;
		put_taken(out, &snapshot->features[i], false);
		put_taken(out, &snapshot->features[i], true);
	}
}
