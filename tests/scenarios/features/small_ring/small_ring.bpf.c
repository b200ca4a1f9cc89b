// SPDX-License-Identifier: GPL-2.0
/*
 * small_ring: one record for each system call of the program ef-load, through a
 * ring of one page. Its budgets for CPU and rate are kept, and the one for
 * drops cannot be.
 */
#define EF_RING_BYTES 4096
#include "ef.h"

struct ef_syscall_event {
	__u64 ktime_ns;
	__u64 weight;
	__u64 number;
	__u32 pid;
	__u32 tid;
	char comm[16];
};

static __always_inline int on_syscall(long number) {
	struct ef_syscall_event *event;
	__u64 task = bpf_get_current_pid_tgid(), weight;
	char comm[16] = {0};

	EF_KEEP_TYPE(struct ef_syscall_event);
	bpf_get_current_comm(comm, sizeof(comm));
	if (comm[0] != 'e' || comm[1] != 'f' || comm[2] != '-' || comm[3] != 'l' ||
	    comm[4] != 'o' || comm[5] != 'a')
		return 0;
	weight = ef_produce();
	if (!weight)
		return 0;
	event = ef_reserve(sizeof(*event));
	if (!event)
		return 0;
	event->ktime_ns = bpf_ktime_get_ns();
	event->weight = weight;
	event->number = number;
	event->pid = task >> 32;
	event->tid = (__u32)task;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	ef_submit(event);
	return 0;
}

#ifdef EF_VARIANT_FULL
SEC("tp_btf/sys_enter")
#else
SEC("raw_tp/sys_enter")
#endif
int ef_sys_enter(__u64 *ctx) {
	return on_syscall((long)ctx[1]);
}

char LICENSE[] SEC("license") = "GPL";
