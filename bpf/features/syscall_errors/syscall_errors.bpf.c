// SPDX-License-Identifier: GPL-2.0
/*
 * syscall_errors: how often system calls failed, by number and errno.
 *
 * Runs at the end of every system call of the host: one that succeeded costs a
 * comparison and is not counted at all. Codes above EF_LAST_ERRNO are not
 * errors yet: the kernel restarts the call or turns them into EINTR afterwards.
 */
#include "ef.h"

#ifndef EF_SCE_KEYS
#define EF_SCE_KEYS 2048
#endif

#define EF_LAST_ERRNO 511

struct ef_sce_key {
	__u16 syscall;
	__u16 error;
	__u32 compat; /* 1: number of the 32-bit table of x86 */
};

EF_COUNTER_TABLE(ef_sce_count, struct ef_sce_key, EF_SCE_KEYS)

static __always_inline int on_error(const struct pt_regs___syscall *regs, __u16 error) {
	struct ef_sce_key key = {.error = error};
	int number = ef_syscall_number(regs);
	__u64 weight;

	EF_KEEP_TYPE(struct ef_sce_key);
	weight = number < 0 ? 0 : ef_produce();
	if (!weight)
		return 0;
	key.syscall = number;
	key.compat = ef_syscall_compat();
	ef_count_added(ef_sce_count_add(&key, weight));
	return 0;
}

#ifdef EF_VARIANT_FULL
SEC("tp_btf/sys_exit")
#else
SEC("raw_tp/sys_exit")
#endif
int ef_sce_exit(__u64 *ctx) {
	__u64 error = -ctx[1];

	if (error - 1 >= EF_LAST_ERRNO)
		return 0;
	return on_error((void *)ctx[0], error);
}

char LICENSE[] SEC("license") = "GPL";
