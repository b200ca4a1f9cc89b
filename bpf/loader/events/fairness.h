/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FAIRNESS_H
#define EF_FAIRNESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * What the loader does of fairness (bpf/include/ef_fair.h): it says how many
 * events may pass, and tells who was thinned.
 */

#define EF_FAIRNESS_MAP "ef_fair"
#define EF_FAIRNESS_ALL "ef_fair_all"
#define EF_FAIRNESS_TOP 5     /* sources that are named */
#define EF_FAIRNESS_CALM_S 60 /* without thinning before it is over */

/* A user in a control group, and its events while it is in the table and others wait for room. */
struct ef_fairness_source {
	uint64_t cgroup;
	uint32_t uid;
	uint64_t produced, thinned;
};

/* All zero: nothing was thinned yet. */
struct ef_fairness {
	uint64_t past;	   /* thinned, in earlier attachments */
	uint64_t thinned;  /* in this one */
	uint64_t produced; /* likewise, that were judged */
	bool active;
	int64_t last_ns; /* CLOCK_MONOTONIC, when it was last seen to thin */
	uint64_t noted;	 /* thinned, when that was looked at last */
	unsigned n_sources;
	uint64_t others_thinned; /* of the sources that are not in top */
	unsigned n_top;
	struct ef_fairness_source top[EF_FAIRNESS_TOP]; /* the most thinned first */
};

enum ef_fairness_change { EF_FAIRNESS_SAME, EF_FAIRNESS_BEGUN, EF_FAIRNESS_ENDED };

/* Events that may pass in a window of the programs, for a rate by the second; 1 at least. */
uint32_t ef_fairness_quota(int64_t rate_per_second);

/* Read both maps; a map that cannot be read leaves what was known. */
void ef_fairness_read(struct ef_fairness *fairness, int sources_fd, int all_fd);

/* Has thinning begun, or been over for a while? */
enum ef_fairness_change ef_fairness_check(struct ef_fairness *fairness, int64_t now_ns);

/* It is detached: its counts go to the past, its sources are forgotten. */
void ef_fairness_forget(struct ef_fairness *fairness);

/* status.json's "fairness" for a rate in force (-1: none): a new reference. */
json_t *ef_fairness_json(const struct ef_fairness *fairness, int64_t rate_per_second);

/* Who is thinned most, as a sentence in text[0..size). */
void ef_fairness_sentence(const struct ef_fairness *fairness, char *text, size_t size);

#endif
