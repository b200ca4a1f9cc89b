/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/live.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/util.h"
#include "feature/object.h"
#include "feature/parts.h"
#include "feature/seen.h"
#include "kernel/mapread.h"

#define TELL_NS 1000000000 /* the longest that records wait to be told together */
#define FIRST_RETRY_S 5	   /* doubled with each, up to 320 s */

static void close_object(struct ef_live *live) {
	ef_series_end(&live->counted.series, ef_live_name(live));
	ef_feed_free(live->attached.feed);
	bpf_object__close(live->attached.object);
	ef_backpressure_forget(&live->counted.backpressure);
	live->attached.feed = NULL;
	live->attached.object = NULL;
	live->attached.variant = NULL;
}

/* What tells a program from every other: no counts, which a record would freeze. */
static json_t *program_json(const struct bpf_program *program) {
	struct ef_program_seen seen;
	json_t *doc;

	ef_program_see(program, false, &seen);
	doc = ef_program_json(&seen);
	json_object_del(doc, "run_cnt");
	json_object_del(doc, "run_time_ns");
	json_object_del(doc, "verified_insns");
	return doc;
}

static json_t *attached_json(const struct ef_live *live) {
	json_t *programs = json_array(), *links = json_array(), *name;
	_cleanup_free_ int64_t *ids = NULL;
	size_t i, n = ef_live_links(live, &ids);

	json_array_foreach (live->attached.variant->programs, i, name)
		json_array_append_new(programs,
				      program_json(bpf_object__find_program_by_name(
					  live->attached.object, json_string_value(name))));
	for (i = 0; i < n; i++)
		json_array_append_new(links, ef_json_measured(ids[i]));
	return json_pack("{s:s, s:o, s:o}", "variant", live->attached.variant->name, "programs",
			 programs, "links", links);
}

json_t *ef_live_what(const struct ef_live *live) {
	if (live->attached.object && (!live->decided.was_attached || ef_live_linked(live)))
		return attached_json(live);
	return json_incref(live->decided.was_attached);
}

void ef_live_remember(struct ef_live *live) {
	ef_live_forget(live);
	live->decided.was_attached = attached_json(live);
}

void ef_live_forget(struct ef_live *live) {
	json_decref(live->decided.was_attached);
	live->decided.was_attached = NULL;
}

/* Everything of one variant, or nothing of it. */
static int attach_variant(struct ef_live *live, size_t index, const struct ef_kernel *kernel,
			  struct ef_sink *sink, const struct ef_live_told *told,
			  struct ef_reason *why) {
	const struct ef_contract_variant *variant = &live->contract.variants[index];
	int err;

	live->attached.object = ef_object_open(&live->files->variants[index], variant, kernel, why);
	if (!live->attached.object)
		return -EINVAL;
	live->attached.variant = variant;
	err = ef_object_check_record(live->attached.object, &live->contract, variant->name, why)
		  ? -EINVAL
		  : 0;
	if (!err && ef_live_share_moment(live))
		ef_warn("feature %s: it judges by moments of its own", ef_live_name(live));
	if (!err)
		err = ef_object_load(live->attached.object, variant, kernel, why);
	if (!err)
		told->loaded(told->data, live);
	if (!err)
		err = ef_live_prepare(live, sink, why);
	if (!err)
		err = ef_live_attach_programs(live, why);
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
	live->decided.state = EF_STATE_ATTACHED;
	live->decided.retry_ns = 0;
	live->decided.retries = 0;
	ef_reason_set(&live->decided.reason,
		      ef_reason_code(better) ? ef_reason_code(better) : "EF_OK", "%s",
		      ef_reason_code(better) ? ef_reason_text(better) : "attached");
}

static void set_disabled(struct ef_live *live, const struct ef_reason *why, bool shortage) {
	int64_t wait_s = FIRST_RETRY_S << (live->decided.retries < 6 ? live->decided.retries : 6);

	live->decided.state = EF_STATE_DISABLED;
	live->decided.reason = *why;
	live->decided.retry_ns = 0;
	if (!shortage)
		return;
	live->decided.retries++;
	live->decided.retry_ns = ef_clock_ns(CLOCK_MONOTONIC) + wait_s * 1000000000;
	ef_reason_set(&live->decided.reason, ef_reason_code(why), "%s; it is tried again in %lld s",
		      ef_reason_text(why), (long long)wait_s);
}

bool ef_live_attach(struct ef_live *live, const struct ef_kernel *kernel, struct ef_sink *sink,
		    const struct ef_live_told *told) {
	struct ef_reason why = {0}, better = {0};
	bool shortage = false;

	live->attached.without_full = live->decided.fall.reduced;
	for (size_t i = 0; i < live->contract.n_variants; i++) {
		int err;

		if (live->attached.without_full && live->contract.variants[i].full)
			continue;
		err = attach_variant(live, i, kernel, sink, told, &why);

		if (!err) {
			set_attached(live, &better);
			return true;
		}
		shortage |= is_shortage(err);
		told->refused(told->data, live, live->contract.variants[i].name, &why);
		ef_reason_set(&better, ef_reason_code(&why), "variant %s: %s",
			      live->contract.variants[i].name, ef_reason_text(&why));
		ef_warn("feature %s: %s (%s)", ef_live_name(live), ef_reason_text(&better),
			ef_reason_code(&better));
	}
	set_disabled(live, &better, shortage);
	return false;
}

