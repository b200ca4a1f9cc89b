// SPDX-License-Identifier: GPL-2.0
/*
 * block_io_latency: how long block devices took for a request, from its issue
 * to the driver until it was complete (its first part, if it ends in parts).
 *
 * A request that is issued again, as after a requeue, starts again: it is the
 * device's time that counts. In flight are the entries of ef_bio_start.
 */
#define EF_WITH_HISTOGRAM
#include "ef.h"

#ifndef EF_BIO_REQUESTS
#define EF_BIO_REQUESTS 16384
#endif

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EF_BIO_REQUESTS);
	__type(key, __u64); /* address of the request */
	__type(value, struct ef_begun);
} ef_bio_start SEC(".maps");

static __always_inline int on_issue(__u64 request) {
	struct ef_begun now = {.ktime_ns = bpf_ktime_get_ns()};
	struct ef_begun *start = bpf_map_lookup_elem(&ef_bio_start, &request);

	if (start) {
		start->ktime_ns = now.ktime_ns;
		return 0;
	}
	now.weight = ef_produce();
	if (!now.weight)
		return 0;
	if (bpf_map_update_elem(&ef_bio_start, &request, &now, BPF_NOEXIST))
		ef_count(EF_DROPPED);
	return 0;
}

static __always_inline int on_complete(__u64 request) {
	struct ef_begun *start = bpf_map_lookup_elem(&ef_bio_start, &request), began;

	if (!start)
		return 0;
	began = *start;
	/* Whoever deletes it accounts for it. */
	if (bpf_map_delete_elem(&ef_bio_start, &request))
		return 0;
	ef_hist_add(bpf_ktime_get_ns() - began.ktime_ns, began.weight);
	ef_count(EF_DELIVERED);
	return 0;
}

#ifdef EF_VARIANT_FULL
#define EF_HOOK(name) SEC("tp_btf/" name)
#else
#define EF_HOOK(name) SEC("raw_tp/" name)
#endif

EF_HOOK("block_rq_complete")
int ef_bio_complete(__u64 *ctx) {
	return on_complete(ctx[0]);
}

EF_HOOK("block_rq_issue")
int ef_bio_issue(__u64 *ctx) {
	return on_issue(ef_issued_request(ctx));
}

char LICENSE[] SEC("license") = "GPL";
