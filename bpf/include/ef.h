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
	__u32 quota;	    /* events that may pass in a window; 0: all. See ef_fair.h */
	__u64 gate_ns;	    /* CLOCK_MONOTONIC, what "gate" is about. See ef_gate.h */
	__u32 gate;	    /* enum ef_gate */
	__u32 pad;
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

static __always_inline struct ef_config *ef_get_config(void) {
	__u32 zero = 0;

	return bpf_map_lookup_elem(&ef_config, &zero);
}

#include "ef_gate.h"

/*
 * For one event in sample_every its weight, which is sample_every; 0 for the others.
 * Drawn at random: every n-th event would beat with a workload that repeats itself.
 */
static __always_inline __u64 ef_draw(const struct ef_config *config) {
	if (!config || config->sample_every <= 1)
		return 1;
	if (((__u64)bpf_get_prandom_u32() * config->sample_every) >> 32)
		return 0;
	return config->sample_every;
}

/*
 * The kernel's fields, through whatever name and place this kernel has for
 * them. EF_READ probes (raw_tp: the pointer is only a number to the verifier),
 * and is right for tp_btf too.
 */
#define EF_READ(src, field, ...) BPF_CORE_READ(src, field, ##__VA_ARGS__)

/*
 * Keeps a struct in the object's BTF, by which the loader decodes records and
 * keys. A global variable would do too, but would bring a map of its own.
 */
#define EF_KEEP_TYPE(type)                                                                         \
	({                                                                                         \
		__u32 id = bpf_core_type_id_local(type);                                           \
		asm volatile("" : : "r"(id));                                                      \
	})

/* The first argument of the function that a kprobe or an fentry/tp_btf/raw_tp/lsm program is at. */
#define EF_KPROBE_ARG1(ctx) ((void *)PT_REGS_PARM1((struct pt_regs *)(ctx)))
#define EF_KPROBE_ARG2(ctx) ((void *)PT_REGS_PARM2((struct pt_regs *)(ctx)))
#define EF_BTF_ARG(ctx, n) ((void *)((__u64 *)(ctx))[n])

/*
 * A sum as it was measured, and the same with each value times its weight: an estimate of
 * what it would be without sampling, however often that changed.
 */
struct ef_sum {
	__u64 raw;
	__u64 weighted;
};

/* As ef_count(). */
static __always_inline void ef_sum_add(struct ef_sum *sum, __u64 value, __u64 weight) {
	__sync_fetch_and_add(&sum->raw, value);
	__sync_fetch_and_add(&sum->weighted, value * weight);
}

/* As ef_count_irqoff(). */
static __always_inline void ef_sum_add_irqoff(struct ef_sum *sum, __u64 value, __u64 weight) {
	sum->raw += value;
	sum->weighted += value * weight;
}

/* What begins now and is measured at its end; the weight is that of its beginning. */
struct ef_begun {
	__u64 ktime_ns;
	__u64 weight;
};

#ifdef EF_WITH_HISTOGRAM

#define EF_HIST_SLOTS 64
#define EF_HIST_SUM 64

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EF_HIST_SLOTS + 1);
	__type(key, __u32);
	__type(value, struct ef_sum);
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

/* Adds one value of that weight to the histogram; right wherever interrupts are on (see ef_count).
 */
static __always_inline void ef_hist_add(__u64 v, __u64 weight) {
	__u32 slot = ef_log2(v), sum = EF_HIST_SUM;
	struct ef_sum *count = bpf_map_lookup_elem(&ef_hist, &slot);
	struct ef_sum *total = bpf_map_lookup_elem(&ef_hist, &sum);

	if (count)
		ef_sum_add(count, 1, weight);
	if (total)
		ef_sum_add(total, v, weight);
}

