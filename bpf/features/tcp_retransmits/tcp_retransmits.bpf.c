// SPDX-License-Identifier: GPL-2.0
/*
 * tcp_retransmits: how often TCP sent something again, by address family and
 * state of the connection.
 *
 * Full and reduced count the calls of tcp_retransmit_skb(): every attempt of
 * the retransmission timer or of fast recovery. "tracepoint" is for kernels
 * without kprobes and counts what the kernel reports as sent again; loss probes
 * are among it, and since 6.18 so are attempts that failed.
 */
#include "ef.h"

#define EF_RTX_KEYS 64

struct ef_rtx_key {
	__u16 family; /* AF_INET 2, AF_INET6 10 */
	__u16 state;  /* TCP_ESTABLISHED 1, TCP_SYN_SENT 2, ... */
};

EF_COUNTER_TABLE(ef_rtx_count, struct ef_rtx_key, EF_RTX_KEYS)

static __always_inline int on_retransmit(struct sock *sk) {
	__u64 weight = ef_produce();
	struct ef_rtx_key key = {};

	EF_KEEP_TYPE(struct ef_rtx_key);
	if (!weight)
		return 0;
	key.family = EF_READ(sk, __sk_common.skc_family);
	key.state = EF_READ(sk, __sk_common.skc_state);
	ef_count_added(ef_rtx_count_add(&key, weight));
	return 0;
}

#if defined(EF_VARIANT_FULL)
SEC("fentry/tcp_retransmit_skb")
int ef_rtx(void *ctx) {
	return on_retransmit(EF_BTF_ARG(ctx, 0));
}
#elif defined(EF_VARIANT_REDUCED)
SEC("kprobe/tcp_retransmit_skb")
int ef_rtx(void *ctx) {
	return on_retransmit(EF_KPROBE_ARG1(ctx));
}
#else
SEC("raw_tp/tcp_retransmit_skb")
int ef_rtx(void *ctx) {
	return on_retransmit(EF_BTF_ARG(ctx, 0));
}
#endif

char LICENSE[] SEC("license") = "GPL";
