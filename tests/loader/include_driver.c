/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * bpf/include as it stands, compiled for this machine: maps are arrays, kernel fields are members. What the
 * verifier and a kernel make of it is for the tests that load it; here is what it computes.
 *   log2 V...                 floor(log2)
 *   sampled EVERY RANDOM...   the weight of each, 0: passed over; "-": no configuration
 *   produce EVERY RANDOM      what it says, and the four counters
 *   gate GATE NS MOMENT...    NOW, or OTHER:NOW[:OF] where the other program read the clock before
 *                             (of the handover at OF): 0 or 1 each
 *   hist WEIGHT V...          slots as SLOT=N/WEIGHTED, the sum; then the same where interrupts are off
 *   submit WAITING:SIZE...    the flags of each record, and how many were delivered
 *   reserve ROOM...           0: none is left; how many were dropped
 *   table ENTRIES KEY...      the end of each, then the values by key, and with a weight of 3
 *   state THREE OWN           of prev in sched_switch, where ctx has it, and where it has not
 *   compat STATUS             is it a 32-bit system call
 *   ancestor DEPTH LEVEL      the number of the ancestor of a control group whose numbers are 100, 101, ...
 *   owner LEVEL               of a user namespace that deep, whose owners are 500 + its level
 *   fair QUOTA EVENT...       WINDOW:DOMAIN:CGROUP:UID:TIMES; how many of each passed, and their weight; then what is thinned
 */
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EF_FAIR
#define EF_WITH_HISTOGRAM
#define EF_RING_BYTES 4096

/* The stand-ins for libbpf's headers say what these are. */
#include "ef.h"

#include "driver.h"

/* ---- the kernel ---- */

static unsigned random_now;
static __u64 now_ns, waiting_bytes;
static bool no_room, has_type, no_config;
static __u64 submitted_flags;
static struct task_struct *current_task;

struct entry {
	char key[16];
	__u64 value[16];
	bool there;
};

static struct entry table[64];
static unsigned table_entries = 64;
static __u64 counters[EF_COUNTERS];
static struct ef_sum histogram[EF_HIST_SLOTS + 1];
static struct ef_moment moment;
static struct ef_config config;
static struct ef_fair_node all;

static __u32 count_keys;
EF_COUNTER_TABLE(calls, __u32, 8)

static void *find_entry(const void *key, size_t size) {
	for (unsigned i = 0; i < table_entries; i++)
		if (table[i].there && !memcmp(table[i].key, key, size))
			return table[i].value;
	return NULL;
}

void *bpf_map_lookup_elem(void *map, const void *key) {
	__u32 index = *(const __u32 *)key;

	if (map == &ef_counters)
		return index < EF_COUNTERS ? &counters[index] : NULL;
	if (map == &ef_hist)
		return index <= EF_HIST_SUM ? &histogram[index] : NULL;
	if (map == &ef_config)
		return no_config || index ? NULL : &config;
	if (map == &ef_moment)
		return index ? NULL : &moment;
	if (map == &ef_fair_all)
		return index ? NULL : &all;
	return find_entry(key, map == &ef_fair ? sizeof(struct ef_fair_key) : sizeof(__u32));
}

long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags) {
	size_t key_size = map == &ef_fair ? sizeof(struct ef_fair_key) : sizeof(__u32);

	if (flags == BPF_NOEXIST && find_entry(key, key_size))
		return -EF_EEXIST;
	for (unsigned i = 0; i < table_entries; i++)
		if (!table[i].there) {
			table[i].there = 1;
			memcpy(table[i].key, key, key_size);
			memcpy(table[i].value, value,
			       map == &ef_fair ? sizeof(struct ef_fair_node)
					       : sizeof(struct ef_sum));
			return 0;
		}
	return -7;
}

_Static_assert(sizeof(struct ef_fair_node) <= sizeof(((struct entry *)0)->value),
	       "an entry holds it");

__u64 bpf_ktime_get_ns(void) {
	return now_ns;
}

__u32 bpf_get_prandom_u32(void) {
	return random_now;
}

__u64 bpf_get_current_task(void) {
	return (__u64)(unsigned long)current_task;
}

__u64 bpf_get_current_pid_tgid(void) {
	return 7;
}

