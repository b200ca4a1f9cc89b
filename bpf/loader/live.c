/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "live.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bpflog.h"
#include "log.h"
#include "must.h"
#include "object.h"
#include "util.h"
#include "walk.h"

#define TELL_NS 1000000000 /* the longest that records wait to be told together */
#define FIRST_RETRY_S 5	   /* doubled with each, up to 320 s */

/* As in bpf/include/ef.h. */
struct config {
	uint32_t sample_every;
	uint32_t quota;
};

/* Links are attached by the loop and detached by the loop or the guard. */
static pthread_mutex_t links_lock = PTHREAD_MUTEX_INITIALIZER;

/* Others' maps of global variables keep the short name of their contract. */
static const struct bpf_map *find_map(const struct ef_live *live, const char *name) {
	const struct bpf_map *map;

	bpf_object__for_each_map (map, live->object)
		if (!strcmp(ef_object_map_name(map), name))
			return map;
	return NULL;
}

static int map_fd(const struct ef_live *live, const char *name) {
	const struct bpf_map *map = find_map(live, name);

	return map ? bpf_map__fd(map) : -ENOENT;
}

/* Others' objects need not know of sampling: all is as if it were 1. */
static bool has_config(const struct ef_live *live) {
	return !live->contract.third_party || map_fd(live, "ef_config") >= 0;
}

static int write_config(const struct ef_live *live) {
	struct config config = {.sample_every = live->sample_every, .quota = live->quota};
	uint32_t zero = 0;
	int fd = map_fd(live, "ef_config");

	if (!has_config(live))
		return 0;
	if (fd < 0)
		return fd;
	return bpf_map_update_elem(fd, &zero, &config, BPF_ANY) ? -errno : 0;
}

/* Variants for kernels without ring buffer hold the signal's other map. */
static const struct bpf_map *events_map(const struct ef_live *live,
					const struct ef_signal *signal) {
	const struct bpf_map *map = find_map(live, signal->map);

	return map || !signal->perf_map ? map : find_map(live, signal->perf_map);
}

static int open_feed(struct ef_live *live, struct ef_sink *sink) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);
	struct ef_feed_source source = {
	    .btf = bpf_object__btf(live->object),
	    .feature = live->files->name,
	    .third_party = live->contract.third_party,
	    .aggregated = &live->aggregated,
	};

	if (!signal)
		return 0;
	source.map = events_map(live, signal);
	source.event_struct = signal->event;
	source.event = signal->name;
	source.aggregate_by = signal->aggregate_by;
	live->backpressure.kind = signal->backpressure;
	if (!source.map)
		return -ENOENT;
	live->feed = ef_feed_new(&source, sink, &live->tally);
	if (!live->feed)
		return -errno;
	live->lost_known |= ef_feed_lost(live->feed) >= 0;
	return 0;
}

static int open_series(struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_COUNTERS);
	const struct bpf_map *map = signal ? find_map(live, signal->map) : NULL;

	if (!signal)
		return 0;
	if (!map)
		return -ENOENT;
	return ef_series_begin(&live->series, map, bpf_object__btf(live->object), signal->key);
}

static int check_hist(const struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_HISTOGRAM);
	uint64_t hist[EF_HIST_SLOTS + 1] = {0};
	const struct bpf_map *map = signal ? find_map(live, signal->map) : NULL;

	if (!signal)
		return 0;
	if (!map)
		return -ENOENT;
	if (!ef_walk_can(map) || bpf_map__key_size(map) != sizeof(uint32_t))
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
		      live->variant->name, strerror(-err), remedy);
}

static void unprepared(const struct ef_live *live, int err, struct ef_reason *why) {
	if (err == -EPERM || err == -EACCES)
		refused(live, err, why);
	else if (misfit(err))
		ef_reason_set(why, "EF_LOAD_REJECTED",
			      "variant '%s' is not as its contract says: %s; build the release "
			      "again",
			      live->variant->name, misfit(err));
	else
		ef_reason_set(
		    why, "EF_LOAD_REJECTED",
		    "the maps of variant '%s' cannot be read: %s (%d); see that the loader has "
		    "descriptors and memory for its buffers",
		    live->variant->name, strerror(-err), -err);
}

