/* SPDX-License-Identifier: GPL-2.0 */
#ifndef EF_FAIR_H
#define EF_FAIR_H

/*
 * Fairness: no source of events takes the room of the others. A source is a
 * user in a control group; sources share what their domain may let pass, and
 * domains share what the signal may let pass in a window (ef_config's quota).
 *
 * The shares follow the load (max-min): who asks for less than a share gets all
 * of it, and what that leaves is shared by those who ask for more. Beside the
 * shares there is a reserve for the first events of a source in a window, so
 * that a quiet source passes also in the moment in which a flood begins.
 *
 * A user who makes many control groups, user namespaces or users of them stays
 * one: a domain is the control group at level 2 (user-1000.slice, a service),
 * below which users make their own, and a user of a namespace is its owner.
 *
 * Counts of a window are not exact to the event where two CPUs meet (no lock is
 * allowed here, nor are atomic exchanges before 5.12); the sums in ef_counters
 * are: what is thinned is counted once, as sampled out.
 *
 * A record stands for those of its source that were thinned since the one before: its weight
 * has theirs added. What was thinned last waits in the source's entry for its next record.
 */

#ifndef EF_FAIR_ENTRIES
#define EF_FAIR_ENTRIES 512
#endif
#define EF_FAIR_WINDOW_SHIFT 28 /* a window is 2^28 ns, 268 ms: as in bpf/loader/fairness.c */
#define EF_FAIR_LEVEL 2		/* of the control group that is a domain */
#define EF_FAIR_DEEP 8		/* nested user namespaces beyond this are one user */
#define EF_FAIR_DEEP_UID 0xfffffffeU
#define EF_FAIR_DOMAIN_UID 0xffffffffU /* in the key of a domain; no user has this number */

struct ef_fair_key {
	__u64 cgroup; /* the kernel's number of the control group; 0: not known */
	__u32 uid;    /* in the initial user namespace */
	__u32 pad;
};

/* Totals only grow; "_at" is what they were when the window began. */
struct ef_fair_node {
	__u64 window; /* the last one in which there was an event */
	__u64 produced, produced_at;
	__u64 thinned, thinned_at;
	__u64 asked, asked_at;	     /* by its children, within their shares */
	__u64 first, first_at;	     /* let pass from the reserve */
	__u64 children, children_at; /* that had an event in the window */
	__u64 owed, told;      /* weight of what was thinned; of it, what a record stands for */
	__u32 children_before; /* in the window before */
	__u32 share;	       /* of each child */
	__u32 reserve;	       /* for first events of all its children */
	__u32 thinning;	       /* 1: it was thinned in the window before */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, EF_FAIR_ENTRIES);
	__type(key, struct ef_fair_key);
	__type(value, struct ef_fair_node);
} ef_fair SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ef_fair_node);
} ef_fair_all SEC(".maps");

/* Who stands behind a user namespace: the owner of the outermost one. */
static __always_inline __u32 ef_fair_owner(struct user_namespace *ns) {
	for (int i = 0; i < EF_FAIR_DEEP; i++) {
		if (EF_READ(ns, level) <= 1)
			return EF_READ(ns, owner.val);
		ns = EF_READ(ns, parent);
	}
	return EF_FAIR_DEEP_UID;
}

static __always_inline __u32 ef_fair_uid(struct task_struct *task) {
	const struct cred *cred = EF_READ(task, cred);
	struct user_namespace *ns = EF_READ(cred, user_ns);

	return EF_READ(ns, level) ? ef_fair_owner(ns) : EF_READ(cred, uid.val);
}

/*
 * The first event of a window: what was asked for in the window before says what
 * a share is now. True: it is the first.
 */
static __always_inline bool ef_fair_begin(struct ef_fair_node *node, __u64 window, __u64 capacity) {
	bool follows = node->window + 1 == window;
	__u64 asked, share = node->share;

	if (node->window == window)
		return 0;
	node->window = window;
	asked = node->asked - node->asked_at;
	node->thinning = follows && node->thinned != node->thinned_at;
	node->children_before = follows ? node->children - node->children_at : 0;
	node->produced_at = node->produced;
	node->thinned_at = node->thinned;
	node->asked_at = node->asked;
	node->first_at = node->first;
	node->children_at = node->children;
	if (!node->thinning || !share)
		share = capacity;
	else if (asked)
		share = share * capacity / asked;
	if (share > capacity)
		share = capacity;
	node->share = share ? share : 1;
	return 1;
}

/* The reserve fills by a quarter of the quota a window, up to one quota. */
static __always_inline void ef_fair_fill(struct ef_fair_node *all, __u32 quota, __u64 used) {
	__u64 left = all->reserve > used ? all->reserve - used : 0;

	left += quota / 4;
	all->reserve = left < quota ? left : quota;
}

/* Eleven of sixteen parts are shared; with the reserve and its saved part that stays in the quota.
 */
static __always_inline __u64 ef_fair_capacity(__u32 quota) {
	__u64 capacity = (__u64)quota * 11 / 16;

	return capacity ? capacity : 1;
}

