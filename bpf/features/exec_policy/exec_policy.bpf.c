// SPDX-License-Identifier: GPL-2.0
/*
 * exec_policy: one record for each execution that a policy would deny: of a
 * file that has no name any more (deleted, or a memfd, which never had one).
 *
 * It observes. The LSM program returns 0 on every way, so it can deny nothing;
 * the other variants are not LSM programs at all and could not.
 */
#ifndef EF_RING_BYTES
#define EF_RING_BYTES (64 * 1024)
#endif
#define EF_FAIR
#include "ef.h"

struct ef_epl_event {
	__u64 ktime_ns;
	__u64 weight;
	__u32 pid;
	__u32 uid;
	char comm[16];	   /* who executes */
	char name[64];	   /* the file's last name; "memfd:..." for a memfd */
	char filename[64]; /* as it was given to execve() */
};

static __always_inline void report(struct linux_binprm *bprm, struct file *file, __u64 weight) {
	struct ef_epl_event *event = ef_reserve(sizeof(*event));

	if (!event)
		return;
	event->ktime_ns = bpf_ktime_get_ns();
	event->weight = weight;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->name[0] = event->filename[0] = 0;
	bpf_probe_read_kernel_str(event->name, sizeof(event->name),
				  EF_READ(file, f_path.dentry, d_name.name));
	bpf_probe_read_kernel_str(event->filename, sizeof(event->filename),
				  EF_READ(bprm, filename));
	ef_submit(event);
}

static __always_inline void on_exec(struct linux_binprm *bprm) {
	struct file *file = EF_READ(bprm, file);
	__u64 weight;

	EF_KEEP_TYPE(struct ef_epl_event);
	if (EF_READ(file, f_inode, i_nlink))
		return;
	weight = ef_produce_fairly((void *)bpf_get_current_task());
	if (weight)
		report(bprm, file, weight);
}

#if defined(EF_VARIANT_FULL)
SEC("lsm/bprm_check_security")
int ef_epl_exec(void *ctx) {
	on_exec(EF_BTF_ARG(ctx, 0));
	return 0;
}
#elif defined(EF_VARIANT_REDUCED)
SEC("fentry/security_bprm_check")
int ef_epl_exec(void *ctx) {
	on_exec(EF_BTF_ARG(ctx, 0));
	return 0;
}
#else
SEC("kprobe/security_bprm_check")
int ef_epl_exec(void *ctx) {
	on_exec(EF_KPROBE_ARG1(ctx));
	return 0;
}
#endif

char LICENSE[] SEC("license") = "GPL";
