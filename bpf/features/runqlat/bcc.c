// SPDX-License-Identifier: GPL-2.0
/*
 * runqlat for hosts without BTF: BCC compiles it there against the kernel's
 * own headers. It measures and counts as runqlat.bpf.c does; see there for why.
 */
#include <linux/sched.h>
#include <linux/version.h>

enum { EF_PRODUCED, EF_DELIVERED, EF_DROPPED, EF_SAMPLED_OUT, EF_COUNTERS };

#define EF_HIST_SUM 64
#define EF_EEXIST 17

struct ef_config {
	u32 sample_every; /* 1: every event; 0 is taken as 1 */
	u32 reserved;
};

BPF_PERCPU_ARRAY(ef_counters, u64, EF_COUNTERS);
BPF_ARRAY(ef_config, struct ef_config, 1);
/* A sum as it was measured, and the same with each value times its weight. */
struct ef_sum {
	u64 raw;
	u64 weighted;
};

struct ef_begun {
	u64 ktime_ns;
	u64 weight;
};

BPF_PERCPU_ARRAY(ef_hist, struct ef_sum, EF_HIST_SUM + 1);
BPF_HASH(ef_rql_start, u32, struct ef_begun, 16384);

/* The scheduler's hooks run with interrupts off: a plain add is exact. */
static inline void ef_count(int which) {
	u64 *value = ef_counters.lookup(&which);

	if (value)
		*value += 1;
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

/* floor(log2(v)), 0 for v = 0. */
static inline int ef_log2(u64 v) {
	int log = bpf_log2l(v); /* BCC counts from 1 */

	return log > 0 ? log - 1 : 0;
}

static inline void ef_hist_add(u64 v, u64 weight) {
	int slot = ef_log2(v), sum = EF_HIST_SUM;
	struct ef_sum *count = ef_hist.lookup(&slot);
	struct ef_sum *total = ef_hist.lookup(&sum);

	if (count) {
		count->raw += 1;
		count->weighted += weight;
	}
	if (total) {
		total->raw += v;
		total->weighted += v * weight;
	}
}

/*
 * restart: the task held the CPU until now, so a wait that was noted earlier
 * starts now. It is not deleted meanwhile: only a switch to the task does that.
 */
static inline void begin_wait(u32 pid, bool restart, u64 weight) {
	struct ef_begun now = {.ktime_ns = bpf_ktime_get_ns(), .weight = weight}, *start;
	int err = ef_rql_start.insert(&pid, &now);

	if (err == -EF_EEXIST) {
		start = restart ? ef_rql_start.lookup(&pid) : NULL;
		if (start)
			*start = now;
		return;
	}
	ef_count(EF_PRODUCED);
	if (err)
		ef_count(EF_DROPPED);
}

static inline void sample_wait(u32 pid, bool restart) {
	u64 weight;

	if (!pid)
		return; /* idle never waits */
	weight = ef_draw();
	if (weight) {
		begin_wait(pid, restart, weight);
		return;
	}
	ef_count(EF_PRODUCED);
	ef_count(EF_SAMPLED_OUT);
}

static inline void end_wait(u32 pid) {
	struct ef_begun *start = ef_rql_start.lookup(&pid), began;

	if (!start)
		return;
	began = *start;
	/* Whoever deletes it accounts for it. */
	if (ef_rql_start.delete(&pid))
		return;
	ef_hist_add(bpf_ktime_get_ns() - began.ktime_ns, began.weight);
	ef_count(EF_DELIVERED);
}

static inline u32 ef_pid(struct task_struct *task) {
	u32 pid = 0;

	bpf_probe_read_kernel(&pid, sizeof(pid), &task->pid);
	return pid;
}

/* Kernels without SMP have no "on_cpu"; there the one task that runs is the current one. */
static inline bool ef_task_on_cpu(struct task_struct *task) {
#ifdef CONFIG_SMP
	int on_cpu = 0;

	bpf_probe_read_kernel(&on_cpu, sizeof(on_cpu), &task->on_cpu);
	return on_cpu;
#else
	return ef_pid(task) == (u32)bpf_get_current_pid_tgid();
#endif
}

/* The state with which "prev" left the CPU: an argument since 5.18, renamed in 5.14. */
static inline unsigned int ef_prev_state(struct bpf_raw_tracepoint_args *ctx) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	return ctx->args[3];
#else
	struct task_struct *prev = (struct task_struct *)ctx->args[1];
	long state = 0;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
	bpf_probe_read_kernel(&state, sizeof(prev->__state), &prev->__state);
#else
	bpf_probe_read_kernel(&state, sizeof(prev->state), (void *)&prev->state);
#endif
	return state;
#endif
}

static inline int on_wakeup(struct task_struct *task) {
	if (!ef_task_on_cpu(task))
		sample_wait(ef_pid(task), false);
	return 0;
}

int ef_rql_switch(struct bpf_raw_tracepoint_args *ctx) {
	struct task_struct *prev = (struct task_struct *)ctx->args[1];
	struct task_struct *next = (struct task_struct *)ctx->args[2];

	if ((bool)ctx->args[0] || ef_prev_state(ctx) == 0)
		sample_wait(ef_pid(prev), true);
	end_wait(ef_pid(next));
	return 0;
}

int ef_rql_wakeup(struct bpf_raw_tracepoint_args *ctx) {
	return on_wakeup((struct task_struct *)ctx->args[0]);
}

int ef_rql_wake_new(struct bpf_raw_tracepoint_args *ctx) {
	return on_wakeup((struct task_struct *)ctx->args[0]);
}
