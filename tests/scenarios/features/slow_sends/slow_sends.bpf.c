// SPDX-License-Identifier: GPL-2.0
/*
 * slow_sends: counts what the test's own HTTP service sends, and burns time in
 * some of the calls: the release that slows an application. It meets no other
 * process of the host. Needs bpf_loop, which kernels before 5.17 lack.
 */
#include "ef.h"

#if defined(__TARGET_ARCH_x86)
#define NR_SENDTO 44
#else
#define NR_SENDTO 206
#endif
/* One call in so many is slowed, each by up to some tens of milliseconds. */
#define ONE_IN 8
#define ROUNDS (6 << 20)

struct ef_slow_key {
	char comm[16];
};

EF_COUNTER_TABLE(ef_slow_sends, struct ef_slow_key, 16)

static long burn(__u32 index, void *sum) {
	*(__u64 *)sum += index;
	return 0;
}

SEC("raw_tp/sys_enter")
int ef_slow_enter(__u64 *ctx) {
	struct ef_slow_key key = {0};
	__u64 weight, sum = 0;

	EF_KEEP_TYPE(struct ef_slow_key);
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	if (ctx[1] != NR_SENDTO || key.comm[0] != 'e' || key.comm[1] != 'f' || key.comm[2] != '-' ||
	    key.comm[3] != 's' || key.comm[4] != 'h' || key.comm[5] != 'o' || key.comm[6] != 'p')
		return 0;
	if (!(bpf_get_prandom_u32() % ONE_IN))
		bpf_loop(ROUNDS, burn, &sum, 0);
	weight = ef_produce();
	if (weight)
		ef_count_added(ef_slow_sends_add(&key, weight));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
