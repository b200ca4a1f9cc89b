/* SPDX-License-Identifier: GPL-3.0-or-later */
/* In the place of libbpf's: the calls that our programs make, as functions of the driver. */
#define SEC(name)
#define __uint(name, value) int(*name)[value]
#define __type(name, value) __typeof__(value) *name
void *bpf_map_lookup_elem(void *map, const void *key);
long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags);
long bpf_map_delete_elem(void *map, const void *key);
__u64 bpf_ktime_get_ns(void);
__u32 bpf_get_prandom_u32(void);
__u64 bpf_get_current_task(void);
__u64 bpf_get_current_pid_tgid(void);
__u64 bpf_get_current_uid_gid(void);
long bpf_get_current_comm(void *to, __u32 size);
void *bpf_ringbuf_reserve(void *map, __u64 size, __u64 flags);
__u64 bpf_ringbuf_query(void *map, __u64 what);
void bpf_ringbuf_submit(void *record, __u64 flags);
long bpf_probe_read_kernel(void *to, __u32 size, const void *from);
long bpf_probe_read_kernel_str(void *to, __u32 size, const void *from);
long bpf_perf_event_output(void *ctx, void *map, __u64 flags, void *data, __u64 size);
