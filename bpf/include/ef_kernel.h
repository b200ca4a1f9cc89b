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
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
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

#define EF_CURRENT_CPU 0xffffffffULL /* BPF_F_CURRENT_CPU */

#define EF_ENOENT 2
#define EF_EEXIST 17

/* The registers as a kprobe's context shows them: fixed, whatever the kernel's own names are. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	unsigned long orig_rax, rip, cs, eflags, rsp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31], sp, pc, pstate;
};
#endif

typedef struct {
	unsigned int val;
} kuid_t;

struct user_namespace {
	struct user_namespace *parent;
	int level; /* 0: the initial one */
	kuid_t owner;
} __ksym_struct;

struct cred {
	kuid_t uid;
	struct user_namespace *user_ns;
} __ksym_struct;

struct kernfs_node {
	__u64 id;
} __ksym_struct;

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup *ancestors[];
} __ksym_struct;

/* Before 6.1 (7f203bc89eb6) a control group held its ancestors' numbers, itself included. */
struct cgroup___before_6_1 {
	int level; /* a flexible array does not stand alone */
	__u64 ancestor_ids[];
} __ksym_struct;

struct css_set {
	struct cgroup *dfl_cgrp;
} __ksym_struct;

/* x86: bit 1 of "status" is set while a 32-bit system call is served (TS_COMPAT). */
struct thread_info {
	__u32 status;
} __ksym_struct;

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	int on_cpu;
	pid_t pid;
	pid_t tgid;
	struct task_struct *real_parent;
	const struct cred *cred;
	struct css_set *cgroups;
	char comm[16];
} __ksym_struct;

/* The kernel's own view of the registers at the entry of a system call. */
struct pt_regs___syscall {
#if defined(__TARGET_ARCH_x86)
	unsigned long orig_ax;
#else
	int syscallno;
#endif
} __ksym_struct;

struct qstr {
	const unsigned char *name;
} __ksym_struct;

struct dentry {
	struct qstr d_name;
} __ksym_struct;

struct path {
	struct dentry *dentry;
} __ksym_struct;

struct inode {
	const unsigned int i_nlink;
} __ksym_struct;

struct file {
	struct path f_path;
	struct inode *f_inode;
} __ksym_struct;

struct linux_binprm {
	struct file *file;
	const char *filename;
} __ksym_struct;

struct sock_common {
	unsigned short skc_family;
	volatile unsigned char skc_state;
} __ksym_struct;

struct sock {
	struct sock_common __sk_common;
	__u16 sk_protocol; /* a field of its own since 5.6 (bf9765145b85) */
	int sk_err;
} __ksym_struct;

enum {
	EF_TCP_ESTABLISHED = 1,
	EF_TCP_SYN_SENT = 2,
	EF_TCP_SYN_RECV = 3,
};

#define EF_IPPROTO_TCP 6

struct cgroup_subsys_state {
	struct cgroup *cgroup;
} __ksym_struct;

struct mem_cgroup {
	struct cgroup_subsys_state css;
} __ksym_struct;

struct oom_control {
	struct mem_cgroup *memcg; /* NULL: the whole host is out of memory */
	unsigned long totalpages;
	struct task_struct *chosen;
	long chosen_points;
} __ksym_struct;

/* Defined, not only declared: CO-RE takes a declaration for another kind of type. */
struct request {};

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

/*
 * Before 5.11 (a54895fa057c) block_rq_issue handed over the queue first, then
 * the request.
 */
typedef void (*btf_trace_block_rq_issue___since_5_11)(void *, struct request *);

/*
 * Before 6.9 (72ba14deb40a) mark_victim handed over a pid only.
 */
typedef void (*btf_trace_mark_victim___since_6_9)(void *, struct task_struct *, unsigned int);

#define EF_TASK_RUNNING 0

#endif
