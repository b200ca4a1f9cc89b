/* SPDX-License-Identifier: GPL-2.0 */
#ifndef EF_H
#define EF_H

/*
 * The maps that every object of ours holds and the counting that goes with
 * them. An event is counted as produced first and then exactly once as
 * delivered, dropped or sampled out, so that at rest
 * produced = delivered + dropped + sampled_out + in_flight.
 */

#include "ef_kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum ef_counter {
	EF_PRODUCED,
	EF_DELIVERED,
	EF_DROPPED,
	EF_SAMPLED_OUT,
	EF_COUNTERS,
};

struct ef_config {
	__u32 sample_every; /* 1: every event; 0 is taken as 1 */
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EF_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} ef_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ef_config);
} ef_config SEC(".maps");

/*
 * Counts where another program may interrupt or replace this one on the same
 * CPU: an atomic add of a line that no other CPU touches.
 */
static __always_inline void ef_count(__u32 which) {
	__u64 *value = bpf_map_lookup_elem(&ef_counters, &which);

	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Counts where interrupts are off (the scheduler's hooks): a plain add is exact and cheaper. */
static __always_inline void ef_count_irqoff(__u32 which) {
	__u64 *value = bpf_map_lookup_elem(&ef_counters, &which);

	if (value)
		*value += 1;
}

/*
 * True for one event in sample_every. Drawn at random: every n-th event would
 * beat with a workload that repeats itself.
 */
static __always_inline bool ef_sampled(void) {
	__u32 zero = 0;
	struct ef_config *config = bpf_map_lookup_elem(&ef_config, &zero);

	if (!config || config->sample_every <= 1)
		return 1;
	return ((__u64)bpf_get_prandom_u32() * config->sample_every) >> 32 == 0;
}

#ifdef EF_WITH_HISTOGRAM

#define EF_HIST_SLOTS 64
#define EF_HIST_SUM 64

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EF_HIST_SLOTS + 1);
	__type(key, __u32);
	__type(value, __u64);
} ef_hist SEC(".maps");

/* floor(log2(v)), 0 for v = 0; no loop and no builtin that the BPF target lacks. */
static __always_inline __u32 ef_log2(__u64 v) {
	__u32 shift, log = 0;

#define EF_LOG2_STEP(bits)                                                                         \
	shift = (v >= (1ULL << (bits))) * (bits);                                                  \
	v >>= shift;                                                                               \
	log += shift
	EF_LOG2_STEP(32);
	EF_LOG2_STEP(16);
	EF_LOG2_STEP(8);
	EF_LOG2_STEP(4);
	EF_LOG2_STEP(2);
	EF_LOG2_STEP(1);
#undef EF_LOG2_STEP
	return log;
}

/* Adds one value to the histogram. Interrupts must be off (see ef_count_irqoff). */
static __always_inline void ef_hist_add(__u64 v) {
	__u32 slot = ef_log2(v), sum = EF_HIST_SUM;
	__u64 *count = bpf_map_lookup_elem(&ef_hist, &slot);
	__u64 *total = bpf_map_lookup_elem(&ef_hist, &sum);

	if (count)
		*count += 1;
	if (total)
		*total += v;
}

#endif /* EF_WITH_HISTOGRAM */

#ifdef EF_RING_BYTES

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EF_RING_BYTES);
} ef_events SEC(".maps");

/*
 * Keeps a record's struct in the object's BTF, by which the loader decodes it.
 * A global variable would do too, but would bring a map of its own.
 */
#define EF_KEEP_TYPE(type)                                                                         \
	({                                                                                         \
		__u32 id = bpf_core_type_id_local(type);                                           \
		asm volatile("" : : "r"(id));                                                      \
	})

/* Space for one record, or NULL with the drop counted. */
static __always_inline void *ef_reserve(__u64 size) {
	void *record = bpf_ringbuf_reserve(&ef_events, size, 0);

	if (!record)
		ef_count(EF_DROPPED);
	return record;
}

/*
 * Hands a record over. Waking the reader costs more than all the rest, and it
 * looks by itself every 100 ms: so it is woken only when a quarter is filled.
 */
static __always_inline void ef_submit(void *record) {
	__u64 waiting = bpf_ringbuf_query(&ef_events, BPF_RB_AVAIL_DATA);

	ef_count(EF_DELIVERED);
	bpf_ringbuf_submit(record,
			   waiting >= EF_RING_BYTES / 4 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

#endif /* EF_RING_BYTES */

/*
 * The kernel's fields, through whatever name and place this kernel has for
 * them. EF_READ probes (raw_tp: the pointer is only a number to the verifier),
 * and is right for tp_btf too.
 */
#define EF_READ(src, field, ...) BPF_CORE_READ(src, field, ##__VA_ARGS__)

static __always_inline long ef_task_state(struct task_struct *task) {
	struct task_struct___before_5_14 *old = (void *)task;

	if (bpf_core_field_exists(task->__state))
		return BPF_CORE_READ(task, __state);
	return BPF_CORE_READ(old, state);
}

/*
 * True while the task holds a CPU. Kernels built without SMP have no "on_cpu";
 * there the one task that runs is the current one.
 */
static __always_inline bool ef_task_on_cpu(struct task_struct *task) {
	if (bpf_core_field_exists(task->on_cpu))
		return BPF_CORE_READ(task, on_cpu) != 0;
	return BPF_CORE_READ(task, pid) == (pid_t)bpf_get_current_pid_tgid();
}

/* The state with which "prev" left the CPU; ctx holds the arguments of sched_switch. */
static __always_inline long ef_switch_prev_state(const __u64 *ctx, struct task_struct *prev) {
	if (bpf_core_type_exists(btf_trace_sched_switch___since_5_18))
		return (__u32)ctx[3];
	return ef_task_state(prev);
}

#endif
