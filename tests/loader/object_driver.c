/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * A feature around an object, its maps and its programs that are made up here in libbpf's place. A map is
 * NAME:TYPE:KEY:VALUE:MAX (a number of enum bpf_map_type, bytes, entries); its entries are I = I + 1, I from 0 on.
 *   possible REQUIREMENT...        can a variant be, and why not; "asked" before it where a program was loaded
 *   see MAP...                     each map and a program, as the status has them; "unknown": nothing is told; "=N":
 *                                  the kernel says that each map takes N bytes
 *   record TYPE:SIZE MAP...        can a record of the struct ef_event be carried, and why not; TYPE: the types that
 *                                  are before it, -1: there is no such struct, -2: there are no types
 *   events MAP PERF_MAP MAP...     which of the maps a signal is read from
 *   prepare KIND MAP KEY MAP...    0: histogram, 2: counters: whether it can be, and why not
 *   snapshot KIND MAP MAP...       what is seen of a feature with that signal and those maps
 *   totals DOCUMENT                the totals of a feature with counters that took them twice
 *   counts                         what an object counts that counts nothing
 *   walk BATCHES MAP...            all entries of the map; 0: the kernel knows no batches; N: of N; N,ROOM: a
 *                                  bucket that needs that much room
 *   can MAP                        can it be walked
 *   attach GOOD WARNING            GOOD programs attach, the next does not, after libbpf's warning
 */
/* clang-format on */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "feature/object.h"
#include "feature/parts.h"
#include "feature/snapshot.h"
#include "feature/totals.h"
#include "kernel/bpflog.h"
#include "kernel/hook.h"
#include "kernel/mapread.h"

#include "driver.h"

#define CPUS 3

/* ---- libbpf ---- */

static struct made {
	char name[32];
	int type;
	unsigned key, value, max;
} maps[16];
static int n_maps, loads, unknown, batch = 4, bucket;
static libbpf_print_fn_t on_message;

static const struct made *of(const struct bpf_map *map) {
	return (const struct made *)map;
}

static void __attribute__((format(printf, 1, 2))) warn(const char *format, ...) {
	va_list args;

	va_start(args, format);
	on_message(LIBBPF_WARN, format, args);
	va_end(args);
}

libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t fn) {
	on_message = fn;
	return NULL;
}

struct bpf_map *bpf_object__next_map(const struct bpf_object *object, const struct bpf_map *map) {
	int at = map ? (int)(of(map) - maps) + 1 : 0;

	(void)object;
	return at < n_maps ? (struct bpf_map *)&maps[at] : NULL;
}

const char *bpf_map__name(const struct bpf_map *map) {
	return of(map)->name;
}

bool bpf_map__is_internal(const struct bpf_map *map) {
	return strchr(of(map)->name, '.') != NULL;
}

enum bpf_map_type bpf_map__type(const struct bpf_map *map) {
	return (enum bpf_map_type)of(map)->type;
}

__u32 bpf_map__key_size(const struct bpf_map *map) {
	return of(map)->key;
}

__u32 bpf_map__value_size(const struct bpf_map *map) {
	return of(map)->value;
}

__u32 bpf_map__max_entries(const struct bpf_map *map) {
	return of(map)->max;
}

/* Descriptors from 100 on, by place; none of them is open. */
int bpf_map__fd(const struct bpf_map *map) {
	return 100 + (int)(of(map) - maps);
}

int bpf_program__fd(const struct bpf_program *program) {
	(void)program;
	return 99;
}

const char *bpf_program__name(const struct bpf_program *program) {
	return (const char *)program;
}

struct bpf_program *bpf_object__find_program_by_name(const struct bpf_object *object,
						     const char *name) {
	(void)object;
	return (struct bpf_program *)(uintptr_t)name;
}

int libbpf_num_possible_cpus(void) {
	return CPUS;
}

int bpf_obj_get_info_by_fd(int fd, void *info, __u32 *size) {
	(void)size;
	if (unknown) {
		errno = EPERM;
		return -1;
	}
	if (fd == 99) {
		struct bpf_prog_info *program = info;

		program->id = 7;
		memcpy(program->tag, "\x01\x23\x45\x67\x89\xab\xcd\xef", 8);
		program->run_cnt = 8;
		program->run_time_ns = 9;
		program->verified_insns = 10;
	} else {
		struct bpf_map_info *map = info;

		map->id = (__u32)fd;
		map->type = (__u32)maps[fd - 100].type;
		map->max_entries = maps[fd - 100].max;
	}
	return 0;
}

