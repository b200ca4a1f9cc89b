/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/seccomp.h"

#include <errno.h>

#ifndef EF_SECCOMP

int ef_seccomp_install(void) {
	return -EOPNOTSUPP;
}

#else

#include <linux/bpf.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

#define AN_INT 0xffffffffULL /* the kernel looks at no more of the register */

/* docs/privileges.md is made from these two tables: tools/privileges.py reads them as text. */

/* Allowed whatever its arguments. A name that this machine lacks is left out. */
static const struct {
	const char *why;
	const char *calls;
} allowed[] = {
    {"files that it reads: bundle, control files, trust, /proc, /sys, tracefs",
     "open openat read pread64 readv close lseek fcntl access faccessat faccessat2 stat lstat "
     "fstat newfstatat statx readlink readlinkat getdents64 getcwd"},
    {"files that it writes: status, metrics, events, audit, and their rotation",
     "write writev pwrite64 ftruncate rename renameat renameat2 unlink unlinkat fchmod"},
    {"programs: perf events, which kprobes and tracepoints hang on", "perf_event_open"},
    {"memory", "brk munmap mremap madvise"},
    {"descriptors that libbpf since 1.4 keeps free for maps", "memfd_create dup3"},
    {"the loop: what it waits for, and control files that change",
     "epoll_create1 epoll_ctl epoll_wait epoll_pwait poll ppoll eventfd2 signalfd4 "
     "timerfd_create timerfd_settime inotify_init1 inotify_add_watch"},
    {"the notify socket, the journal and a sink's datagrams", "connect sendto sendmsg sendmmsg"},
    {"time and chance; sleep within the C library",
     "clock_gettime gettimeofday time clock_nanosleep nanosleep restart_syscall getrandom"},
    {"signals, threads and the end",
     "rt_sigaction rt_sigprocmask rt_sigreturn futex set_robust_list rseq sched_yield exit "
     "exit_group"},
    {"who and where it is; what it is still permitted",
     "getpid gettid getuid geteuid getgid getegid uname sysinfo sched_getaffinity getcpu capget"},
};

/* Allowed for one use: the masked argument must have that value. */
static const struct {
	const char *why;
	const char *call;
	unsigned arg;
	uint64_t mask, value;
} restricted[] = {
    {"no socket but a Unix one", "socket", 0, AN_INT, AF_UNIX},
    {"no memory that holds code", "mmap", 2, PROT_EXEC, 0},
    {"no memory that becomes code", "mprotect", 2, PROT_EXEC, 0},
    {"perf events only (type '$')", "ioctl", 1, 0xff00, '$' << 8},
    {"a thread, never a process or a namespace", "clone", 0,
     CLONE_THREAD | CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET, CLONE_THREAD},
    {"who is at the other end of a socket", "getsockopt", 2, AN_INT, SO_PEERCRED},
    {"limits of its own", "prlimit64", 0, AN_INT, 0},
    {"maps: make", "bpf", 0, AN_INT, BPF_MAP_CREATE},
    {"maps: read", "bpf", 0, AN_INT, BPF_MAP_LOOKUP_ELEM},
    {"maps: write", "bpf", 0, AN_INT, BPF_MAP_UPDATE_ELEM},
    {"maps: remove", "bpf", 0, AN_INT, BPF_MAP_DELETE_ELEM},
    {"maps: list keys", "bpf", 0, AN_INT, BPF_MAP_GET_NEXT_KEY},
    {"maps: read in batches", "bpf", 0, AN_INT, BPF_MAP_LOOKUP_BATCH},
    {"maps: constants of a program", "bpf", 0, AN_INT, BPF_MAP_FREEZE},
    {"maps: constants of a program", "bpf", 0, AN_INT, BPF_PROG_BIND_MAP},
    {"programs: load", "bpf", 0, AN_INT, BPF_PROG_LOAD},
    {"programs: types of theirs", "bpf", 0, AN_INT, BPF_BTF_LOAD},
    {"programs: attach", "bpf", 0, AN_INT, BPF_LINK_CREATE},
    {"programs: attach", "bpf", 0, AN_INT, BPF_RAW_TRACEPOINT_OPEN},
    {"what became of its own programs, maps and links", "bpf", 0, AN_INT, BPF_OBJ_GET_INFO_BY_FD},
};

/* A name that the library does not know, or this machine does not have, is negative. */
static int allow(scmp_filter_ctx filter, const char *name, const struct scmp_arg_cmp *when) {
	int number = seccomp_syscall_resolve_name(name);

	if (number < 0)
		return 0;
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, when ? 1 : 0, when);
}

static int allow_each(scmp_filter_ctx filter, const char *names) {
	char name[32];

	while (*names) {
		size_t length = strcspn(names, " ");
		int err;

		memcpy(name, names, length);
		name[length] = 0;
		err = allow(filter, name, NULL);
		if (err)
			return err;
		names += length;
		names += strspn(names, " ");
	}
	return 0;
}

static int allow_restricted(scmp_filter_ctx filter) {
	for (size_t i = 0; i < EF_ARRAY_SIZE(restricted); i++) {
		const struct scmp_arg_cmp when = {
		    .arg = restricted[i].arg,
		    .op = SCMP_CMP_MASKED_EQ,
		    .datum_a = restricted[i].mask,
		    .datum_b = restricted[i].value,
		};
		int err = allow(filter, restricted[i].call, &when);

		if (err)
			return err;
	}
	return 0;
}

/* abort() sends a signal to itself; no one else gets one. */
static int allow_abort(scmp_filter_ctx filter) {
	const struct scmp_arg_cmp self = SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid());

	return allow(filter, "tgkill", &self);
}

/* Its flags lie in memory, out of a filter's sight. ENOSYS has the C library fall back to clone. */
static int hide_clone3(scmp_filter_ctx filter) {
	int number = seccomp_syscall_resolve_name("clone3");

	return number < 0 ? 0 : seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), number, 0);
}

static int fill(scmp_filter_ctx filter) {
	int err;

	for (size_t i = 0; i < EF_ARRAY_SIZE(allowed); i++) {
		err = allow_each(filter, allowed[i].calls);
		if (err)
			return err;
	}
	err = allow_restricted(filter);
	if (!err)
		err = allow_abort(filter);
	return err ? err : hide_clone3(filter);
}

int ef_seccomp_install(void) {
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int err;

	if (!filter)
		return -ENOMEM;
	seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree; a list works too */
	seccomp_attr_set(filter, SCMP_FLTATR_API_SYSRAWRC, 1); /* the kernel's own errno */
	err = fill(filter);
	if (!err)
		err = seccomp_load(filter);
	seccomp_release(filter);
	return err;
}

#endif
