/* SPDX-License-Identifier: GPL-2.0 */
#ifndef EF_KERNEL_H
#define EF_KERNEL_H

/*
 * What our programs know of the kernel, from 5.10 on. Everything that differs
 * between kernels is here, each shim with the version that made it necessary.
 * Only the fields that a program reads are declared: CO-RE finds their place.
 */

typedef _Bool bool;
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef int pid_t;

#define __ksym_struct __attribute__((preserve_access_index))

/* From the kernel's user interface (include/uapi/linux/bpf.h); these never change. */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
};

enum { BPF_RB_AVAIL_DATA = 0 };

#define EF_EEXIST 17

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
} __ksym_struct;

struct task_struct {
	unsigned int __state;
	int on_cpu;
	pid_t pid;
	pid_t tgid;
	struct task_struct *real_parent;
	const struct cred *cred;
	char comm[16];
} __ksym_struct;

struct linux_binprm {
	const char *filename;
} __ksym_struct;

/* Before 5.14 (2f064a59a11f) the field was named "state" and was a long. */
struct task_struct___before_5_14 {
	volatile long state;
} __ksym_struct;

/*
 * Since 5.18 (fa2c3254d7cf, order fixed by 9c2136be0878) sched_switch hands
 * over the state with which the task left the CPU as a fourth argument.
 */
typedef void (*btf_trace_sched_switch___since_5_18)(void *, bool, struct task_struct *,
						    struct task_struct *, unsigned int);

#define EF_TASK_RUNNING 0

#endif
