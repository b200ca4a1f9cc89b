/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/live.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "feature/object.h"
#include "feature/parts.h"
#include "kernel/mapread.h"

static int open_feed(struct ef_live *live, struct ef_sink *sink) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);
	struct ef_feed_source source = {
	    .btf = bpf_object__btf(live->attached.object),
	    .feature = ef_live_name(live),
	    .third_party = live->contract.third_party,
	    .aggregated = &live->attached.aggregated,
	};

	if (!signal)
		return 0;
	source.map = ef_live_events_map(live, signal);
	source.event_struct = signal->event;
	source.event = signal->name;
	source.aggregate_by = signal->aggregate_by;
	live->counted.backpressure.kind = signal->backpressure;
	if (!source.map)
		return -ENOENT;
	live->attached.feed = ef_feed_new(&source, sink, &live->attached.tally);
	if (!live->attached.feed)
		return -errno;
	live->counted.lost_known |= ef_feed_lost(live->attached.feed) >= 0;
	return 0;
}

static int open_series(struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_COUNTERS);
	const struct bpf_map *map = signal ? ef_live_map(live, signal->map) : NULL;

	if (!signal)
		return 0;
	if (!map)
		return -ENOENT;
	return ef_series_begin(&live->counted.series, map, bpf_object__btf(live->attached.object),
			       signal->key);
}

static int check_hist(const struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_HISTOGRAM);
	struct ef_sum hist[EF_HIST_SLOTS + 1] = {{0}};
	const struct bpf_map *map = signal ? ef_live_map(live, signal->map) : NULL;

	if (!signal)
		return 0;
	if (!map)
		return -ENOENT;
	if (!ef_mapread_can(map) || bpf_map__key_size(map) != sizeof(uint32_t))
		return -EPROTOTYPE;
	return ef_hist_add(map, hist);
}

/* What is not as the contract says; the kernel's refusals keep their own names. */
static const char *misfit(int err) {
	switch (-err) {
	case ENOENT:
		return "a map or struct that it names is not there (clang leaves a struct out of "
		       "the BTF that no global variable, map or function uses)";
	case EPROTOTYPE:
		return "a signal's map is of a type or value that it cannot have";
	case EMSGSIZE:
		return "the struct `key` is not as long as its map's key";
	case E2BIG:
		return "the struct `event` is longer than 8192 bytes";
	case ENOKEY:
		return "the struct `event` has no such field as `aggregate_by` names";
	case EINVAL:
		return "a signal's struct has a bit field, or `event` begins with no u64 ktime_ns";
	default:
		return NULL;
	}
}

/* Debian's kernels ask for CAP_SYS_ADMIN above 2, which the loader has given up by then. */
static bool is_paranoid(void) {
	_cleanup_fclose_ FILE *file = fopen("/proc/sys/kernel/perf_event_paranoid", "re");
	int level;

	return file && fscanf(file, "%d", &level) == 1 && level > 2;
}

static void refused(const struct ef_live *live, int err, struct ef_reason *why) {
	const char *remedy = is_paranoid() ? "set kernel.perf_event_paranoid to 2, above it this "
					     "kernel keeps perf buffers to CAP_SYS_ADMIN"
					   : "give the loader CAP_BPF and CAP_PERFMON";

	ef_reason_set(why, "EF_PERMISSION",
		      "the kernel does not let this process read the maps of variant '%s': %s; %s",
		      live->attached.variant->name, strerror(-err), remedy);
}

static void unprepared(const struct ef_live *live, int err, struct ef_reason *why) {
	if (err == -EPERM || err == -EACCES)
		refused(live, err, why);
	else if (misfit(err))
		ef_reason_set(why, "EF_LOAD_REJECTED",
			      "variant '%s' is not as its contract says: %s; build the release "
			      "again",
			      live->attached.variant->name, misfit(err));
	else
		ef_reason_set(
		    why, "EF_LOAD_REJECTED",
		    "the maps of variant '%s' cannot be read: %s (%d); see that the loader has "
		    "descriptors and memory for its buffers",
		    live->attached.variant->name, strerror(-err), -err);
}

/* What must be in place before the first program runs. */
int ef_live_prepare(struct ef_live *live, struct ef_sink *sink, struct ef_reason *why) {
	int err = ef_live_write_config(live);

	if (!err && live->contract.counted && ef_live_map_fd(live, "ef_counters") < 0)
		err = -ENOENT;
	if (!err && ef_live_is_fair(live) &&
	    (ef_live_map_fd(live, EF_FAIRNESS_MAP) < 0 ||
	     ef_live_map_fd(live, EF_FAIRNESS_ALL) < 0))
		err = -ENOENT;
	if (!err)
		err = check_hist(live);
	if (!err)
		err = open_series(live);
	if (!err)
		err = open_feed(live, sink);
	if (err)
		unprepared(live, err, why);
	return err;
}