void ef_live_note(struct ef_live *live) {
	enum ef_gap gap = ef_gap_of(live->asked.wanted, ef_live_linked(live), live->decided.state,
				    live->decided.reason.code);

	live->asked.after_handover &= gap == EF_GAP_ATTACHING;
	if (live->asked.after_handover)
		gap = EF_GAP_HANDOVER;

	ef_unobserved_note(&live->counted.unobserved, gap, live->attached.cut_ns,
			   ef_clock_ns(CLOCK_BOOTTIME));
}

bool ef_live_tried_in_vain(const struct ef_live *live) {
	return live->decided.state == EF_STATE_DISABLED &&
	       strcmp(ef_reason_code(&live->decided.reason), "EF_EXPIRED") &&
	       (!live->decided.retry_ns || ef_clock_ns(CLOCK_MONOTONIC) < live->decided.retry_ns);
}

bool ef_live_stale(const struct ef_live *live) {
	return live->attached.feed && ef_feed_stale(live->attached.feed);
}

/* What the programs still left in the ring; they run no more. */
static void drain(struct ef_live *live, struct ef_sink *sink) {
	while (live->attached.feed && ef_feed_read(live->attached.feed, 1024))
		;
	if (live->attached.feed)
		ef_feed_tell(live->attached.feed);
	ef_sink_settle(sink);
}

void ef_live_detach(struct ef_live *live, struct ef_sink *sink) {
	if (!live->attached.object)
		return;
	ef_live_cut(live);
	if (live->attached.ran) {
		drain(live, sink);
		ef_live_keep_counters(live);
	}
	live->attached.ran = false;
	close_object(live);
}

int ef_live_sample(struct ef_live *live, uint32_t sample_every) {
	if (live->asked.sample_every == sample_every)
		return 0;
	live->asked.sample_every = sample_every;
	if (!live->attached.object)
		return 0;
	return ef_live_has_config(live) ? ef_live_write_config(live)
	       : sample_every > 1	? -EOPNOTSUPP
					: 0;
}

bool ef_live_is_fair(const struct ef_live *live) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);

	return signal && signal->fair;
}

int ef_live_limit(struct ef_live *live, int64_t rate) {
	uint32_t quota = rate < 0 ? 0 : ef_fairness_quota(rate);

	live->asked.rate = rate;
	if (quota == live->asked.quota)
		return 0;
	live->asked.quota = quota;
	return live->attached.object ? ef_live_write_config(live) : 0;
}

enum ef_fairness_change ef_live_check_fairness(struct ef_live *live, int64_t now_ns) {
	if (!ef_live_is_fair(live))
		return EF_FAIRNESS_SAME;
	ef_live_read_fairness(live);
	return ef_fairness_check(&live->counted.fairness, now_ns);
}

enum ef_backpressure_change ef_live_check_backpressure(struct ef_live *live, int64_t now_ns) {
	struct ef_backpressure *state = &live->counted.backpressure;
	enum ef_backpressure_change change;
	struct ef_strain strain;

	if (!live->attached.feed || state->kind == EF_BACKPRESSURE_DROP ||
	    now_ns - live->counted.checked_ns < EF_BACKPRESSURE_CHECK_NS)
		return EF_BACKPRESSURE_SAME;
	live->counted.checked_ns = now_ns;
	strain = (struct ef_strain){ef_feed_lag(live->attached.feed),
				    ef_feed_ring_bytes(live->attached.feed), ef_live_dropped(live)};
	change = ef_backpressure_check(state, &strain);
	if (state->kind != EF_BACKPRESSURE_AGGREGATE)
		return change;
	ef_feed_aggregate(live->attached.feed, state->level > 0);
	if (now_ns - live->counted.told_ns >= TELL_NS) {
		live->counted.told_ns = now_ns;
		ef_feed_tell(live->attached.feed);
	}
	return change;
}

bool ef_live_can_sample(const struct ef_live *live) {
	return live->attached.object && ef_live_has_config(live);
}

uint32_t ef_live_sample_every(const struct ef_live *live) {
	return live->attached.object && !ef_live_has_config(live) ? 1 : live->asked.sample_every;
}

void ef_live_free(struct ef_live *live) {
	ef_series_free(&live->counted.series);
	json_decref(live->decided.was_attached);
	ef_contract_free(&live->contract);
}

const char *ef_live_profile(const struct ef_live *live) {
	return ef_contract_profile(live->decided.state == EF_STATE_ATTACHED ? live->attached.variant
									    : NULL);
}

const char *ef_live_name(const struct ef_live *live) {
	return live->files->name;
}
