// SPDX-License-Identifier: GPL-2.0
/*
 * exec_events for hosts without BTF: BCC compiles it there against the kernel's
 * own headers. It tells what the reduced variant of exec_events.bpf.c tells.
 * No one is woken: the collector looks every 100 ms.
 */
#include <linux/cred.h>
#include <linux/sched.h>

enum { EF_PRODUCED, EF_DELIVERED, EF_DROPPED, EF_SAMPLED_OUT, EF_COUNTERS };

struct ef_config {
	u32 sample_every; /* 1: every event; 0 is taken as 1 */
	u32 reserved;
};

struct ef_exec_event {
	u64 ktime_ns;
	u64 weight; /* of how many events it is the one that was taken */
	u32 pid;
	u32 uid;
	char comm[16];
};

BPF_PERCPU_ARRAY(ef_counters, u64, EF_COUNTERS);
BPF_ARRAY(ef_config, struct ef_config, 1);
BPF_RINGBUF_OUTPUT(ef_events, 64); /* pages */

/* Another program may interrupt or replace this one on the same CPU. */
static inline void ef_count(int which) {
	u64 *value = ef_counters.lookup(&which);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* For one event in sample_every its weight, which is sample_every; 0 for the others. */
static inline u64 ef_draw(void) {
	int zero = 0;
	struct ef_config *config = ef_config.lookup(&zero);

	if (!config || config->sample_every <= 1)
		return 1;
	if (((u64)bpf_get_prandom_u32() * config->sample_every) >> 32)
		return 0;
	return config->sample_every;
}

static inline void fill(struct ef_exec_event *event, struct task_struct *task) {
	const struct cred *cred = NULL;

	event->ktime_ns = bpf_ktime_get_ns();
	bpf_probe_read_kernel(&event->pid, sizeof(event->pid), &task->tgid);
	bpf_probe_read_kernel(&cred, sizeof(cred), &task->cred);
	bpf_probe_read_kernel(&event->uid, sizeof(event->uid), &cred->uid);
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), task->comm);
}

int ef_exec(struct bpf_raw_tracepoint_args *ctx) {
	struct ef_exec_event event = {.weight = ef_draw()};

	ef_count(EF_PRODUCED);
	if (!event.weight) {
		ef_count(EF_SAMPLED_OUT);
		return 0;
	}
	fill(&event, (struct task_struct *)ctx->args[0]);
	if (ef_events.ringbuf_output(&event, sizeof(event), BPF_RB_NO_WAKEUP))
		ef_count(EF_DROPPED);
	else
		ef_count(EF_DELIVERED);
	return 0;
}
