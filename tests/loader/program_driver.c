/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * One variant of one feature's program as it stands, compiled for this machine and called as its hook would. What
 * the verifier and a kernel make of it is for the tests that load it; here is what it counts and writes. PROGRAM
 * is its source, IS_NAME which feature. Each word is one call, its numbers by comma; "full" has no table take a
 * new key, "full ring" no record. At the end: the counters, tables by key (in hexadecimal), the histogram.
 */
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include PROGRAM

#define MOST_MAPS 8
#define MOST_ENTRIES 64

static struct stand_in {
	void *map;
	size_t key_size, value_size, max_entries;
	bool is_array;
	struct {
		bool there;
		__u64 key[4], value[128];
	} entries[MOST_ENTRIES + 1];
} maps[MOST_MAPS];
static size_t n_maps;

#define STAND_IN(name, array)                                                                      \
	maps[n_maps++] = (struct stand_in) {                                                       \
		.map = &(name), .key_size = sizeof(*(name).key),                                   \
		.value_size = sizeof(*(name).value),                                               \
		.max_entries = sizeof(*(name).max_entries) / sizeof(int), .is_array = array        \
	}

static struct task_struct *current_task;
static __u64 now_ns;
static bool full, full_ring, has_type = 1;
static char record[1024] __attribute__((aligned(8)));
static __u64 record_size;

static struct stand_in *find_map(const void *map) {
	for (size_t i = 0; i < n_maps; i++)
		if (maps[i].map == map)
			return &maps[i];
	abort();
}

static int find_entry(const struct stand_in *in, const void *key) {
	if (in->is_array) {
		__u32 index = *(const __u32 *)key;

		return index < in->max_entries ? (int)index : -1;
	}
	for (int i = 0; i < MOST_ENTRIES; i++)
		if (in->entries[i].there && !memcmp(in->entries[i].key, key, in->key_size))
			return i;
	return -1;
}

void *bpf_map_lookup_elem(void *map, const void *key) {
	struct stand_in *in = find_map(map);
	int at = find_entry(in, key);

	return at < 0 ? NULL : in->entries[at].value;
}

long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags) {
	struct stand_in *in = find_map(map);
	int at = find_entry(in, key);

	if (at >= 0 && flags == BPF_NOEXIST)
		return -EF_EEXIST;
	if (at < 0 && flags == BPF_EXIST)
		return -EF_ENOENT;
	if (at < 0 && full)
		return -7;
	for (int i = 0; at < 0 && i < MOST_ENTRIES; i++)
		if (!in->entries[i].there)
			at = i;
	in->entries[at].there = 1;
	memcpy(in->entries[at].key, key, in->key_size);
	memcpy(in->entries[at].value, value, in->value_size);
	return 0;
}

long bpf_map_delete_elem(void *map, const void *key) {
	struct stand_in *in = find_map(map);
	int at = find_entry(in, key);

	if (at < 0)
		return -EF_ENOENT;
	in->entries[at].there = 0;
	return 0;
}

__u64 bpf_ktime_get_ns(void) {
	return now_ns;
}

__u32 bpf_get_prandom_u32(void) {
	return 0;
}

__u64 bpf_get_current_task(void) {
	return (__u64)(unsigned long)current_task;
}

__u64 bpf_get_current_pid_tgid(void) {
	return 41ULL << 32 | 42;
}

__u64 bpf_get_current_uid_gid(void) {
	return 51ULL << 32 | 52;
}

long bpf_get_current_comm(void *to, __u32 size) {
	strncpy(to, "current", size);
	return 0;
}

void *bpf_ringbuf_reserve(void *map, __u64 size, __u64 flags) {
	(void)map, (void)flags;
	if (full_ring)
		return NULL;
	memset(record, 0xee, sizeof(record));
	record_size = size;
	return record;
}

__u64 bpf_ringbuf_query(void *map, __u64 what) {
	(void)map, (void)what;
	return 64;
}

static void print_record(const char *what, const void *from, __u64 size) {
	printf("%s ", what);
	for (__u64 i = 0; i < size; i++)
		printf("%02x", ((const unsigned char *)from)[i]);
	putchar('\n');
}

void bpf_ringbuf_submit(void *from, __u64 flags) {
	(void)flags;
	print_record("record", from, record_size);
}

long bpf_perf_event_output(void *ctx, void *map, __u64 flags, void *data, __u64 size) {
	(void)ctx, (void)map;
	if (full_ring || flags != EF_CURRENT_CPU)
		return -28;
	print_record("record", data, size);
	return 0;
}

