/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_MOMENT_H
#define EF_MOMENT_H

#include <stdbool.h>
#include <stdint.h>

#define EF_CLOCK_SLACK_S 300 /* how far a builder's clock may be ahead of this host's */

/*
 * A time of the wall clock and whether it can be one. A clock that stands before
 * what has happened already (the release was made, the host saw a deployment) says
 * nothing: a limit in time is then neither reached nor not reached.
 */
struct ef_moment {
	int64_t now; /* Unix seconds */
	bool known;
};

/* floor: Unix seconds of the latest of what has happened; 0: nothing is known. */
static inline struct ef_moment ef_moment_at(int64_t now, int64_t floor) {
	return (struct ef_moment){.now = now, .known = now + EF_CLOCK_SLACK_S >= floor};
}

#endif
