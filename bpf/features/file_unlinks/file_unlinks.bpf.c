// SPDX-License-Identifier: GPL-2.0
/*
 * file_unlinks: how often programs removed a file's name, by user.
 *
 * Counts calls, not outcomes. All but "vfs" count unlink() and unlinkat() of
 * files; "vfs" is for kernels where that function cannot be probed and counts
 * what reached a file system: a name that is not there is missing in it, and
 * one on an overlay counts once for each layer that it is removed from.
 */
#include "ef.h"

#ifndef EF_UNL_KEYS
#define EF_UNL_KEYS 1024
#endif

struct ef_unl_key {
	__u32 uid;
};

EF_COUNTER_TABLE(ef_unl_count, struct ef_unl_key, EF_UNL_KEYS)

#if defined(EF_VARIANT_FULL)
SEC("fentry/do_unlinkat")
#elif defined(EF_VARIANT_RENAMED)
SEC("fentry/filename_unlinkat") /* what do_unlinkat() is called on 7.3 */
#elif defined(EF_VARIANT_REDUCED)
SEC("kprobe/do_unlinkat")
#else
SEC("kprobe/vfs_unlink")
#endif
int ef_unl(void *ctx) {
	struct ef_unl_key key = {.uid = (__u32)bpf_get_current_uid_gid()};
	__u64 weight = ef_produce();

	EF_KEEP_TYPE(struct ef_unl_key);
	if (weight)
		ef_count_added(ef_unl_count_add(&key, weight));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
