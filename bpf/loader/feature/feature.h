/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FEATURE_H
#define EF_FEATURE_H

#include <bpf/libbpf.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"
#include "bundle/bundle.h"
#include "bundle/contract.h"
#include "events/backpressure.h"
#include "events/fairness.h"
#include "events/feed.h"
#include "events/sink.h"
#include "feature/account.h"
#include "feature/budget.h"
#include "feature/degrade.h"
#include "feature/series.h"
#include "feature/state.h"
#include "feature/unobserved.h"
#include "kernel/kernel.h"

/* As in bpf/include/ef_gate.h. */
enum ef_gate { EF_GATE_OPEN, EF_GATE_CLOSED, EF_GATE_FROM, EF_GATE_UNTIL };

/* What was asked of it, by desired.json and the host's limits in force. */
struct ef_live_asked {
	bool wanted;
	uint32_t sample_every;
	uint32_t quota;	     /* events that may pass in a window; 0: all. See fairness.h */
	int64_t rate;	     /* that the quota was made of, a second; -1: none */
	enum ef_gate gate;   /* of a handover; see ef_live_set_gate() */
	int64_t gate_ns;     /* CLOCK_MONOTONIC */
	int moment_fd;	     /* the map ef_moment of the loader before; 0: its own */
	int64_t gap_ns;	     /* in which neither loader counted */
	bool unshared;	     /* it counts only once the loader before has let go */
	bool after_handover; /* it is attached only then */
	struct ef_amounts limits;
};

/* What was decided of it, and why. */
struct ef_live_decided {
	enum ef_state state;
	bool due; /* should be attached and was not tried yet */
	struct ef_reason reason;
	int64_t retry_ns;     /* CLOCK_MONOTONIC, after a shortage; 0: it is not tried again */
	unsigned retries;     /* after shortages, since it was attached */
	struct ef_fall fall;  /* how far its budgets took it down */
	int64_t thinned_from; /* events a second when a budget began to thin; -1: not measured */
	json_t *was_attached; /* what it was last, for the record of its detachment; owned */
};

/* What is attached; all of it is owned, and goes when it is detached. */
struct ef_live_attached {
	const struct ef_contract_variant *variant; /* NULL: not attached */
	struct bpf_object *object;
	struct bpf_link **links; /* only through links.c: the guard cuts them too */
	size_t n_links;
	int64_t cut_ns;		    /* CLOCK_BOOTTIME, when they were cut last; 0: never */
	bool without_full;	    /* attached while a budget forbade the full variants */
	bool ran;		    /* a program was attached: its maps may have counted */
	struct ef_feed *feed;	    /* events only */
	struct ef_tally tally;	    /* of this attachment */
	struct ef_tally aggregated; /* of this attachment: records that were told together */
};

/* What it counted, in this and earlier attachments: nothing goes back when it is detached. */
struct ef_live_counted {
	struct ef_account account; /* of the last interval */
	struct ef_unobserved unobserved;
	struct ef_backpressure backpressure;
	struct ef_fairness fairness;
	int64_t checked_ns, told_ns; /* CLOCK_MONOTONIC; see ef_live_check_backpressure() */
	int64_t consumer_ns, consumer_before_ns; /* the loader's CPU time for its records */
	struct ef_counters past;
	struct ef_sum past_hist[EF_HIST_SLOTS + 1];
	uint64_t past_lost;
	bool lost_known;	 /* it was read through perf buffers, which count losses */
	struct ef_series series; /* counters only */
	uint64_t past_aggregated;
	uint64_t past_weighted; /* of records: see ef_live_weighted() */
	bool unweighed;		/* something was counted whose weight is not known */
};

/* A feature on this host. */
struct ef_live {
	const struct ef_feature *files; /* the bundle's */
	struct ef_contract contract;	/* owned */
	struct ef_live_asked asked;
	struct ef_live_decided decided;
	struct ef_live_attached attached;
	struct ef_live_counted counted;
};

#endif
