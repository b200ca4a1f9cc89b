// SPDX-License-Identifier: GPL-2.0
/*
 * runqlat: how long a task that could run waited for a CPU.
 *
 * A wait begins when a task is woken, or loses its CPU while it could still
 * run, and ends when it is switched to. What is counted (see contract.yml):
 * produced at the begin, delivered when the wait is in the histogram, dropped
 * when there was no room for its start, sampled_out when chance passed it over.
 * In flight are the waits that have not ended: the entries of ef_rql_start.
 *
 * Full and reduced measure the same. They differ in the program type: tp_btf
 * needs the kernel's BPF trampoline types, raw_tp does not.
 */
#define EF_WITH_HISTOGRAM
#include "ef.h"

#ifndef EF_RQL_WAITS
#define EF_RQL_WAITS 16384
#endif

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EF_RQL_WAITS);
	__type(key, pid_t);
	__type(value, struct ef_begun);
} ef_rql_start SEC(".maps");

/* The hooks run with interrupts off: they hold the run queue's lock. */
static __always_inline void begin_wait(pid_t pid, __u64 when_exists, __u64 weight) {
	struct ef_begun now = {.ktime_ns = bpf_ktime_get_ns(), .weight = weight};
	long err;

	err = bpf_map_update_elem(&ef_rql_start, &pid, &now, BPF_NOEXIST);
	if (err == -EF_EEXIST) {
		/* One wait per task: this one was counted when it began. */
		if (when_exists == BPF_EXIST)
			bpf_map_update_elem(&ef_rql_start, &pid, &now, BPF_EXIST);
		return;
	}
	ef_count_irqoff(EF_PRODUCED);
	if (err)
		ef_count_irqoff(EF_DROPPED);
}

static __always_inline void sample_wait(pid_t pid, __u64 when_exists) {
	const struct ef_config *config = ef_get_config();
	__u64 weight;

	if (!pid || !ef_is_open(config))
		return; /* idle never waits */
	weight = ef_draw(config);
	if (weight) {
		begin_wait(pid, when_exists, weight);
		return;
	}
	ef_count_irqoff(EF_PRODUCED);
	ef_count_irqoff(EF_SAMPLED_OUT);
}

static __always_inline void end_wait(pid_t pid) {
	struct ef_begun *start = bpf_map_lookup_elem(&ef_rql_start, &pid), began;

	if (!start)
		return;
	began = *start;
	/* Whoever deletes it accounts for it. */
	if (bpf_map_delete_elem(&ef_rql_start, &pid))
		return;
	ef_hist_add_irqoff(bpf_ktime_get_ns() - began.ktime_ns, began.weight);
	ef_count_irqoff(EF_DELIVERED);
}

/*
 * A task is also "woken" while it still runs, when it was about to sleep: it
 * does not wait. One that already waits keeps its first start (BPF_NOEXIST).
 */
static __always_inline int on_wakeup(struct task_struct *task) {
	if (!ef_task_on_cpu(task))
		sample_wait(EF_READ(task, pid), BPF_NOEXIST);
	return 0;
}

/* Preempted, or put back: it held the CPU until now, so its wait starts now (BPF_EXIST). */
static __always_inline int on_switch(const __u64 *ctx) {
	bool preempted = (bool)ctx[0];
	struct task_struct *prev = (void *)ctx[1];
	struct task_struct *next = (void *)ctx[2];

	if (preempted || ef_switch_prev_state(ctx, prev) == EF_TASK_RUNNING)
		sample_wait(EF_READ(prev, pid), BPF_EXIST);
	end_wait(EF_READ(next, pid));
	return 0;
}

#ifdef EF_VARIANT_FULL
#define EF_HOOK(name) SEC("tp_btf/" name)
#else
#define EF_HOOK(name) SEC("raw_tp/" name)
#endif

EF_HOOK("sched_switch")
int ef_rql_switch(__u64 *ctx) {
	return on_switch(ctx);
}

EF_HOOK("sched_wakeup")
int ef_rql_wakeup(__u64 *ctx) {
	return on_wakeup((void *)ctx[0]);
}

EF_HOOK("sched_wakeup_new")
int ef_rql_wake_new(__u64 *ctx) {
	return on_wakeup((void *)ctx[0]);
}

char LICENSE[] SEC("license") = "GPL";
