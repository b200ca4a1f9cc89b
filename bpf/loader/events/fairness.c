/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/fairness.h"
#include "base/json.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/must.h"
#include "base/util.h"

#define WINDOW_SHIFT 28	       /* as in bpf/include/ef_fair.h */
#define DOMAIN_UID 0xffffffffU /* likewise */
#define BATCH 512

struct key {
	uint64_t cgroup;
	uint32_t uid;
	uint32_t pad;
};

struct node {
	uint64_t window;
	uint64_t produced, produced_at;
	uint64_t thinned, thinned_at;
	uint64_t asked, asked_at;
	uint64_t first, first_at;
	uint64_t children, children_at;
	uint64_t owed, told;
	uint32_t children_before, share, reserve, thinning;
};

/* The build holds the objects against the same sizes (contract_objects.py). */
_Static_assert(sizeof(struct key) == 16 && sizeof(struct node) == 120, "as in ef_fair.h");

uint32_t ef_fairness_quota(int64_t rate_per_second) {
	__int128 quota = ((__int128)rate_per_second << WINDOW_SHIFT) / 1000000000;

	if (quota < 1)
		return 1;
	return quota > UINT32_MAX ? UINT32_MAX : (uint32_t)quota;
}

/* Keep the most thinned, in order; what gives way joins the others. */
static void rank(struct ef_fairness *fairness, struct ef_fairness_source source) {
	for (unsigned i = 0; i < fairness->n_top; i++) {
		struct ef_fairness_source there = fairness->top[i];

		if (source.thinned <= there.thinned)
			continue;
		fairness->top[i] = source;
		source = there;
	}
	if (fairness->n_top < EF_FAIRNESS_TOP)
		fairness->top[fairness->n_top++] = source;
	else
		fairness->others_thinned += source.thinned;
}

static void take(struct ef_fairness *fairness, const struct key *key, const struct node *node) {
	if (key->uid == DOMAIN_UID)
		return;
	fairness->n_sources++;
	if (node->thinned)
		rank(fairness, (struct ef_fairness_source){key->cgroup, key->uid, node->produced,
							   node->thinned});
}

/* The table is small: a few batches hold it, and no more than that is read. */
static void read_sources(struct ef_fairness *fairness, int fd) {
	_cleanup_free_ struct key *keys = ef_must(calloc(BATCH, sizeof(*keys)));
	_cleanup_free_ struct node *nodes = ef_must(calloc(BATCH, sizeof(*nodes)));
	struct key position;
	void *from = NULL;

	fairness->n_sources = fairness->n_top = 0;
	fairness->others_thinned = 0;
	for (int i = 0; i < 16; i++) {
		__u32 n = BATCH;
		int err = bpf_map_lookup_batch(fd, from, &position, keys, nodes, &n, NULL);

		if (err && errno != ENOENT)
			return;
		for (__u32 j = 0; j < n; j++)
			take(fairness, &keys[j], &nodes[j]);
		if (err)
			return;
		from = &position;
	}
}

void ef_fairness_read(struct ef_fairness *fairness, int sources_fd, int all_fd) {
	struct node all;
	uint32_t zero = 0;

	if (bpf_map_lookup_elem(all_fd, &zero, &all))
		return;
	fairness->produced = all.produced;
	if (all.thinned == fairness->thinned)
		return;
	fairness->thinned = all.thinned;
	read_sources(fairness, sources_fd);
}

enum ef_fairness_change ef_fairness_check(struct ef_fairness *fairness, int64_t now_ns) {
	bool grew = fairness->past + fairness->thinned != fairness->noted;

	fairness->noted = fairness->past + fairness->thinned;
	if (grew)
		fairness->last_ns = now_ns;
	if (grew && !fairness->active) {
		fairness->active = true;
		return EF_FAIRNESS_BEGUN;
	}
	if (!fairness->active || now_ns - fairness->last_ns < EF_FAIRNESS_CALM_S * 1000000000LL)
		return EF_FAIRNESS_SAME;
	fairness->active = false;
	return EF_FAIRNESS_ENDED;
}

void ef_fairness_forget(struct ef_fairness *fairness) {
	fairness->past += fairness->thinned;
	fairness->thinned = fairness->produced = 0;
	fairness->n_sources = fairness->n_top = 0;
	fairness->others_thinned = 0;
}

static json_t *top_json(const struct ef_fairness *fairness) {
	json_t *list = json_array();

	for (unsigned i = 0; i < fairness->n_top; i++) {
		const struct ef_fairness_source *source = &fairness->top[i];

		json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:I}", "uid",
						      (json_int_t)source->uid, "cgroup_id",
						      (json_int_t)source->cgroup, "produced",
						      (json_int_t)source->produced, "thinned",
						      (json_int_t)source->thinned));
	}
	return list;
}

json_t *ef_fairness_json(const struct ef_fairness *fairness, int64_t rate_per_second) {
	return json_pack("{s:[s, s], s:o, s:b, s:I, s:I, s:o, s:I}", "by", "uid", "cgroup",
			 "rate_per_second", ef_json_measured(rate_per_second), "active",
			 fairness->active, "thinned",
			 (json_int_t)(fairness->past + fairness->thinned), "sources",
			 (json_int_t)fairness->n_sources, "top", top_json(fairness),
			 "others_thinned", (json_int_t)fairness->others_thinned);
}

void ef_fairness_sentence(const struct ef_fairness *fairness, char *text, size_t size) {
	const struct ef_fairness_source *loudest = fairness->top;

	if (!fairness->n_top)
		snprintf(text, size, "its sources are not known");
	else
		snprintf(text, size,
			 "the loudest is uid %" PRIu32 " in control group %" PRIu64 ": %" PRIu64
			 " of its %" PRIu64 " events were thinned",
			 loudest->uid, loudest->cgroup, loudest->thinned, loudest->produced);
}
