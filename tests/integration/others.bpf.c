// SPDX-License-Identifier: GPL-3.0-or-later
// Programs of others, as small as they can be: one for each kind of hook that the inventory is
// asked about.
// The helpers need the kernel's types before them.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} their_counts SEC(".maps");

static __always_inline void count(__u32 at) {
	__u64 *found = bpf_map_lookup_elem(&their_counts, &at);

	if (found)
		__sync_fetch_and_add(found, 1);
}

SEC("xdp")
int their_xdp(struct xdp_md *ctx) {
	return XDP_PASS;
}

SEC("xdp")
int other_xdp(struct xdp_md *ctx) {
	count(0);
	return XDP_PASS;
}

SEC("tc")
int their_tc(struct __sk_buff *skb) {
	return -1;
}

SEC("action")
int their_action(struct __sk_buff *skb) {
	return 0;
}

SEC("cgroup_skb/egress")
int their_egress(struct __sk_buff *skb) {
	return 1;
}

SEC("cgroup_skb/egress")
int other_egress(struct __sk_buff *skb) {
	count(1);
	return 1;
}

SEC("raw_tp/sys_enter")
int their_raw_tp(void *ctx) {
	count(2);
	return 0;
}

SEC("tp/sched/sched_switch")
int their_switch(void *ctx) {
	count(3);
	return 0;
}

SEC("tp/sched/sched_switch")
int other_switch(void *ctx) {
	count(4);
	return 0;
}

char _license[] SEC("license") = "GPL";