static __always_inline struct ef_fair_node *ef_fair_find(__u64 cgroup, __u32 uid) {
	struct ef_fair_key key = {.cgroup = cgroup, .uid = uid};
	struct ef_fair_node *node = bpf_map_lookup_elem(&ef_fair, &key), fresh = {};

	if (node)
		return node;
	bpf_map_update_elem(&ef_fair, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&ef_fair, &key);
}

#define EF_FAIR_ADD(total) __sync_fetch_and_add(&(total), 1)

/*
 * The weight of a record that passes: its own, and what is owed. Two CPUs in the same moment
 * may both take what is owed; as both are told, the next ones take less until it is even.
 */
static __always_inline __u64 ef_fair_weight(struct ef_fair_node *node, __u64 weight) {
	__s64 owed = node->owed - node->told;

	if (owed <= 0)
		return weight;
	__sync_fetch_and_add(&node->told, owed);
	return weight + owed;
}

/* Within the shares of source, domain and signal? Each asks the next one only for what it allows.
 */
static __always_inline bool ef_fair_shared(struct ef_fair_node *all, struct ef_fair_node *domain,
					   struct ef_fair_node *source, __u64 capacity) {
	if (source->produced - source->produced_at > domain->share)
		return 0;
	EF_FAIR_ADD(domain->asked);
	if (domain->asked - domain->asked_at > all->share)
		return 0;
	EF_FAIR_ADD(all->asked);
	return all->asked - all->asked_at <= capacity;
}

/* Is it among the first events of its source, and is there a reserve for these? */
static __always_inline bool ef_fair_first(struct ef_fair_node *all, struct ef_fair_node *domain,
					  struct ef_fair_node *source) {
	__u32 now = domain->children - domain->children_at;
	__u32 sources = now > domain->children_before ? now : domain->children_before;
	__u32 parts = 2 * (sources + 1); /* twice as many may come as there are */
	__u32 of_source = domain->reserve / (parts > 4 ? parts : 4);

	if (!of_source)
		of_source = 1; /* its very first event, while the reserve lasts */

	if (source->produced - source->produced_at > of_source ||
	    domain->first - domain->first_at >= domain->reserve ||
	    all->first - all->first_at >= all->reserve)
		return 0;
	EF_FAIR_ADD(domain->first);
	EF_FAIR_ADD(all->first);
	return 1;
}

/* What becomes of an event of that weight: it passes with the weight that is given back, or 0. */
static __always_inline __u64 ef_fair_settle(struct ef_fair_node *node, bool passes, __u64 weight) {
	if (passes)
		return ef_fair_weight(node, weight);
	__sync_fetch_and_add(&node->owed, weight);
	return 0;
}

static __always_inline __u64 ef_fair_judge(struct ef_fair_node *all, struct task_struct *task,
					   __u64 window, __u64 capacity, __u64 weight) {
	struct cgroup *group = ef_task_cgroup(task);
	struct ef_fair_node *domain, *source;
	bool passes;

	domain = ef_fair_find(ef_cgroup_ancestor(group, EF_FAIR_LEVEL), EF_FAIR_DOMAIN_UID);
	source = ef_fair_find(ef_cgroup_id(group), ef_fair_uid(task));
	if (!domain || !source) /* no place: as one with the rest */
		return ef_fair_settle(all, all->asked - all->asked_at <= capacity, weight);
	if (ef_fair_begin(domain, window, all->share)) {
		domain->reserve = all->reserve / (all->children_before + 1);
		EF_FAIR_ADD(all->children);
	}
	if (ef_fair_begin(source, window, 1))
		EF_FAIR_ADD(domain->children);
	EF_FAIR_ADD(domain->produced);
	EF_FAIR_ADD(source->produced);
	passes =
	    ef_fair_shared(all, domain, source, capacity) || ef_fair_first(all, domain, source);
	if (!passes) {
		EF_FAIR_ADD(domain->thinned);
		EF_FAIR_ADD(source->thinned);
	}
	return ef_fair_settle(source, passes, weight);
}

/*
 * May an event of this task pass, which stands for "weight"? Its weight then, else 0. While the
 * window is half empty and nothing was thinned before, there is no need to ask whose it is.
 */
static __always_inline __u64 ef_fair_pass(struct task_struct *task, __u64 weight) {
	__u64 window = bpf_ktime_get_ns() >> EF_FAIR_WINDOW_SHIFT, capacity, used;
	__u32 zero = 0;
	struct ef_config *config = bpf_map_lookup_elem(&ef_config, &zero);
	struct ef_fair_node *all = bpf_map_lookup_elem(&ef_fair_all, &zero);

	if (!config || !all || !config->quota)
		return weight;
	capacity = ef_fair_capacity(config->quota);
	used = all->first - all->first_at;
	if (ef_fair_begin(all, window, capacity))
		ef_fair_fill(all, config->quota, used);
	EF_FAIR_ADD(all->produced);
	if (!all->thinning && all->produced - all->produced_at <= capacity / 2) {
		EF_FAIR_ADD(all->asked);
		return weight;
	}
	weight = ef_fair_judge(all, task, window, capacity, weight);
	if (!weight)
		EF_FAIR_ADD(all->thinned);
	return weight;
}

#undef EF_FAIR_ADD

#endif
