/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SERVICE_H
#define EF_SERVICE_H

#include <jansson.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "budget.h"
#include "bundle.h"
#include "desired.h"
#include "kernel.h"
#include "lease.h"
#include "live.h"
#include "orders.h"
#include "reason.h"
#include "sink.h"
#include "standing.h"

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
};

/* All that the running loader knows. */
struct ef_service {
	struct ef_options options;
	struct ef_kernel kernel;
	char boot_id[40];
	int64_t started_boottime_ns;
	struct ef_bundle *bundle; /* NULL: refused */
	struct ef_refusal refusal;
	size_t n;
	struct ef_live *lives;
	struct ef_orders orders;
	char *desired_path;
	enum ef_desired_result desired_result; /* of what is in force */
	struct ef_desired desired;	       /* in force */
	char desired_error[1024];	       /* of what was read last; "" when good */
	char *lease_path;
	struct ef_lease lease;		   /* as read last */
	bool lease_expired;		   /* it keeps everything off */
	char *signers_path, *revoked_path; /* ETC's; what is in force is in trust */
	struct ef_trust_paths trust;
	struct ef_standing standing; /* as judged last */
	time_t floor_s; /* wall-clock time that has been for certain; before it a clock is wrong */
	bool clock_unknown;  /* said once */
	char mark_said[120]; /* of the mark at start */
	char *policy_path;
	enum ef_policy_result policy_result; /* of what is in force */
	struct ef_policy policy;	     /* in force */
	char policy_error[1024];	     /* of what was read last; "" when good */
	struct ef_account account;	     /* of the host */
	unsigned bad;	      /* intervals in a row in which the host's was exceeded */
	bool measured;	      /* there is an account */
	int64_t attaching_ns; /* of this process's CPU time */
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

	int epoll_fd, signal_fd, tick_fd, poll_fd, watch_fd;
	int lease_fd;	      /* CLOCK_BOOTTIME, when the lease expires */
	int midnight_fd;      /* CLOCK_REALTIME, when contracts may expire; also when it is set */
	bool watch_failing;   /* said once */
	bool publish_failing; /* said once */
	bool any_read;	      /* a ring held something since the last poll */
	unsigned quiet_polls; /* in a row that found nothing */
	bool more;	      /* a ring holds more than one read took */
	int64_t woken_ns;     /* CLOCK_MONOTONIC when the loop last woke */

	/* Between the loop and the guard; the last four are atomic. */
	pthread_t guard;
	int guard_fd;	       /* -1: there is no guard */
	unsigned round;	       /* of the loop */
	bool waiting;	       /* the loop waits for events */
	unsigned cut_by_guard; /* features, not said yet */
	time_t wall_s; /* the greatest wall-clock time seen: no contract comes back to life */
};

/* Run until SIGTERM or SIGINT, or until it is refused. Returns an enum ef_exit. */
int ef_service_run(const struct ef_options *options);

#endif