static unsigned copies(const struct made *map) {
	return map->type == BPF_MAP_TYPE_PERCPU_ARRAY || map->type == BPF_MAP_TYPE_PERCPU_HASH ||
		       map->type == BPF_MAP_TYPE_LRU_PERCPU_HASH
		   ? CPUS
		   : 1;
}

static unsigned bytes_of(const struct made *map) {
	return map->value == 16 ? 16 : 8;
}

/* The value, and where it is weighed ten times that. */
static void put_words(const struct made *map, void *to, __u64 value) {
	memcpy(to, &value, 8);
	value *= 10;
	if (bytes_of(map) == 16)
		memcpy((char *)to + 8, &value, 8);
}

/* Of several CPUs the first has all but one of each other. */
static void put_value(const struct made *map, __u32 index, void *to) {
	__u64 value = index + 1;
	unsigned n = copies(map);

	for (unsigned i = n; i-- > 1; value--)
		put_words(map, (char *)to + i * bytes_of(map), 1);
	put_words(map, to, value);
}

int bpf_map_lookup_elem(int fd, const void *key, void *value) {
	__u32 index;

	memcpy(&index, key, sizeof(index));
	if (index >= maps[fd - 100].max) {
		errno = ENOENT;
		return -1;
	}
	put_value(&maps[fd - 100], index, value);
	return 0;
}

int bpf_map_get_next_key(int fd, const void *key, void *next) {
	__u32 index = 0;

	if (key)
		memcpy(&index, key, sizeof(index));
	index += key != NULL;
	if (index >= maps[fd - 100].max) {
		errno = ENOENT;
		return -1;
	}
	memset(next, 0, maps[fd - 100].key);
	memcpy(next, &index, sizeof(index));
	return 0;
}

int bpf_map_lookup_batch(int fd, void *in, void *out, void *keys, void *values, __u32 *n,
			 const struct bpf_map_batch_opts *opts) {
	const struct made *map = &maps[fd - 100];
	__u32 from = 0, done = 0, room = *n;

	(void)opts;
	errno = !batch ? EINVAL : bucket > (int)room ? ENOSPC : 0;
	*n = 0;
	if (errno)
		return -1;
	if (in)
		memcpy(&from, in, sizeof(from));
	for (; done < room && done < (__u32)batch && from < map->max; done++, from++) {
		memset((char *)keys + done * map->key, 0, map->key);
		memcpy((char *)keys + done * map->key, &from, sizeof(from));
		put_value(map, from, (char *)values + done * copies(map) * bytes_of(map));
	}
	memcpy(out, &from, sizeof(from));
	*n = done;
	errno = from >= map->max ? ENOENT : 0;
	return errno ? -1 : 0;
}

int bpf_map_create(enum bpf_map_type type, const char *name, __u32 key_size, __u32 value_size,
		   __u32 max_entries, const struct bpf_map_create_opts *opts) {
	(void)type, (void)name, (void)key_size, (void)value_size, (void)max_entries, (void)opts;
	return dup(STDERR_FILENO);
}

int bpf_prog_load(enum bpf_prog_type type, const char *name, const char *licence,
		  const struct bpf_insn *insns, size_t n, const struct bpf_prog_load_opts *opts) {
	(void)type, (void)name, (void)licence, (void)insns, (void)n;
	loads++;
	if (opts->log_buf)
		strcpy(opts->log_buf, "unknown func x");
	errno = EINVAL;
	return -1;
}

static int good_programs;

struct bpf_link *bpf_program__attach(const struct bpf_program *program) {
	(void)program;
	if (good_programs-- > 0)
		return (struct bpf_link *)maps;
	warn("libbpf: no place\n");
	errno = ENOENT;
	return NULL;
}

int bpf_link__destroy(struct bpf_link *link) {
	(void)link;
	printf("detached\n");
	return 0;
}

static struct btf *types;

struct btf *bpf_object__btf(const struct bpf_object *object) {
	(void)object;
	return types;
}

struct bpf_map *bpf_object__find_map_by_name(const struct bpf_object *object, const char *name) {
	(void)object;
	for (int i = 0; i < n_maps; i++)
		if (!strcmp(maps[i].name, name))
			return (struct bpf_map *)&maps[i];
	return NULL;
}