long bpf_probe_read_kernel(void *to, __u32 size, const void *from) {
	memcpy(to, from, size);
	return 0;
}

/* The bytes with the 0 at the end; an error for no address. */
long bpf_probe_read_kernel_str(void *to, __u32 size, const void *from) {
	size_t length;

	if (!from)
		return -14;
	length = strnlen(from, size - 1);
	memcpy(to, from, length);
	((char *)to)[length] = 0;
	return (long)length + 1;
}

bool ef_stand_in_type_exists(void) {
	return has_type;
}

/* ---- the hooks ---- */

static long of[8]; /* the numbers of a call */

/* The context of a function's first two arguments, in this variant: BY_REGISTERS for a kprobe. */
static void *arguments(const void *first, long second) {
	static union {
		struct pt_regs regs;
		__u64 btf[4];
	} ctx;

	memset(&ctx, 0, sizeof(ctx));
#ifdef BY_REGISTERS
	PT_REGS_PARM1(&ctx.regs) = (unsigned long)first;
	PT_REGS_PARM2(&ctx.regs) = (unsigned long)second;
#else
	ctx.btf[0] = (unsigned long)first;
	ctx.btf[1] = (__u64)second;
#endif
	return &ctx;
}

#if defined(EF_FAIR)
static struct cgroup group;
static struct kernfs_node node = {.id = 9};
static struct css_set set;
static struct user_namespace ns;
static struct cred cred = {.uid = {53}, .user_ns = &ns};
static struct task_struct parent = {.tgid = 61};
static struct task_struct task = {
    .cgroups = &set, .cred = &cred, .pid = 63, .tgid = 62, .real_parent = &parent, .comm = "task"};

static void begin(void) {
	group.kn = &node;
	set.dfl_cgrp = &group;
	current_task = &task;
	STAND_IN(ef_fair, 0);
	STAND_IN(ef_fair_all, 1);
}
#else
static void begin(void) {
}
#endif

#if defined(IS_EXEC_POLICY)
/* NLINK */
static int call(char *word) {
	static const struct dentry dentry = {.d_name = {.name = (const unsigned char *)"memfd:x"}};
	struct inode inode = {.i_nlink = (unsigned)of[0]};
	struct file file = {.f_path = {.dentry = (struct dentry *)&dentry}, .f_inode = &inode};
	struct linux_binprm bprm = {.file = &file, .filename = "/proc/self/fd/3"};

	(void)word;
	return ef_epl_exec(arguments(&bprm, 0));
}
#elif defined(IS_EXEC_EVENTS)
/* The letters of the file's name; -1: it cannot be read */
static int call(char *word) {
	char name[256];
	struct linux_binprm bprm = {.filename = of[0] < 0 ? NULL : name};
	__u64 ctx[3] = {(unsigned long)&task, 0, (unsigned long)&bprm};

	(void)word;
	memset(name, 'n', sizeof(name));
	name[of[0] < 0 ? 0 : of[0]] = 0;
	return ef_exec(ctx);
}
#elif defined(IS_TCP_CONNECT_LATENCY)
/* SOCKET,BEFORE,AFTER,NOW,FAMILY,ERROR,PROTOCOL */
static int call(char *word) {
	static struct sock socks[4];
	struct sock *sk = &socks[of[0]];

	(void)word;
	now_ns = (__u64)of[3];
	sk->__sk_common.skc_state = (unsigned char)of[1];
	sk->__sk_common.skc_family = (unsigned short)of[4];
	sk->sk_err = (int)of[5];
	sk->sk_protocol = (__u16)of[6];
#if defined(EF_VARIANT_TRACEPOINT)
	__u64 ctx[3] = {(unsigned long)sk, (__u64)of[1], (__u64)of[2]};

	sk->__sk_common.skc_state = 0;
	return ef_tcl_state(ctx);
#else
	return ef_tcl_state(arguments(sk, of[2]));
#endif
}
#elif defined(IS_TCP_RETRANSMITS)
/* FAMILY,STATE */
static int call(char *word) {
	struct sock sk = {.__sk_common = {.skc_family = (unsigned short)of[0],
					  .skc_state = (unsigned char)of[1]}};

	(void)word;
	return ef_rtx(arguments(&sk, 0));
}
#elif defined(IS_RUNQLAT)
/* s,PREEMPTED,PREV,NEXT,STATE,NOW: a switch; w,PID,ON_CPU,NOW and n,...: a wake-up, a new task */
static int call(char *word) {
	struct task_struct prev = {.pid = (pid_t)of[2], .__state = 99},
			   next = {.pid = (pid_t)of[3]};
	struct task_struct woken = {.pid = (pid_t)of[1], .on_cpu = (int)of[2]};
	__u64 ctx[4] = {(__u64)of[1], (unsigned long)&prev, (unsigned long)&next, (__u64)of[4]};
	__u64 wake[1] = {(unsigned long)&woken};

	now_ns = (__u64)(word[0] == 's' ? of[5] : of[3]);
	if (word[0] == 's')
		return ef_rql_switch(ctx);
	return word[0] == 'w' ? ef_rql_wakeup(wake) : ef_rql_wake_new(wake);
}
#elif defined(IS_SYSCALL_ERRORS)
/* RETURNED,NUMBER,STATUS */
static int call(char *word) {
	static struct task_struct on_cpu;
	struct pt_regs___syscall regs = {0};
	__u64 ctx[2] = {(unsigned long)&regs, (__u64)of[0]};

	(void)word;
#if defined(__TARGET_ARCH_x86)
	regs.orig_ax = (unsigned long)of[1];
#else
	regs.syscallno = (int)of[1];
#endif
	on_cpu.thread_info.status = (__u32)of[2];
	current_task = &on_cpu;
	return ef_sce_exit(ctx);
}
#elif defined(IS_OOM_KILLS)
/* MEMCG, or PID where the kernel hands over no task */
static int call(char *word) {
	struct cgroup victims = {.kn = &node};
	struct mem_cgroup memcg = {.css = {.cgroup = &victims}};
	struct oom_control oc = {.memcg = of[0] ? &memcg : NULL,
				 .totalpages = 71,
				 .chosen = &task,
				 .chosen_points = -72};

	(void)word, (void)oc;
#if defined(EF_VARIANT_MARKED)
	__u64 ctx[1] = {of[0] ? (__u64)of[0] : (unsigned long)&task};

	has_type = !of[0];
	return ef_oom_kill(ctx);
#else
	return ef_oom_kill(arguments(&oc, 0));
#endif
}
#endif