/* The same where interrupts are off (see ef_count_irqoff). */
static __always_inline void ef_hist_add_irqoff(__u64 v, __u64 weight) {
	__u32 slot = ef_log2(v), sum = EF_HIST_SUM;
	struct ef_sum *count = bpf_map_lookup_elem(&ef_hist, &slot);
	struct ef_sum *total = bpf_map_lookup_elem(&ef_hist, &sum);

	if (count)
		ef_sum_add_irqoff(count, 1, weight);
	if (total)
		ef_sum_add_irqoff(total, v, weight);
}

#endif /* EF_WITH_HISTOGRAM */

#ifdef EF_RING_BYTES

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EF_RING_BYTES);
} ef_events SEC(".maps");

/* Space for one record, or NULL with the drop counted. */
static __always_inline void *ef_reserve(__u64 size) {
	void *record = bpf_ringbuf_reserve(&ef_events, size, 0);

	if (!record)
		ef_count(EF_DROPPED);
	return record;
}

#define EF_RING_HEADER 8 /* BPF_RINGBUF_HDR_SZ; a record takes a multiple of it */

/*
 * Hands a record of that size over. Waking the reader costs more than all the
 * rest, and it looks by itself every 100 to 300 ms: so it is woken only by the record
 * that fills a quarter, and again by each further one. Two CPUs in the same
 * moment may both miss a quarter; the next one, or the reader by itself, makes
 * up for it.
 */
static __always_inline void ef_submit_sized(void *record, __u64 size) {
	__u64 waiting = bpf_ringbuf_query(&ef_events, BPF_RB_AVAIL_DATA);
	__u64 before = waiting - ((size + 2 * EF_RING_HEADER - 1) & ~(EF_RING_HEADER - 1ULL));

	ef_count(EF_DELIVERED);
	bpf_ringbuf_submit(record, waiting / (EF_RING_BYTES / 4) != before / (EF_RING_BYTES / 4)
				       ? BPF_RB_FORCE_WAKEUP
				       : BPF_RB_NO_WAKEUP);
}

#define ef_submit(record) ef_submit_sized(record, sizeof(*(record)))

#endif /* EF_RING_BYTES */

#ifdef EF_PERF_EVENTS

/* One buffer for each CPU; on a host with more CPUs than this, the others' records are dropped. */
#define EF_PERF_CPUS 512

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, EF_PERF_CPUS);
	__type(key, __u32);
	__type(value, __u32);
} ef_perf_events SEC(".maps");

/* Copies one record into this CPU's perf buffer; one for which there is no room is dropped. */
static __always_inline void ef_output(void *ctx, void *record, __u64 size) {
	if (bpf_perf_event_output(ctx, &ef_perf_events, EF_CURRENT_CPU, record, size))
		ef_count(EF_DROPPED);
	else
		ef_count(EF_DELIVERED);
}

#endif /* EF_PERF_EVENTS */

/*
 * A table of counters by key: a percpu_hash "name" of at most "entries" keys of
 * type struct "key_type", whose fields become labels, and name_add(&key, weight) that
 * adds one: 0, or an error when a new key has no place. Every byte of a key
 * must be set, padding included.
 */
#define EF_COUNTER_TABLE(name, key_type, entries)                                                  \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_HASH);                                            \
		__uint(max_entries, entries);                                                      \
		__type(key, key_type);                                                             \
		__type(value, struct ef_sum);                                                      \
	} name SEC(".maps");                                                                       \
                                                                                                   \
	static __always_inline int name##_add(const key_type *key, __u64 weight) {                 \
		return ef_table_add(&name, key, weight);                                           \
	}

/* Another CPU may put the key in first: then BPF_NOEXIST fails and the key is there. */
static __always_inline int ef_table_add(void *table, const void *key, __u64 weight) {
	struct ef_sum *sum = bpf_map_lookup_elem(table, key), zero = {};

	if (!sum) {
		bpf_map_update_elem(table, key, &zero, BPF_NOEXIST);
		sum = bpf_map_lookup_elem(table, key);
	}
	if (!sum)
		return -EF_ENOENT;
	ef_sum_add(sum, 1, weight);
	return 0;
}