/* ---- the loader ---- */

static int64_t memory = -1; /* as /proc says it of each descriptor */

int64_t __wrap_ef_fd_memory(int fd);

int64_t __wrap_ef_fd_memory(int fd) {
	(void)fd;
	return memory;
}

/* ---- the questions ---- */

static void add_maps(int n, char **word) {
	for (int i = 0; i < n; i++) {
		struct made *map = &maps[n_maps++];

		if (sscanf(word[i], "%31[^:]:%d:%u:%u:%u", map->name, &map->type, &map->key,
			   &map->value, &map->max) < 1)
			abort();
	}
}

static void do_possible(int n, char **word) {
	const struct ef_kernel kernel = {
	    .release = "6.1.0", .family = "6.1", .major = 6, .minor = 1, .btf = EF_BTF_VMLINUX};
	struct ef_contract_variant variant = {.name = "v", .requires_ = json_array()};
	struct ef_reason why = {0};
	bool possible;

	for (int i = 0; i < n; i++)
		json_array_append_new(variant.requires_, json_string(word[i]));
	possible = ef_object_possible(&variant, &kernel, &why);
	printf("%s%d %s %s\n", loads ? "asked " : "", possible, why.code ? why.code : "-",
	       why.text);
	json_decref(variant.requires_);
}

static void print_json(json_t *doc) {
	json_dumpf(doc, stdout, JSON_ENCODE_ANY);
	putchar('\n');
	json_decref(doc);
}

static void do_see(int n, char **word) {
	struct ef_program_seen program;

	unknown = n && !strcmp(word[0], "unknown");
	if (n && *word[0] == '=')
		memory = atoll(word[0] + 1);
	add_maps(n - (unknown || memory >= 0), word + (unknown || memory >= 0));
	for (int i = 0; i < n_maps; i++) {
		struct ef_map_seen seen;

		ef_map_see((const struct bpf_map *)&maps[i], 5, &seen);
		print_json(ef_map_json(&seen));
		printf("%d\n", seen.evicts);
	}
	for (int stats = 0; stats < 2; stats++) {
		ef_program_see((const struct bpf_program *)"p", stats, &program);
		print_json(ef_program_json(&program));
	}
}

static void do_record(int n, char **word) {
	static struct ef_signal events = {
	    .kind = EF_SIGNAL_EVENTS, .name = "e", .map = "ring", .event = "ef_event"};
	const struct ef_contract contract = {.signals = &events, .n_signals = 1};
	struct ef_reason why = {0};
	int before = atoi(word[0]), result;
	unsigned size = (unsigned)atoi(strchr(word[0], ':') + 1);

	add_maps(n - 1, word + 1);
	if (before > -2)
		types = btf__new_empty();
	for (int i = 0; i < before; i++)
		btf__add_int(types, "int", 4, 0);
	if (before >= 0)
		btf__add_struct(types, "ef_event", size);
	result = ef_object_check_record((struct bpf_object *)maps, &contract, "full", &why);
	printf("%d %s %s\n", result, why.code ? why.code : "-", why.text);
	btf__free(types);
}

static void do_events(int n, char **word) {
	struct ef_live live = {.attached = {.object = (struct bpf_object *)maps}};
	struct ef_signal signal = {.map = word[0], .perf_map = *word[1] ? word[1] : NULL};
	const struct bpf_map *map;

	add_maps(n - 2, word + 2);
	map = ef_live_events_map(&live, &signal);
	puts(map ? bpf_map__name(map) : "-");
}

static struct ef_signal a_signal;
static struct ef_feature a_feature = {.name = (char *)"f"};
static struct ef_contract_variant variant = {.name = "v", .full = true};

static void make_live(struct ef_live *live, char **word) {
	memset(live, 0, sizeof(*live));
	a_signal = (struct ef_signal){
	    .kind = (enum ef_signal_kind)atoi(word[0]), .name = "s", .map = word[1]};
	variant.programs = json_array();
	live->contract.signals = &a_signal;
	live->contract.n_signals = 1;
	live->contract.third_party = true; /* it has no ef_config */
	live->contract.feature = "f";
	live->files = &a_feature;
	live->attached.object = (struct bpf_object *)maps;
	live->attached.variant = &variant;
}

