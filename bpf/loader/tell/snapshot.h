/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SNAPSHOT_H
#define EF_SNAPSHOT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "bundle/bundle.h"
#include "control/inputs.h"
#include "events/sink.h"
#include "feature/snapshot.h"
#include "kernel/kernel.h"

/*
 * The loader at one moment. Whatever tells of it (status.json, metrics.prom, the list
 * of programs) renders this and asks nothing else, so that all of them say the same.
 * Pointers are borrowed from the service, which must outlive it; features is owned.
 */
struct ef_snapshot {
	int64_t time_unix_ns, boottime_ns, started_boottime_ns;
	const char *boot_id;
	int pid;

	const char *state; /* "running", "idle", "killed" or "refused" */
	struct ef_reason reason;
	const struct ef_bundle *bundle; /* NULL: refused */
	const struct ef_kernel *kernel;
	const struct ef_orders *orders;
	const struct ef_policy *policy;		  /* in force */
	const struct ef_lease *lease;		  /* as read last */
	const struct ef_standing *standing;	  /* as judged last */
	const char *desired_error, *policy_error; /* of what was read last; "" when good */
	bool clock_known;
	bool stats_enabled; /* the kernel counts runs */
	uint64_t audit_lost;
	struct ef_sink_state shipping;
	const json_t *compatibility; /* the last such event; NULL: none yet */

	/* The loader's own process; -1: not known. */
	int64_t cpu_ns, rss_bytes;
	int64_t map_memory_bytes; /* of all maps of all features */

	bool measured; /* an interval was measured: used is of the last one */
	struct ef_amounts used;

	size_t n; /* the bundle's features, then those that are wanted and not in it */
	struct ef_feature_snapshot *features;
};

#endif
