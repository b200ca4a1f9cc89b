// SPDX-License-Identifier: GPL-2.0
/*
 * exec_events: one record for each program that was started with execve().
 *
 * Full tells the parent and the file that was executed. Reduced tells what the
 * task itself knows: pid, uid and comm; perf tells the same through perf buffers,
 * for kernels without ring buffer.
 */
#ifdef EF_VARIANT_PERF
#define EF_PERF_EVENTS
#elif !defined(EF_RING_BYTES)
#define EF_RING_BYTES (256 * 1024)
#endif
#define EF_FAIR
#include "ef.h"

#define EF_FILENAME_BYTES 128

#ifdef EF_VARIANT_FULL

struct ef_exec_event {
	__u64 ktime_ns;
	__u64 weight;
	__u32 pid;
	__u32 ppid;
	__u32 uid;
	__u32 filename_truncated; /* 1: the name is longer than the field */
	char comm[16];
	char filename[EF_FILENAME_BYTES];
};

static __always_inline void fill_filename(struct ef_exec_event *event, const char *filename) {
	long size = bpf_probe_read_kernel_str(event->filename, sizeof(event->filename), filename);
	char next = 0;

	event->filename_truncated = 0;
	if (size < 0)
		event->filename[0] = 0;
	if (size != sizeof(event->filename))
		return;
	bpf_probe_read_kernel(&next, sizeof(next), filename + sizeof(event->filename) - 1);
	event->filename_truncated = next != 0;
}

static __always_inline void fill_variant(struct ef_exec_event *event, struct task_struct *task,
					 struct linux_binprm *bprm) {
	event->ppid = EF_READ(task, real_parent, tgid);
	fill_filename(event, EF_READ(bprm, filename));
}

#else

struct ef_exec_event {
	__u64 ktime_ns;
	__u64 weight;
	__u32 pid;
	__u32 uid;
	char comm[16];
};

/* Nothing of the parent or the file. */
#define fill_variant(event, task, bprm) ((void)(bprm))

#endif

static __always_inline void fill(struct ef_exec_event *event, struct task_struct *task,
				 struct linux_binprm *bprm, __u64 weight) {
	event->ktime_ns = bpf_ktime_get_ns();
	event->weight = weight;
	event->pid = EF_READ(task, tgid);
	event->uid = EF_READ(task, cred, uid.val);
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), &task->comm);
	fill_variant(event, task, bprm);
}

#ifdef EF_VARIANT_PERF

static __always_inline void report(void *ctx, struct task_struct *task, struct linux_binprm *bprm,
				   __u64 weight) {
	struct ef_exec_event event = {};

	fill(&event, task, bprm, weight);
	ef_output(ctx, &event, sizeof(event));
}

#else

static __always_inline void report(void *ctx, struct task_struct *task, struct linux_binprm *bprm,
				   __u64 weight) {
	struct ef_exec_event *event = ef_reserve(sizeof(*event));

	if (!event)
		return;
	fill(event, task, bprm, weight);
	ef_submit(event);
}

#endif

#ifdef EF_VARIANT_FULL
SEC("tp_btf/sched_process_exec")
#else
SEC("raw_tp/sched_process_exec")
#endif
int ef_exec(__u64 *ctx) {
	__u64 weight = ef_produce_fairly((void *)ctx[0]);

	EF_KEEP_TYPE(struct ef_exec_event);
	if (weight)
		report(ctx, (void *)ctx[0], (void *)ctx[2], weight);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
