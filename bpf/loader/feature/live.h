/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LIVE_H
#define EF_LIVE_H

#include "feature/feature.h"

/* Who is told while variants are tried, each after it was. */
struct ef_live_told {
	void *data;
	void (*loaded)(void *data, const struct ef_live *live);
	void (*refused)(void *data, const struct ef_live *live, const char *variant,
			const struct ef_reason *why);
};

const char *ef_live_name(const struct ef_live *live);

/*
 * Attach the first variant that this kernel takes. True: attached, with state
 * and reason set (the reason is why a better variant did not work, EF_OK when
 * none was tried in vain). False: disabled, with the reason of the last one.
 */
bool ef_live_attach(struct ef_live *live, const struct ef_kernel *kernel, struct ef_sink *sink,
		    const struct ef_live_told *told);

/*
 * Variant, programs and links, as an audit record has them: those that are attached, or
 * of a feature that is not, those that were when ef_live_remember() was called; NULL:
 * none. A new reference.
 */
json_t *ef_live_what(const struct ef_live *live);

/* Keep what is attached for the record of its detachment; forget it. */
void ef_live_remember(struct ef_live *live);
void ef_live_forget(struct ef_live *live);

/*
 * Detach all programs and no more: the quickest way to off. ef_live_detach()
 * does the rest. True: there were some. From any thread.
 */
bool ef_live_cut(struct ef_live *live);

/* Is it attached, and was not cut since? */
bool ef_live_linked(const struct ef_live *live);

/* Take note of what it lacks now; after every change of what it is. */
void ef_live_note(struct ef_live *live);

/* The kernel's numbers of its links (-1: not known) in *ids, which the caller frees; how many. */
size_t ef_live_links(const struct ef_live *live, int64_t **ids);

/*
 * Detach all and close programs and maps; what the maps counted is kept, what
 * was in flight is read out of the ring or counted as dropped. State and
 * reason are the caller's to set.
 */
void ef_live_detach(struct ef_live *live, struct ef_sink *sink);

/* Disabled, and not to be tried now: for good, or until a shortage may be over. */
bool ef_live_tried_in_vain(const struct ef_live *live);

/* Attached, but a CPU came or went: its buffers must be made again. */
bool ef_live_stale(const struct ef_live *live);

/* Set the sampling; takes effect at once when attached. 0 or -errno;
 * -EOPNOTSUPP: the object knows no sampling. */
int ef_live_sample(struct ef_live *live, uint32_t sample_every);

/* Attached, and its programs ask a gate whether they count. */
bool ef_live_has_gate(const struct ef_live *live);

/* Let it count from or until an instant (CLOCK_MONOTONIC), always or never. 0 or -errno. */
int ef_live_set_gate(struct ef_live *live, enum ef_gate gate, int64_t at_ns);

/* Its map ef_moment; -ENOENT: it has none. */
int ef_live_moment_fd(const struct ef_live *live);

/*
 * Does its contract say that no source takes the others' room? Then a budget thins
 * by the rate that may pass, which the loudest feel first, and not by sampling.
 */
bool ef_live_is_fair(const struct ef_live *live);

/* Set the rate that may pass, a second (-1: any); takes effect at once. 0 or -errno. */
int ef_live_limit(struct ef_live *live, int64_t rate);

/* Read who was thinned, and say whether that begins or ends. */
enum ef_fairness_change ef_live_check_fairness(struct ef_live *live, int64_t now_ns);

/*
 * See how far its reader is behind, and do what the contract says of that:
 * aggregate at once, sample when the caller applies ef_backpressure_thinning().
 * Of two checks within EF_BACKPRESSURE_CHECK_NS the second sees nothing.
 */
enum ef_backpressure_change ef_live_check_backpressure(struct ef_live *live, int64_t now_ns);

/* Records that were told together, over this process's life. */
uint64_t ef_live_aggregated(const struct ef_live *live);

/* Attached, and its object knows sampling. */
bool ef_live_can_sample(const struct ef_live *live);

/* The sampling that the object does: 1 when it knows none. */
uint32_t ef_live_sample_every(const struct ef_live *live);

/*
 * Totals over this process's life. An object that counts nothing (accounting:
 * none) has delivered what reached the events file, and dropped what its perf
 * buffers lost; the rest is 0 and means nothing.
 */
void ef_live_counters(const struct ef_live *live, struct ef_counters *counters);
bool ef_live_knows_delivered(const struct ef_live *live);
bool ef_live_knows_dropped(const struct ef_live *live);

/* Records lost by the perf buffers' own count, over this process's life. */
uint64_t ef_live_lost(const struct ef_live *live);
int ef_live_hist(const struct ef_live *live, struct ef_sum *hist);

/*
 * The sum of the weights of what was delivered or told together, over this process's life: an
 * estimate of produced without dropped. "hist" is what ef_live_hist() read, so that both are of one
 * moment, or NULL where it could not. False: not known, objects of its do not weigh.
 */
bool ef_live_weighted(const struct ef_live *live, const struct ef_sum *hist, uint64_t *weighted);

/* "full", "reduced" or "disabled". */
const char *ef_live_profile(const struct ef_live *live);

/* After ef_live_detach(): the contract and what it counted. */
void ef_live_free(struct ef_live *live);

#endif
