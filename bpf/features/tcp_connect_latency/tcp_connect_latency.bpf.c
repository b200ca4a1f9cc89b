// SPDX-License-Identifier: GPL-2.0
/*
 * tcp_connect_latency: how long connect() took until TCP was established, and
 * how many attempts failed, over IPv4 and IPv6.
 *
 * An attempt begins when a socket goes to SYN_SENT and ends with its next
 * state: ESTABLISHED puts it into the histogram, anything else but SYN_RECV (a
 * simultaneous open, which goes on) into the table of failures. Every path that
 * ends an attempt, close() and reset among them, changes the state, so no start
 * stays behind. In flight are the entries of ef_tcl_start.
 */
#define EF_WITH_HISTOGRAM
#include "ef.h"

#ifndef EF_TCL_ATTEMPTS
#define EF_TCL_ATTEMPTS 8192
#endif
#ifndef EF_TCL_KEYS
#define EF_TCL_KEYS 256
#endif

struct ef_tcl_key {
	__u16 family; /* AF_INET 2, AF_INET6 10 */
	__u16 error;  /* errno; 0: given up by the caller */
};

EF_COUNTER_TABLE(ef_tcl_failed, struct ef_tcl_key, EF_TCL_KEYS)

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EF_TCL_ATTEMPTS);
	__type(key, __u64); /* address of the socket */
	__type(value, struct ef_begun);
} ef_tcl_start SEC(".maps");

/* The socket is locked: no one else begins or ends an attempt of it meanwhile. */
static __always_inline void begin_attempt(__u64 socket) {
	struct ef_begun now = {.ktime_ns = bpf_ktime_get_ns(), .weight = ef_produce()};

	if (!now.weight)
		return;
	/* Left by a socket whose end was missed: it has no outcome. */
	if (!bpf_map_delete_elem(&ef_tcl_start, &socket))
		ef_count(EF_DROPPED);
	if (bpf_map_update_elem(&ef_tcl_start, &socket, &now, BPF_ANY))
		ef_count(EF_DROPPED);
}

static __always_inline void count_failure(struct sock *sk, __u64 weight) {
	struct ef_tcl_key key = {
	    .family = EF_READ(sk, __sk_common.skc_family),
	    .error = EF_READ(sk, sk_err),
	};

	ef_count_added(ef_tcl_failed_add(&key, weight));
}

static __always_inline void end_attempt(struct sock *sk, int state) {
	__u64 socket = (__u64)sk, now = bpf_ktime_get_ns();
	struct ef_begun *start = bpf_map_lookup_elem(&ef_tcl_start, &socket), began;

	if (!start)
		return;
	began = *start;
	if (bpf_map_delete_elem(&ef_tcl_start, &socket))
		return;
	if (state != EF_TCP_ESTABLISHED) {
		count_failure(sk, began.weight);
		return;
	}
	ef_hist_add(now - began.ktime_ns, began.weight);
	ef_count(EF_DELIVERED);
}

static __always_inline int on_state(struct sock *sk, int before, int after) {
	EF_KEEP_TYPE(struct ef_tcl_key);
	if (after == EF_TCP_SYN_SENT)
		begin_attempt((__u64)sk);
	else if (before == EF_TCP_SYN_SENT && after != EF_TCP_SYN_RECV)
		end_attempt(sk, after);
	else if (before == EF_TCP_SYN_RECV)
		end_attempt(sk,
			    after); /* of an attempt that was a simultaneous open, else of none */
	return 0;
}

#if defined(EF_VARIANT_FULL)
SEC("fentry/tcp_set_state")
int ef_tcl_state(void *ctx) {
	struct sock *sk = EF_BTF_ARG(ctx, 0);

	return on_state(sk, EF_READ(sk, __sk_common.skc_state), (long)EF_BTF_ARG(ctx, 1));
}
#elif defined(EF_VARIANT_REDUCED)
SEC("kprobe/tcp_set_state")
int ef_tcl_state(void *ctx) {
	struct sock *sk = EF_KPROBE_ARG1(ctx);

	return on_state(sk, EF_READ(sk, __sk_common.skc_state), (long)EF_KPROBE_ARG2(ctx));
}
#else
SEC("raw_tp/inet_sock_set_state")
int ef_tcl_state(void *ctx) {
	struct sock *sk = EF_BTF_ARG(ctx, 0);

	/* Other protocols over IP use the same tracepoint and the same numbers. */
	if (EF_READ(sk, sk_protocol) != EF_IPPROTO_TCP)
		return 0;
	return on_state(sk, (long)EF_BTF_ARG(ctx, 1), (long)EF_BTF_ARG(ctx, 2));
}
#endif

char LICENSE[] SEC("license") = "GPL";