/* What becomes of an event that ef_table_add() took, or did not. */
static __always_inline void ef_count_added(int err) {
	ef_count(err ? EF_DROPPED : EF_DELIVERED);
}

/*
 * Counts an event as produced. Its weight; 0 when chance passes it over, which is then counted
 * too, and 0 with nothing counted while another loader's program counts (see ef_gate.h).
 */
static __always_inline __u64 ef_produce(void) {
	const struct ef_config *config = ef_get_config();
	__u64 weight;

	if (!ef_is_open(config))
		return 0;
	ef_count(EF_PRODUCED);
	weight = ef_draw(config);
	if (!weight)
		ef_count(EF_SAMPLED_OUT);
	return weight;
}

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

/*
 * Argument n of a program's context, read at a constant offset: the compiler
 * would else add the offset to the pointer, which no verifier allows.
 */
#define EF_CTX_ARG(ctx, n)                                                                         \
	({                                                                                         \
		__u64 value;                                                                       \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(ctx), "i"((n)*8));       \
		value;                                                                             \
	})

/* The request that block_rq_issue hands over; ctx holds its arguments. */
static __always_inline __u64 ef_issued_request(const __u64 *ctx) {
	if (bpf_core_type_exists(btf_trace_block_rq_issue___since_5_11))
		return EF_CTX_ARG(ctx, 0);
	return EF_CTX_ARG(ctx, 1);
}

/* The task that mark_victim marks, or NULL on kernels that hand over only its pid. */
static __always_inline struct task_struct *ef_marked_task(const __u64 *ctx) {
	if (bpf_core_type_exists(btf_trace_mark_victim___since_6_9))
		return (void *)ctx[0];
	return (void *)0;
}

/* The number of the system call that ends; negative where the kernel has forgotten it. */
static __always_inline int ef_syscall_number(const struct pt_regs___syscall *regs) {
#if defined(__TARGET_ARCH_x86)
	return (int)BPF_CORE_READ(regs, orig_ax);
#else
	return BPF_CORE_READ(regs, syscallno);
#endif
}

/* True in a 32-bit system call of a 64-bit x86 kernel: its numbers are others. */
static __always_inline bool ef_syscall_compat(void) {
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = (void *)bpf_get_current_task();

	if (bpf_core_field_exists(task->thread_info.status))
		return BPF_CORE_READ(task, thread_info.status) & 2;
#endif
	return 0;
}

/* The control group of a task in the hierarchy of version 2. */
static __always_inline struct cgroup *ef_task_cgroup(struct task_struct *task) {
	return EF_READ(task, cgroups, dfl_cgrp);
}

/* The number of a control group, which is the inode of its folder. */
static __always_inline __u64 ef_cgroup_id(struct cgroup *group) {
	return EF_READ(group, kn, id);
}

/* The number of its ancestor at that level, or its own where it is less deep; 0: not known. */
static __always_inline __u64 ef_cgroup_ancestor(struct cgroup *group, int level) {
	struct cgroup___before_6_1 *old = (void *)group;
	struct cgroup *ancestor = (void *)0;
	__u64 id = 0;

	if (EF_READ(group, level) <= level)
		return ef_cgroup_id(group);
	if (bpf_core_field_exists(group->ancestors)) {
		bpf_probe_read_kernel(&ancestor, sizeof(ancestor), &group->ancestors[level]);
		return ef_cgroup_id(ancestor);
	}
	if (bpf_core_field_exists(old->ancestor_ids))
		bpf_probe_read_kernel(&id, sizeof(id), &old->ancestor_ids[level]);
	return id;
}

#ifdef EF_FAIR

#include "ef_fair.h"

/* The same as ef_produce(), and then fair to the source that the task is: see ef_fair.h. */
static __always_inline __u64 ef_produce_fairly(struct task_struct *task) {
	__u64 weight = ef_produce();

	if (!weight)
		return 0;
	weight = ef_fair_pass(task, weight);
	if (!weight)
		ef_count(EF_SAMPLED_OUT);
	return weight;
}

#endif /* EF_FAIR */

#endif