/* What must be in place before the first program runs. */
static int prepare(struct ef_live *live, struct ef_sink *sink, struct ef_reason *why) {
	int err = write_config(live);

	if (!err && live->contract.counted && map_fd(live, "ef_counters") < 0)
		err = -ENOENT;
	if (!err && ef_live_is_fair(live) &&
	    (map_fd(live, EF_FAIRNESS_MAP) < 0 || map_fd(live, EF_FAIRNESS_ALL) < 0))
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

static int attach_program(struct ef_live *live, const char *name, struct bpf_link **link,
			  struct ef_reason *why) {
	struct bpf_program *program = bpf_object__find_program_by_name(live->object, name);

	ef_bpflog_reset();
	*link = bpf_program__attach(program);
	if (!*link) {
		int err = -errno;

		ef_object_attach_reason(name, err, why);
		return err;
	}
	live->ran = true;
	return 0;
}

static void destroy_links(struct bpf_link **links, size_t n) {
	for (size_t i = 0; i < n; i++)
		bpf_link__destroy(links[i]);
	free(links);
}

/* From here on the guard may detach them. */
static void hand_over_links(struct ef_live *live, struct bpf_link **links, size_t n) {
	pthread_mutex_lock(&links_lock);
	live->links = links;
	live->n_links = n;
	pthread_mutex_unlock(&links_lock);
}

static int attach_programs(struct ef_live *live, struct ef_reason *why) {
	json_t *programs = live->variant->programs, *name;
	struct bpf_link **links =
	    ef_must(calloc(json_array_size(programs), sizeof(struct bpf_link *)));
	size_t i;

	json_array_foreach (programs, i, name) {
		int err = attach_program(live, json_string_value(name), &links[i], why);

		if (err) {
			destroy_links(links, i);
			return err;
		}
	}
	hand_over_links(live, links, i);
	return 0;
}

bool ef_live_cut(struct ef_live *live) {
	bool linked;

	pthread_mutex_lock(&links_lock);
	linked = live->n_links;
	destroy_links(live->links, live->n_links);
	live->links = NULL;
	live->n_links = 0;
	pthread_mutex_unlock(&links_lock);
	return linked;
}

bool ef_live_linked(const struct ef_live *live) {
	bool linked;

	pthread_mutex_lock(&links_lock);
	linked = live->n_links;
	pthread_mutex_unlock(&links_lock);
	return linked;
}

json_t *ef_live_links_json(const struct ef_live *live) {
	json_t *list = json_array();

	pthread_mutex_lock(&links_lock);
	for (size_t i = 0; i < live->n_links; i++) {
		int64_t id = ef_link_id(bpf_link__fd(live->links[i]));

		json_array_append_new(list, ef_json_measured(id));
	}
	pthread_mutex_unlock(&links_lock);
	return list;
}

static void close_object(struct ef_live *live) {
	ef_series_end(&live->series, live->files->name);
	ef_feed_free(live->feed);
	bpf_object__close(live->object);
	ef_backpressure_forget(&live->backpressure);
	live->feed = NULL;
	live->object = NULL;
	live->variant = NULL;
}

static void record_load(const struct ef_live *live) {
	const struct ef_who who = {.source = "loader", .uid = -1};
	struct ef_reason why;

	ef_reason_set(&why, "EF_OK", "the kernel took variant %s", live->variant->name);
	ef_audit_feature(live->audit, "load", live, &why, &who);
}

/* Everything of one variant, or nothing of it. */
static int attach_variant(struct ef_live *live, size_t index, const struct ef_kernel *kernel,
			  struct ef_sink *sink, struct ef_reason *why) {
	const struct ef_contract_variant *variant = &live->contract.variants[index];
	int err;

	live->object = ef_object_open(&live->files->variants[index], variant, kernel, why);
	if (!live->object)
		return -EINVAL;
	live->variant = variant;
	err =
	    ef_object_check_record(live->object, &live->contract, variant->name, why) ? -EINVAL : 0;
	if (!err)
		err = ef_object_load(live->object, variant, kernel, why);
	if (!err)
		record_load(live);
	if (!err)
		err = prepare(live, sink, why);
	if (!err)
		err = attach_programs(live, why);
	if (!err)
		return 0;
	ef_live_detach(live, sink);
	return err;
}

/* A shortage that may be over in a while; a verifier's refusal never is. */
static bool is_shortage(int err) {
	return err == -ENOMEM || err == -EAGAIN || err == -EBUSY || err == -EMFILE ||
	       err == -ENFILE;
}

static void set_attached(struct ef_live *live, const struct ef_reason *better) {
	live->state = EF_STATE_ATTACHED;
	live->retry_ns = 0;
	live->retries = 0;
	ef_reason_set(&live->reason, better->code ? better->code : "EF_OK", "%s",
		      better->code ? better->text : "attached");
}

static void set_disabled(struct ef_live *live, const struct ef_reason *why, bool shortage) {
	int64_t wait_s = FIRST_RETRY_S << (live->retries < 6 ? live->retries : 6);

	live->state = EF_STATE_DISABLED;
	live->reason = *why;
	live->retry_ns = 0;
	if (!shortage)
		return;
	live->retries++;
	live->retry_ns = ef_clock_ns(CLOCK_MONOTONIC) + wait_s * 1000000000;
	ef_reason_set(&live->reason, why->code, "%s; it is tried again in %lld s", why->text,
		      (long long)wait_s);
}

bool ef_live_attach(struct ef_live *live, const struct ef_kernel *kernel, struct ef_sink *sink) {
	struct ef_reason why = {0}, better = {0};
	bool shortage = false;

	live->without_full = live->fall.reduced;
	for (size_t i = 0; i < live->contract.n_variants; i++) {
		int err;

		if (live->without_full && live->contract.variants[i].full)
			continue;
		err = attach_variant(live, i, kernel, sink, &why);

		if (!err) {
			set_attached(live, &better);
			return true;
		}
		shortage |= is_shortage(err);
		ef_audit_refused(live->audit, live, live->contract.variants[i].name, &why);
		ef_reason_set(&better, why.code, "variant %s: %s", live->contract.variants[i].name,
			      why.text);
		ef_warn("feature %s: %s (%s)", live->files->name, better.text, better.code);
	}
	set_disabled(live, &better, shortage);
	return false;
}

bool ef_live_tried_in_vain(const struct ef_live *live) {
	return live->state == EF_STATE_DISABLED && strcmp(live->reason.code, "EF_EXPIRED") &&
	       (!live->retry_ns || ef_clock_ns(CLOCK_MONOTONIC) < live->retry_ns);
}

bool ef_live_stale(const struct ef_live *live) {
	return live->feed && ef_feed_stale(live->feed);
}

/* What the programs still left in the ring; they run no more. */
static void drain(struct ef_live *live, struct ef_sink *sink) {
	while (live->feed && ef_feed_read(live->feed, 1024))
		;
	if (live->feed)
		ef_feed_tell(live->feed);
	ef_sink_settle(sink);
}

static const struct bpf_map *hist_map(const struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_HISTOGRAM);

	return signal && live->object ? find_map(live, signal->map) : NULL;
}

