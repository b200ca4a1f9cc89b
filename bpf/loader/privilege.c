/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "privilege.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util.h"

#define WORD(cap) ((cap) / 32)
#define BIT(cap) (1u << ((cap) % 32))

int ef_privilege_stats(void) {
	int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);

	return fd < 0 ? -errno : fd;
}

/* Before 5.11 maps count against RLIMIT_MEMLOCK; where we may not raise it, the unit did. */
static void raise_memlock(void) {
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_MEMLOCK, &unlimited);
}

/* So that nothing we would ever exec gets them back; needs CAP_SETPCAP, else capset must do. */
static void drop_bounding(void) {
	for (int cap = 0; cap <= 63; cap++)
		if (cap != CAP_BPF && cap != CAP_PERFMON)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

int ef_privilege_drop(void) {
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];
	const unsigned keep = BIT(CAP_BPF) | BIT(CAP_PERFMON);

	raise_memlock();
	drop_bounding();
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (syscall(SYS_capget, &header, caps))
		return -errno;
	for (int word = 0; word < 2; word++) {
		caps[word].permitted &= word == WORD(CAP_BPF) ? keep : 0;
		caps[word].effective = caps[word].permitted;
		caps[word].inheritable = 0;
	}
	return syscall(SYS_capset, &header, caps) ? -errno : 0;
}
