/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_STATE_H
#define EF_RUN_STATE_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"
#include "bundle/bundle.h"
#include "bundle/standing.h"
#include "control/inputs.h"
#include "events/sink.h"
#include "feature/budget.h"
#include "feature/live.h"
#include "kernel/kernel.h"

/* Where the service finds and leaves things; strings are the command line's. */
struct ef_options {
	const char *bundle;
	const char *etc;
	const char *run;
	const char *state;
	const char *log;
	const char *trust;   /* NULL: ETC/trust/allowed_signers */
	const char *revoked; /* NULL: ETC/trust/revoked_keys */
	unsigned interval;   /* seconds */
	bool handover;	     /* take over from the loader that runs */
};

/* Of the next loader: attaching to counting; of the running one: met to leaving. */
enum ef_handover_phase {
	EF_HANDOVER_NONE,
	EF_HANDOVER_ATTACHING, /* its gates are closed */
	EF_HANDOVER_READY,     /* all is attached, the instant is not known */
	EF_HANDOVER_COUNTING,  /* from the instant on; the running one reads its rings still */
	EF_HANDOVER_MET,       /* the next one attaches */
	EF_HANDOVER_CLOSING,   /* counts until the instant, and reads what it has */
	EF_HANDOVER_LEAVING,   /* stops, and says so to the next one */
};

#define EF_HANDOVER_MOMENTS 128

struct ef_handover {
	enum ef_handover_phase phase;
	int fd;	       /* of the other loader; 0: none */
	int timer_fd;  /* likewise */
	int parent_fd; /* who started the next loader and waits; 0: no one */
	bool failed;
	bool rings_read;    /* all that the running one had in them is written */
	json_t *attached;   /* the running one's features, by name; owned */
	json_t *shared;	    /* of them, that both count; owned */
	int64_t instant_ns; /* CLOCK_MONOTONIC */
	int64_t cut_ns;	    /* CLOCK_BOOTTIME, when the running one detached */
	size_t n_moments;
	struct {
		char feature[128];
		int fd;
	} moments[EF_HANDOVER_MOMENTS]; /* until the features are opened */
};

/* All that the running loader knows. */
struct ef_service {
	struct ef_options options;
	struct ef_kernel kernel;
	char boot_id[40];
	int64_t started_boottime_ns;
	int64_t began_boottime_ns, began_unix_ns; /* when it took the time first */
	struct ef_bundle *bundle;		  /* NULL: refused */
	struct ef_refusal refusal;
	size_t n;
	struct ef_live *lives;
	struct ef_inputs inputs;
	char *signers_path, *revoked_path; /* ETC's; what is in force is in trust */
	struct ef_trust_paths trust;
	bool clock_unknown;	   /* logged once */
	char mark_sentence[120];   /* of the mark at start */
	struct ef_account account; /* of the host */
	unsigned bad;		   /* intervals in a row in which the host's was exceeded */
	bool measured;		   /* there is an account */
	int64_t attaching_ns;	   /* of this process's CPU time */
	struct ef_audit *audit;
	struct ef_sink *sink;
	int64_t unshipped_deleted; /* bytes, when that was looked at last */
	int64_t unshipped_ns;	   /* CLOCK_MONOTONIC, when it last grew; 0: it does not */
	int stats_fd;		   /* -1: runs are not counted */
	bool broad;		   /* CAP_SYS_ADMIN is kept, for want of CAP_BPF */
	json_t *compatibility;
	unsigned ticks; /* accounts so far */
	bool stopping;
	bool settled; /* every feature that is due was tried */

	struct ef_handover handover;

	int epoll_fd, signal_fd, tick_fd, poll_fd, watch_fd;
	int lease_fd;	      /* CLOCK_BOOTTIME, when the lease expires */
	int midnight_fd;      /* CLOCK_REALTIME, when contracts may expire; also when it is set */
	bool watch_failing;   /* logged once */
	bool publish_failing; /* logged once */
	bool seen_failing;    /* logged once */
	bool any_read;	      /* a ring held something since the last poll */
	unsigned quiet_polls; /* in a row that found nothing */
	bool more;	      /* a ring holds more than one read took */
	int64_t woken_ns;     /* CLOCK_MONOTONIC when the loop last woke */

	/* Between the loop and the guard; the last four are atomic. */
	pthread_t guard;
	int guard_fd;	       /* -1: there is no guard */
	unsigned round;	       /* of the loop */
	bool waiting;	       /* the loop waits for events */
	unsigned cut_by_guard; /* features, not logged yet */
};

#endif