static void read_fairness(struct ef_live *live) {
	if (live->object)
		ef_fairness_read(&live->fairness, map_fd(live, EF_FAIRNESS_MAP),
				 map_fd(live, EF_FAIRNESS_ALL));
}

static void keep_counters(struct ef_live *live) {
	struct ef_counters total;
	const struct bpf_map *hist = hist_map(live);

	ef_live_counters(live, &total);
	/* What began and has no outcome by now will have none: the maps go. */
	total.dropped += ef_counters_in_flight(&total);
	live->past = total;
	live->past_lost = ef_live_lost(live);
	live->past_aggregated = ef_live_aggregated(live);
	if (ef_live_is_fair(live))
		read_fairness(live);
	ef_fairness_forget(&live->fairness);
	memset(&live->tally, 0, sizeof(live->tally));
	memset(&live->aggregated, 0, sizeof(live->aggregated));
	if (hist && ef_hist_add(hist, live->past_hist))
		ef_err("feature %s: its histogram could not be read before it was detached",
		       live->files->name);
}

void ef_live_detach(struct ef_live *live, struct ef_sink *sink) {
	if (!live->object)
		return;
	ef_live_cut(live);
	if (live->ran) {
		drain(live, sink);
		keep_counters(live);
	}
	live->ran = false;
	close_object(live);
}

int ef_live_sample(struct ef_live *live, uint32_t sample_every) {
	if (live->sample_every == sample_every)
		return 0;
	live->sample_every = sample_every;
	if (!live->object)
		return 0;
	return has_config(live) ? write_config(live) : sample_every > 1 ? -EOPNOTSUPP : 0;
}