static void print_tables(void) {
	for (size_t i = 3; i < n_maps; i++)
		for (int j = 0; !maps[i].is_array && maps[i].map != NULL && j < MOST_ENTRIES; j++)
			if (maps[i].entries[j].there && maps[i].value_size <= 16) {
				printf("%llu at ", *(__u64 *)maps[i].entries[j].value);
				print_record("", maps[i].entries[j].key, maps[i].key_size);
			}
}

static void print_counters(void) {
	for (__u32 i = 0; i < EF_COUNTERS; i++)
		printf("%llu ", *(__u64 *)bpf_map_lookup_elem(&ef_counters, &i));
	putchar('\n');
}

static void print_histogram(void) {
#ifdef EF_WITH_HISTOGRAM
	for (__u32 i = 0; i <= EF_HIST_SUM; i++) {
		const struct ef_sum *sum = bpf_map_lookup_elem(&ef_hist, &i);

		if (!sum->raw)
			continue;
		printf("slot %u %llu %llu\n", i, sum->raw, sum->weighted);
	}
#endif
}

int main(int argc, char **argv) {
	STAND_IN(ef_counters, 1);
	STAND_IN(ef_config, 1);
	maps[n_maps++] = (struct stand_in){0}; /* what follows is the feature's own */
#ifdef EF_WITH_HISTOGRAM
	STAND_IN(ef_hist, 1);
#endif
#if defined(IS_TCP_CONNECT_LATENCY)
	STAND_IN(ef_tcl_failed, 0);
	STAND_IN(ef_tcl_start, 0);
#elif defined(IS_TCP_RETRANSMITS)
	STAND_IN(ef_rtx_count, 0);
#elif defined(IS_RUNQLAT)
	STAND_IN(ef_rql_start, 0);
#elif defined(IS_SYSCALL_ERRORS)
	STAND_IN(ef_sce_count, 0);
#endif
	begin();
	now_ns = 1000;
	for (int i = 1; i < argc; i++) {
		char *at = argv[i];

		if (!strcmp(at, "full"))
			full = 1;
		else if (!strcmp(at, "full ring"))
			full_ring = 1;
		else {
			for (int j = 0; j < 8; j++) {
				of[j] = strtol(at, &at, 0);
				if (*at && *at != ',')
					at++;
				at += *at == ',';
			}
			printf("= %d\n", call(argv[i]));
		}
	}
	print_counters();
	print_tables();
	print_histogram();
	return 0;
}
