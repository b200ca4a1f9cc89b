// SPDX-License-Identifier: GPL-2.0
/*
 * bench_calls: one record for each getppid() of one process, at the hook at which the peer
 * has it too, and with the fields that the peer prints. BENCH_RECORDS above 1 makes more records
 * of each call: rates that one core cannot call for.
 */
#ifndef EF_RING_BYTES
#define EF_RING_BYTES (256 * 1024)
#endif
#include "ef.h"

struct ef_call_event {
	__u64 ktime_ns;
	__u64 weight;
	__u32 pid;
	__u32 tid;
	char comm[16];
};

static __always_inline void report(__u64 task) {
	__u64 weight = ef_produce();
	struct ef_call_event *event = weight ? ef_reserve(sizeof(*event)) : NULL;

	if (!event)
		return;
	event->ktime_ns = bpf_ktime_get_ns();
	event->weight = weight;
	event->pid = task >> 32;
	event->tid = (__u32)task;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	ef_submit(event);
}

SEC("tracepoint/syscalls/sys_enter_getppid")
int ef_call(void *ctx) {
	__u64 task = bpf_get_current_pid_tgid();

	EF_KEEP_TYPE(struct ef_call_event);
	if (task >> 32 != BENCH_PID)
		return 0;
	for (int i = 0; i < BENCH_RECORDS; i++)
		report(task);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
