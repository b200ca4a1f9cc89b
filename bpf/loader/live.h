/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LIVE_H
#define EF_LIVE_H

#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdint.h>

#include "account.h"
#include "audit.h"
#include "backpressure.h"
#include "budget.h"
#include "bundle.h"
#include "contract.h"
#include "degrade.h"
#include "fairness.h"
#include "feed.h"
#include "kernel.h"
#include "reason.h"
#include "series.h"
#include "sink.h"

enum ef_state {
	EF_STATE_OFF,
	EF_STATE_ATTACHED,
	EF_STATE_KILLED,
	EF_STATE_DISABLED,
	EF_STATE_SHED, /* by a budget */
};

/* A feature on this host: what should be, what is, and what it counted. */
struct ef_live {
	const struct ef_feature *files; /* the bundle's */
	struct ef_contract contract;	/* owned */
	bool wanted;			/* desired.json says so */
	uint32_t sample_every;
	uint32_t quota; /* events that may pass in a window; 0: all. See fairness.h */
	int64_t rate;	/* that the quota was made of, a second; -1: none */
	enum ef_state state;
	bool due; /* should be attached and was not tried yet */
	struct ef_reason reason;
	int64_t retry_ns;	/* CLOCK_MONOTONIC, after a shortage; 0: it is not tried again */
	unsigned retries;	/* after shortages, since it was attached */
	struct ef_audit *audit; /* borrowed; NULL: nothing is recorded */
	json_t *was_attached;	/* what it was last, for the record of its detachment; owned */

	struct ef_account account;
	struct ef_amounts limits; /* in force */
	struct ef_backpressure backpressure;
	struct ef_fairness fairness;
	int64_t thinned_from; /* events a second when a budget began to thin; -1: not measured */
	int64_t looked_ns, told_ns;		 /* CLOCK_MONOTONIC; see ef_live_look() */
	struct ef_fall fall;			 /* how far its budgets took it down */
	int64_t consumer_ns, consumer_before_ns; /* the loader's CPU time for its records */

	/* While attached; all owned. */
	const struct ef_contract_variant *variant; /* NULL: not attached */
	struct bpf_object *object;
	struct bpf_link **links; /* only through the functions below: the guard cuts them too */
	size_t n_links;
	bool without_full;    /* attached while a budget forbade the full variants */
	bool ran;	      /* a program was attached: its maps may have counted */
	struct ef_feed *feed; /* events only */

	/* Of this and earlier attachments: nothing goes backwards when a feature is detached. */
	struct ef_counters past;
	uint64_t past_hist[EF_HIST_SLOTS + 1];
	uint64_t past_lost;
	bool lost_known;	    /* it was read through perf buffers, which count losses */
	struct ef_series series;    /* counters only */
	struct ef_tally tally;	    /* of this attachment */
	struct ef_tally aggregated; /* of this attachment: records that were told together */
	uint64_t past_aggregated;
};

/*
 * Attach the first variant that this kernel takes. True: attached, with state
 * and reason set (the reason is why a better variant did not work, EF_OK when
 * none was tried in vain). False: disabled, with the reason of the last one.
 */
bool ef_live_attach(struct ef_live *live, const struct ef_kernel *kernel, struct ef_sink *sink);

/*
 * Detach all programs and no more: the quickest way to off. ef_live_detach()
 * does the rest. True: there were some. From any thread.
 */
bool ef_live_cut(struct ef_live *live);

/* Is it attached, and was not cut since? */
bool ef_live_linked(const struct ef_live *live);

/* status.json's "links": a new reference. */
json_t *ef_live_links_json(const struct ef_live *live);

/*
 * Detach all and close programs and maps; what the maps counted is kept, what
 * was in flight is read out of the ring or counted as dropped. State and
 * reason are the caller's to set.
 */
void ef_live_detach(struct ef_live *live, struct ef_sink *sink);

/* Disabled, and not to be tried now: for good, or until a shortage may be over. */
bool ef_live_tried_in_vain(const struct ef_live *live);

/* Attached, but a CPU came or went: its buffers must be made anew. */
bool ef_live_stale(const struct ef_live *live);

/* Set the sampling; takes effect at once when attached. 0 or -errno;
 * -EOPNOTSUPP: the object knows no sampling. */
int ef_live_sample(struct ef_live *live, uint32_t sample_every);

/*
 * Does its contract say that no source takes the others' room? Then a budget thins
 * by the rate that may pass, which the loudest feel first, and not by sampling.
 */
bool ef_live_is_fair(const struct ef_live *live);

/* Set the rate that may pass, a second (-1: any); takes effect at once. 0 or -errno. */
int ef_live_limit(struct ef_live *live, int64_t rate);

/* Read who was thinned, and say whether that begins or ends. */
enum ef_fairness_change ef_live_look_fair(struct ef_live *live, int64_t now_ns);

/*
 * See how far its reader is behind, and do what the contract says of that:
 * aggregate at once, sample when the caller applies ef_backpressure_thinning().
 * Of two looks within EF_BACKPRESSURE_LOOK_NS the second sees nothing.
 */
enum ef_backpressure_change ef_live_look(struct ef_live *live, int64_t now_ns);

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
int ef_live_hist(const struct ef_live *live, uint64_t *hist);

/* "full", "reduced" or "disabled". */
const char *ef_live_profile(const struct ef_live *live);

/* After ef_live_detach(): the contract and what it counted. */
void ef_live_free(struct ef_live *live);

#endif
