// SPDX-License-Identifier: GPL-3.0-or-later
// Programs of somebody that are taken off, each with a tag that no other of this machine has.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} somebodys SEC(".maps");

static __always_inline void count(__u32 at) {
	__u64 *found = bpf_map_lookup_elem(&somebodys, &at);

	if (found)
		__sync_fetch_and_add(found, 1);
}

SEC("xdp")
int some_xdp(struct xdp_md *ctx) {
	count(41);
	return XDP_PASS;
}

SEC("tc")
int some_tc(struct __sk_buff *skb) {
	count(42);
	return -1;
}

SEC("cgroup_skb/egress")
int some_egress(struct __sk_buff *skb) {
	count(43);
	return 1;
}

SEC("raw_tp/sys_enter")
int some_raw_tp(void *ctx) {
	count(44);
	return 0;
}

char _license[] SEC("license") = "GPL";