void *bpf_ringbuf_reserve(void *map, __u64 size, __u64 flags) {
	static char record[64];

	return map == &ef_events && size <= sizeof(record) && !flags && !no_room ? record : NULL;
}

__u64 bpf_ringbuf_query(void *map, __u64 what) {
	return map == &ef_events && what == BPF_RB_AVAIL_DATA ? waiting_bytes : 0;
}

void bpf_ringbuf_submit(void *record, __u64 flags) {
	(void)record;
	submitted_flags = flags;
}

long bpf_probe_read_kernel(void *to, __u32 size, const void *from) {
	memcpy(to, from, size);
	return 0;
}

long bpf_perf_event_output(void *ctx, void *map, __u64 flags, void *data, __u64 size) {
	(void)ctx, (void)map, (void)flags, (void)data, (void)size;
	return 0;
}

bool ef_stand_in_type_exists(void) {
	return has_type;
}

/* What stands for the kernel is never freed. */
const char *__asan_default_options(void);

const char *__asan_default_options(void) {
	return "detect_leaks=0";
}

/* ---- the questions ---- */

static __u64 number(const char *text) {
	return strtoull(text, NULL, 0);
}

static void do_log2(int n, char **word) {
	for (int i = 0; i < n; i++)
		printf("%u\n", ef_log2(number(word[i])));
}

static void do_sampled(int n, char **word) {
	no_config = !strcmp(word[0], "-");
	config.sample_every = (__u32)number(word[0]);
	for (int i = 1; i < n; i++) {
		random_now = (unsigned)number(word[i]);
		printf("%llu\n", ef_draw(ef_get_config()));
	}
}

static void print_counters(void) {
	printf("%llu %llu %llu %llu\n", counters[EF_PRODUCED], counters[EF_DELIVERED],
	       counters[EF_DROPPED], counters[EF_SAMPLED_OUT]);
}

static void do_produce(int n, char **word) {
	(void)n;
	config.sample_every = (__u32)number(word[0]);
	random_now = (unsigned)number(word[1]);
	printf("%llu ", ef_produce());
	ef_count_irqoff(EF_DROPPED);
	ef_count_added(0);
	ef_count_added(-1);
	print_counters();
}

static void do_gate(int n, char **word) {
	config.gate = (__u32)number(word[0]);
	config.gate_ns = number(word[1]);
	for (int i = 2; i < n; i++) {
		unsigned long long other, instant = config.gate_ns, other_gate;

		other_gate = EF_GATE_FROM + EF_GATE_UNTIL - config.gate;
		if (sscanf(word[i], "%llu:%llu:%llu", &other, &now_ns, &instant) >= 2)
			moment = (struct ef_moment){other, ef_gate_id(instant, (__u32)other_gate)};
		else
			now_ns = number(word[i]);
		printf("%d\n", ef_is_open(&config));
	}
	printf("%d\n", ef_produce() != 0);
	print_counters();
}

static void print_histogram(void) {
	for (int i = 0; i < EF_HIST_SLOTS; i++)
		if (histogram[i].raw)
			printf("%d=%llu/%llu ", i, histogram[i].raw, histogram[i].weighted);
	printf("%llu/%llu\n", histogram[EF_HIST_SUM].raw, histogram[EF_HIST_SUM].weighted);
}

static void do_hist(int n, char **word) {
	for (int i = 1; i < n; i++)
		ef_hist_add(number(word[i]), number(word[0]));
	print_histogram();
	memset(histogram, 0, sizeof(histogram));
	for (int i = 1; i < n; i++)
		ef_hist_add_irqoff(number(word[i]), number(word[0]));
	print_histogram();
}

static void do_submit(int n, char **word) {
	for (int i = 0; i < n; i++) {
		char *colon = strchr(word[i], ':');

		waiting_bytes = number(word[i]);
		submitted_flags = 99;
		ef_submit_sized(&waiting_bytes, number(colon + 1));
		printf("%llu\n", submitted_flags);
	}
	print_counters();
}

static void do_reserve(int n, char **word) {
	for (int i = 0; i < n; i++) {
		no_room = word[i][0] == '0';
		printf("%d\n", ef_reserve(32) != NULL);
	}
	print_counters();
}