bool ef_live_is_fair(const struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);

	return signal && signal->fair;
}

int ef_live_limit(struct ef_live *live, int64_t rate) {
	uint32_t quota = rate < 0 ? 0 : ef_fairness_quota(rate);

	live->rate = rate;
	if (quota == live->quota)
		return 0;
	live->quota = quota;
	return live->object ? write_config(live) : 0;
}

enum ef_fairness_change ef_live_look_fair(struct ef_live *live, int64_t now_ns) {
	if (!ef_live_is_fair(live))
		return EF_FAIRNESS_SAME;
	read_fairness(live);
	return ef_fairness_look(&live->fairness, now_ns);
}

/* In the kernel and at the sink, in this attachment. */
static uint64_t dropped_so_far(const struct ef_live *live) {
	struct ef_counters counters;

	ef_live_counters(live, &counters);
	return counters.dropped;
}

enum ef_backpressure_change ef_live_look(struct ef_live *live, int64_t now_ns) {
	struct ef_backpressure *state = &live->backpressure;
	enum ef_backpressure_change change;
	struct ef_strain strain;

	if (!live->feed || state->kind == EF_BACKPRESSURE_DROP ||
	    now_ns - live->looked_ns < EF_BACKPRESSURE_LOOK_NS)
		return EF_BACKPRESSURE_SAME;
	live->looked_ns = now_ns;
	strain = (struct ef_strain){ef_feed_lag(live->feed), ef_feed_ring_bytes(live->feed),
				    dropped_so_far(live)};
	change = ef_backpressure_look(state, &strain);
	if (state->kind != EF_BACKPRESSURE_AGGREGATE)
		return change;
	ef_feed_aggregate(live->feed, state->level > 0);
	if (now_ns - live->told_ns >= TELL_NS) {
		live->told_ns = now_ns;
		ef_feed_tell(live->feed);
	}
	return change;
}

uint64_t ef_live_aggregated(const struct ef_live *live) {
	return live->past_aggregated + live->aggregated.written;
}

bool ef_live_can_sample(const struct ef_live *live) {
	return live->object && has_config(live);
}

uint32_t ef_live_sample_every(const struct ef_live *live) {
	return live->object && !has_config(live) ? 1 : live->sample_every;
}

uint64_t ef_live_lost(const struct ef_live *live) {
	int64_t lost = live->feed ? ef_feed_lost(live->feed) : 0;

	return live->past_lost + (lost > 0 ? (uint64_t)lost : 0);
}

/*
 * The kernel counts what went into the ring; delivered is what reached the
 * file. Of an object that counts nothing a perf buffer's losses are all that
 * is known of drops; one that counts has counted each of them itself.
 */
static void count_the_way(const struct ef_live *live, struct ef_counters *now) {
	if (!live->feed)
		return;
	now->delivered = live->tally.written;
	now->dropped += live->tally.dropped + live->aggregated.dropped;
	now->sampled_out += live->aggregated.written;
	if (!live->contract.counted)
		now->dropped += ef_live_lost(live) - live->past_lost;
}

void ef_live_counters(const struct ef_live *live, struct ef_counters *counters) {
	struct ef_counters now = {0};

	*counters = live->past;
	if (!live->object)
		return;
	if (live->contract.counted && ef_counters_read(map_fd(live, "ef_counters"), &now))
		return;
	count_the_way(live, &now);
	counters->produced += now.produced;
	counters->delivered += now.delivered;
	counters->dropped += now.dropped;
	counters->sampled_out += now.sampled_out;
}

bool ef_live_knows_delivered(const struct ef_live *live) {
	return live->contract.counted || ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);
}

bool ef_live_knows_dropped(const struct ef_live *live) {
	return live->contract.counted || live->lost_known;
}

int ef_live_hist(const struct ef_live *live, uint64_t *hist) {
	const struct bpf_map *map = hist_map(live);

	memcpy(hist, live->past_hist, sizeof(live->past_hist));
	return map ? ef_hist_add(map, hist) : 0;
}

void ef_live_free(struct ef_live *live) {
	ef_series_free(&live->series);
	json_decref(live->was_attached);
	ef_contract_free(&live->contract);
}

const char *ef_live_profile(const struct ef_live *live) {
	return ef_contract_profile(live->state == EF_STATE_ATTACHED ? live->variant : NULL);
}
