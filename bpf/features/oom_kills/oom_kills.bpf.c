// SPDX-License-Identifier: GPL-2.0
/*
 * oom_kills: one record for each process that the kernel chose to kill for want
 * of memory.
 *
 * Full and reduced read the kernel's decision: the process, who ran out of
 * memory, and whether it was a control group's limit or the host's. "marked" is
 * for kernels without kprobes and tells the process only; there, every process
 * of a group that is killed as a whole has a record of its own.
 */
#ifndef EF_RING_BYTES
#define EF_RING_BYTES (64 * 1024)
#endif
#define EF_FAIR
#include "ef.h"

#if defined(EF_VARIANT_FULL) || defined(EF_VARIANT_REDUCED)

struct ef_oom_event {
	__u64 ktime_ns;
	__u64 weight;
	__u64 cgroup_id; /* of the control group whose limit was met; 0: none, the host's memory */
	__u64 total_pages; /* what the victim had to share: the limit, or all memory and swap */
	__s64 points;	   /* the kernel's badness score of the victim, in pages */
	__u32 pid;
	__u32 uid;
	__u32 trigger_pid; /* who asked for the memory */
	__u32 memcg;	   /* 1: a control group's limit */
	char comm[16];
};

static __always_inline void fill(struct ef_oom_event *event, struct oom_control *oc) {
	struct task_struct *victim = EF_READ(oc, chosen);
	struct mem_cgroup *memcg = EF_READ(oc, memcg);

	event->cgroup_id = memcg ? EF_READ(memcg, css.cgroup, kn, id) : 0;
	event->total_pages = EF_READ(oc, totalpages);
	event->points = EF_READ(oc, chosen_points);
	event->pid = EF_READ(victim, tgid);
	event->uid = EF_READ(victim, cred, uid.val);
	event->memcg = memcg != 0;
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), &victim->comm);
}

#else

struct ef_oom_event {
	__u64 ktime_ns;
	__u64 weight;
	__u32 pid;
	__u32 trigger_pid;
	char comm[16]; /* empty before 6.9, where the kernel hands over the pid only */
};

static __always_inline void fill(struct ef_oom_event *event, const __u64 *args) {
	struct task_struct *victim = ef_marked_task(args);

	event->comm[0] = 0;
	if (!victim) {
		event->pid = (__u32)args[0];
		return;
	}
	event->pid = EF_READ(victim, tgid);
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), &victim->comm);
}

#endif

static __always_inline int on_kill(void *what) {
	__u64 weight = ef_produce_fairly((void *)bpf_get_current_task());
	struct ef_oom_event *event;

	EF_KEEP_TYPE(struct ef_oom_event);
	if (!weight)
		return 0;
	event = ef_reserve(sizeof(*event));
	if (!event)
		return 0;
	event->ktime_ns = bpf_ktime_get_ns();
	event->weight = weight;
	event->trigger_pid = bpf_get_current_pid_tgid() >> 32;
	fill(event, what);
	ef_submit(event);
	return 0;
}

#if defined(EF_VARIANT_FULL)
SEC("fentry/oom_kill_process")
int ef_oom_kill(void *ctx) {
	return on_kill(EF_BTF_ARG(ctx, 0));
}
#elif defined(EF_VARIANT_REDUCED)
SEC("kprobe/oom_kill_process")
int ef_oom_kill(void *ctx) {
	return on_kill(EF_KPROBE_ARG1(ctx));
}
#else
SEC("raw_tp/mark_victim")
int ef_oom_kill(void *ctx) {
	return on_kill(ctx);
}
#endif

char LICENSE[] SEC("license") = "GPL";