static void do_table(int n, char **word) {
	table_entries = (unsigned)number(word[0]);
	for (int i = 1; i < n; i++) {
		__u32 key = (__u32)number(word[i]);

		printf("%d\n", calls_add(&key, 3));
	}
	for (unsigned i = 0; i < table_entries && table[i].there; i++) {
		memcpy(&count_keys, table[i].key, sizeof(count_keys));
		printf("%u=%llu/%llu\n", count_keys, table[i].value[0], table[i].value[1]);
	}
}

static void do_state(int n, char **word) {
	__u64 ctx[4] = {0, 0, 0, number(word[0])};
	struct task_struct task = {.__state = (unsigned)number(word[1]), .on_cpu = 1};

	(void)n;
	has_type = 1;
	printf("%ld ", ef_switch_prev_state(ctx, &task));
	has_type = 0;
	printf("%ld %d\n", ef_switch_prev_state(ctx, &task), ef_task_on_cpu(&task));
}

static void do_compat(int n, char **word) {
	struct task_struct task = {.thread_info = {.status = (__u32)number(word[0])}};

	(void)n;
	current_task = &task;
	printf("%d\n", ef_syscall_compat());
}

/* A control group that deep, with its ancestors, itself the last. */
static struct cgroup *make_group(int depth, __u64 first) {
	struct cgroup *ancestors[8] = {0};
	struct cgroup *made = NULL;

	for (int i = 0; i <= depth; i++) {
		made = calloc(1, sizeof(*made) + 8 * sizeof(*ancestors));
		made->kn = calloc(1, sizeof(*made->kn));
		made->kn->id = first + (__u64)i;
		made->level = i;
		ancestors[i] = made;
		memcpy(made->ancestors, ancestors, sizeof(ancestors));
	}
	return made;
}

static void do_ancestor(int n, char **word) {
	(void)n;
	printf("%llu\n", ef_cgroup_ancestor(make_group(atoi(word[0]), 100), atoi(word[1])));
}

static struct user_namespace *make_namespace(int level) {
	struct user_namespace *made = calloc(1, sizeof(*made));

	made->level = level;
	made->owner.val = 500 + (unsigned)level;
	made->parent = level ? make_namespace(level - 1) : NULL;
	return made;
}

static void do_owner(int n, char **word) {
	struct cred cred = {.uid = {77}, .user_ns = make_namespace(atoi(word[0]))};
	struct task_struct task = {.cred = &cred};

	(void)n;
	printf("%u\n", ef_fair_uid(&task));
}

/* The domain's number is that of level 2; the group lies one below. */
static void do_fair(int n, char **word) {
	config.quota = (__u32)number(word[0]);
	for (int i = 1; i < n; i++) {
		unsigned long long window, domain, cgroup;
		unsigned uid, times, passed = 0;
		__u64 weight, weights = 0;
		struct user_namespace ns = {0};
		struct cred cred = {.user_ns = &ns};
		struct css_set set;
		struct task_struct task = {.cred = &cred, .cgroups = &set};
		struct cgroup *group = make_group(3, 0);

		if (sscanf(word[i], "%llu:%llu:%llu:%u:%u", &window, &domain, &cgroup, &uid,
			   &times) != 5)
			abort();
		group->ancestors[2]->kn->id = domain;
		group->kn->id = cgroup;
		cred.uid.val = uid;
		set.dfl_cgrp = group;
		now_ns = window << EF_FAIR_WINDOW_SHIFT;
		for (unsigned j = 0; j < times; j++) {
			weight = ef_produce_fairly(&task);
			passed += weight != 0;
			weights += weight;
		}
		printf("%u %llu\n", passed, weights);
	}
	printf("%llu %llu\n", all.produced, all.thinned);
	print_counters();
}

static const struct command commands[] = {
    {"log2", 1, do_log2},	  {"sampled", 2, do_sampled}, {"produce", 2, do_produce},
    {"gate", 2, do_gate}, {"hist", 1, do_hist},	  {"submit", 1, do_submit},   {"reserve", 1, do_reserve},
    {"table", 1, do_table},	  {"state", 2, do_state},     {"compat", 1, do_compat},
    {"ancestor", 2, do_ancestor}, {"owner", 1, do_owner},     {"fair", 2, do_fair},
};

int main(int argc, char **argv) {
	return run_command(commands, sizeof(commands) / sizeof(*commands), argc, argv);
}