static void do_prepare(int n, char **word) {
	struct ef_live live;
	struct ef_reason why = {0};
	int err;

	make_live(&live, word);
	if (*word[2])
		a_signal.key = word[2];
	add_maps(n - 3, word + 3);
	err = ef_live_prepare(&live, NULL, &why);
	printf("%s %s %s\n", err ? strerrorname_np(-err) : "0", why.code ? why.code : "-",
	       why.text);
	ef_series_free(&live.counted.series);
	json_decref(variant.programs);
}

static void do_snapshot(int n, char **word) {
	struct ef_live live;
	struct ef_feature_snapshot snapshot;

	make_live(&live, word);
	add_maps(n - 2, word + 2);
	ef_feature_snapshot_take(&live, true, &snapshot);
	printf("%zu %d %d", snapshot.n_maps, snapshot.histogram != NULL, snapshot.counters != NULL);
	for (size_t i = 0; i < snapshot.n_maps; i++)
		printf(" %s", snapshot.maps[i].name);
	printf(" %" PRIu64 " %" PRIu64 "\n", snapshot.hist[0].raw, snapshot.hist[1].raw);
	ef_feature_snapshot_free(&snapshot);
	json_decref(variant.programs);
}

static void do_counts(int n, char **word) {
	struct ef_live live = {.attached = {.object = (struct bpf_object *)maps}};
	struct ef_counters counters;

	(void)n, (void)word;
	ef_live_counters(&live, &counters);
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", counters.produced,
	       counters.delivered, counters.dropped, counters.sampled_out);
}

static void on_entry(void *ctx, const void *key, const struct ef_sum *value) {
	uint32_t index;

	(void)ctx;
	memcpy(&index, key, sizeof(index));
	printf("%" PRIu32 "=%" PRIu64, index, value->raw);
	if (value->weighted)
		printf("/%" PRIu64, value->weighted);
	putchar(' ');
}

static void do_walk(int n, char **word) {
	int err;

	bucket = strchr(word[0], ',') ? atoi(strchr(word[0], ',') + 1) : 0;
	batch = atoi(word[0]);
	add_maps(n - 1, word + 1);
	err = ef_mapread((const struct bpf_map *)maps, on_entry, NULL);
	printf("%s %d %" PRId64 "\n", err ? strerrorname_np(-err) : "0",
	       ef_mapread_can((const struct bpf_map *)maps),
	       ef_map_entries((const struct bpf_map *)maps));
}

static void do_can(int n, char **word) {
	add_maps(n, word);
	printf("%d\n", ef_mapread_can((const struct bpf_map *)maps));
}

static void do_attach(int n, char **word) {
	char *nothing[] = {(char *)"0", (char *)"m"};
	struct ef_live live;
	struct ef_reason why = {0};
	int err;

	(void)n;
	ef_bpflog_start();
	make_live(&live, nothing);
	for (int i = 0; i < 2; i++)
		json_array_append_new(variant.programs, json_string(i ? "two" : "one"));
	good_programs = atoi(word[0]);
	warn("libbpf: %s\n", word[1]);
	err = ef_live_attach_programs(&live, &why);
	printf("%s %d %s %s\n", err ? strerrorname_np(-err) : "0", ef_live_linked(&live),
	       why.code ? why.code : "-", why.text);
	printf("%d\n", ef_live_cut(&live));
	printf("%d %d\n", ef_live_linked(&live), ef_live_cut(&live));
	json_decref(variant.programs);
}

static void do_totals(int n, char **word) {
	char *kind[] = {"2", "h"};
	struct ef_live live;
	json_t *doc = json_loads(word[0], 0, NULL);

	(void)n;
	make_live(&live, kind);
	ef_totals_take(&live, doc);
	ef_totals_take(&live, doc);
	print_json(ef_totals_json(&live));
	ef_series_free(&live.counted.series);
	json_decref(variant.programs);
	json_decref(doc);
}

static const struct command commands[] = {
    {"possible", 0, do_possible}, {"see", 0, do_see},	    {"events", 2, do_events},
    {"prepare", 3, do_prepare},	  {"counts", 0, do_counts}, {"snapshot", 2, do_snapshot},
    {"record", 1, do_record},	  {"walk", 2, do_walk},	    {"attach", 2, do_attach},
    {"can", 1, do_can},		  {"totals", 1, do_totals},
};

int main(int argc, char **argv) {
	return run_command(commands, EF_ARRAY_SIZE(commands), argc, argv);
}
