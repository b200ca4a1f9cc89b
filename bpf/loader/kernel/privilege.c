/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/privilege.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/must.h"
#include "base/util.h"

#define LAST_CAP_FILE "/proc/sys/kernel/cap_last_cap"
#define CAP_MOST 63 /* the two words of capget(2) */
#define BIT(cap) (1ULL << (cap))

/*
 * By program type. Types of networking (xdp, sched_cls, cgroup_skb) also need
 * CAP_NET_ADMIN; contracts cannot ask for them, so they have no line, and it is
 * never kept.
 */
static const struct {
	const char *type;
	uint64_t needs;
} types[] = {
    {"tracing", BIT(CAP_BPF) | BIT(CAP_PERFMON)},
    {"raw_tracepoint", BIT(CAP_BPF) | BIT(CAP_PERFMON)},
    {"tracepoint", BIT(CAP_BPF) | BIT(CAP_PERFMON)},
    {"kprobe", BIT(CAP_BPF) | BIT(CAP_PERFMON)},
    {"lsm", BIT(CAP_BPF) | BIT(CAP_PERFMON)},
};

/* As capabilities(7) names them, by number. */
/* clang-format off */
static const char *const names[] = {
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace",
    "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
    "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
    "perfmon", "bpf", "checkpoint_restore",
};
/* clang-format on */

int ef_privilege_stats(void) {
	int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);

	return fd < 0 ? -errno : fd;
}

int ef_privilege_last_cap(void) {
	_cleanup_fclose_ FILE *file = fopen(LAST_CAP_FILE, "re");
	int cap;

	if (!file || fscanf(file, "%d", &cap) != 1 || cap < 0 || cap > CAP_MOST)
		return CAP_LAST_CAP; /* not known is not a reason to keep more */
	return cap;
}

/* CAP_BPF and CAP_PERFMON are of 5.8 (a17b53c4a4b5, 980737282232); before, CAP_SYS_ADMIN was both.
 */
static uint64_t as_known(uint64_t needs, int last_cap) {
	const uint64_t split = BIT(CAP_BPF) | BIT(CAP_PERFMON);

	if (last_cap >= CAP_BPF || !(needs & split))
		return needs;
	return (needs & ~split) | BIT(CAP_SYS_ADMIN);
}

uint64_t ef_privilege_kept(int last_cap) {
	uint64_t needs = 0;

	for (size_t i = 0; i < EF_ARRAY_SIZE(types); i++)
		needs |= types[i].needs;
	return as_known(needs, last_cap);
}

bool ef_privilege_is_broad(uint64_t capabilities) {
	return capabilities & BIT(CAP_SYS_ADMIN);
}

/* Before 5.11 maps count against RLIMIT_MEMLOCK; where we may not raise it, the unit did. */
static void raise_memlock(void) {
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_MEMLOCK, &unlimited);
}

/* So that nothing we would ever exec gets them back; needs CAP_SETPCAP, else capset must do. */
static void drop_bounding(uint64_t keep) {
	for (int cap = 0; cap <= CAP_MOST; cap++)
		if (!(keep & BIT(cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

static int get_caps(struct __user_cap_data_struct caps[2]) {
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(SYS_capget, &header, caps) ? -errno : 0;
}

int ef_privilege_drop(uint64_t keep) {
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2] = {0};
	int err;

	raise_memlock();
	drop_bounding(keep);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	err = get_caps(caps);
	if (err)
		return err;
	for (int word = 0; word < 2; word++) {
		caps[word].permitted &= (uint32_t)(keep >> (32 * word));
		caps[word].effective = caps[word].permitted;
		caps[word].inheritable = 0;
	}
	return syscall(SYS_capset, &header, caps) ? -errno : 0;
}

static json_t *name_json(int cap) {
	if (cap < (int)EF_ARRAY_SIZE(names))
		return json_sprintf("cap_%s", names[cap]);
	return json_sprintf("cap_%d", cap);
}

/* What is permitted, by name: what could be made use of, not only what is in effect. */
static json_t *capabilities_json(void) {
	struct __user_cap_data_struct caps[2] = {0};
	json_t *list;

	if (get_caps(caps))
		return json_null();
	list = ef_must(json_array());
	for (int cap = 0; cap <= CAP_MOST; cap++)
		if (caps[cap / 32].permitted & (1u << (cap % 32)))
			json_array_append_new(list, name_json(cap));
	return list;
}

/* The thread's own, which is the process's: the filter comes before any other thread. */
static json_t *seccomp_json(void) {
	_cleanup_fclose_ FILE *file = fopen("/proc/thread-self/status", "re");
	char line[256];
	int mode;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			return json_boolean(mode == SECCOMP_MODE_FILTER);
	return json_null();
}

json_t *ef_privilege_json(void) {
	return ef_must(json_pack("{s:I, s:o, s:o}", "uid", (json_int_t)geteuid(), "capabilities",
				 capabilities_json(), "seccomp", seccomp_json()));
}
