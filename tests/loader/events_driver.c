/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * What becomes of events on their way out, without a kernel and without a loader:
 *   looks KIND LAG/RING/DROPPED...    each look: what changed, the level, the thinning; "forget" in between
 *   cursor PATH                       the end, segment and offset
 *   aggregate BY RECORD...            records PID:COMM counted by fields; "tell" tells them
 *   quota RATE
 *   notice NOW:THINNED...             what each look says and whether thinning is active; "forget"
 *   sources ERROR CGROUP:UID:PRODUCED:THINNED...   the ranking of what the map is made to hold
 *   sink KIND PATH CURSOR BYTES FILES STEP...   add:N:TEXT, fill:N:BYTES, flush, settle, tell, wait, !COMMAND; PATH is
 *                                     the folder or the socket. What is written/dropped after each step
 */
/* clang-format on */
#include <bpf/bpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "control/sink_policy.h"
#include "events/aggregate.h"
#include "events/backpressure.h"
#include "events/cursor.h"
#include "events/fairness.h"
#include "events/sink.h"

#include "driver.h"

/* ---- the table of sources, as bpf/include/ef_fair.h has it, in the kernel's place ---- */

struct key {
	uint64_t cgroup;
	uint32_t uid, pad;
};

struct node {
	uint64_t window, produced, produced_at, thinned, thinned_at, asked, asked_at, first,
	    first_at, children, children_at, owed, told;
	uint32_t children_before, share, reserve, thinning;
};

static struct key keys[64];
static struct node nodes[64];
static struct node all;
static __u32 n_nodes;
static int lookup_error;

int bpf_map_lookup_elem(int fd, const void *key, void *value) {
	(void)fd, (void)key;
	memcpy(value, &all, sizeof(all));
	return 0;
}

/* Two a batch: the last says that there are no more. */
int bpf_map_lookup_batch(int fd, void *in, void *out, void *got_keys, void *got, __u32 *n,
			 const struct bpf_map_batch_opts *opts) {
	__u32 from = in ? *(__u32 *)in : 0, some = n_nodes - from < 2 ? n_nodes - from : 2;

	(void)fd, (void)opts;
	memcpy(got_keys, keys + from, some * sizeof(*keys));
	memcpy(got, nodes + from, some * sizeof(*nodes));
	*n = some;
	*(__u32 *)out = from + some;
	errno = lookup_error ? lookup_error : ENOENT;
	return lookup_error || from + some == n_nodes ? -errno : 0;
}

static void do_sources(int n, char **word) {
	struct ef_fairness fairness = {0};
	char text[256];

	lookup_error = atoi(word[0]);
	all.produced = 1000;
	for (int i = 1; i < n; i++) {
		sscanf(word[i], "%" SCNu64 ":%" SCNu32 ":%" SCNu64 ":%" SCNu64,
		       &keys[n_nodes].cgroup, &keys[n_nodes].uid, &nodes[n_nodes].produced,
		       &nodes[n_nodes].thinned);
		all.thinned += nodes[n_nodes++].thinned;
	}
	ef_fairness_read(&fairness, 5, 6);
	ef_fairness_sentence(&fairness, text, sizeof(text));
	for (int turn = 0; turn < 2; turn++) {
		_cleanup_json_ json_t *told = ef_fairness_json(&fairness, turn ? -1 : 7);

		json_dumpf(told, stdout, JSON_SORT_KEYS);
		putchar('\n');
		ef_fairness_forget(&fairness);
	}
	puts(text);
	ef_fairness_sentence(&fairness, text, sizeof(text));
	puts(text);
}

static void do_notice(int n, char **word) {
	static const char *const said[] = {"same", "begun", "ended"};
	struct ef_fairness fairness = {0};

	for (int i = 0; i < n; i++) {
		int64_t now = strtoll(word[i], NULL, 10);
		char *colon = strchr(word[i], ':');

		if (!colon) {
			ef_fairness_forget(&fairness);
			continue;
		}
		fairness.thinned = strtoull(colon + 1, NULL, 10);
		printf("%s", said[ef_fairness_check(&fairness, now)]);
		printf(" %d\n", fairness.active);
	}
}

/* ---- the rest ---- */

static void do_looks(int n, char **word) {
	static const char *const said[] = {"same", "begun", "changed", "ended"};
	struct ef_backpressure state = {.kind = (enum ef_backpressure_kind)atoi(word[0])};

	for (int i = 1; i < n; i++) {
		struct ef_strain strain;

		if (sscanf(word[i], "%" SCNu64 "/%" SCNu64 "/%" SCNu64, &strain.lag_bytes,
			   &strain.ring_bytes, &strain.dropped) != 3) {
			ef_backpressure_forget(&state);
			continue;
		}
		printf("%s", said[ef_backpressure_check(&state, &strain)]);
		printf(" %u %" PRIu32 " %" PRIu64 "\n", state.level,
		       ef_backpressure_thinning(&state), state.at.dropped);
	}
}

static void do_cursor(int n, char **word) {
	struct ef_cursor cursor = {7, 7};
	int err = ef_cursor_read(word[0], &cursor);

	(void)n;
	printf("%s %" PRIu64 " %" PRIu64 "\n", err ? strerrorname_np(-err) : "0", cursor.segment,
	       cursor.offset);
}

static void tell_group(void *ctx, const struct ef_format *format, const void *key,
		       const struct ef_sum *count) {
	char line[256];
	struct ef_text text = {.at = line, .size = sizeof(line)};

	(void)ctx;
	if (format)
		ef_text_add_fields(&text, format, key);
	if (count->weighted != 10 * count->raw)
		abort();
	printf("%" PRIu64 " {%.*s}\n", count->raw, (int)text.used, line);
}

static void do_aggregate(int n, char **word) {
	struct event {
		uint64_t ktime_ns;
		uint32_t pid;
		char comm[8];
		uint8_t bytes[200];
	};
	struct ef_field fields[] = {
	    {.name = "ktime_ns", .offset = 0, .size = 8, .kind = EF_FIELD_UINT},
	    {.name = "pid", .offset = 8, .size = 4, .kind = EF_FIELD_UINT},
	    {.name = "comm", .offset = 12, .size = 8, .kind = EF_FIELD_CHARS},
	    {.name = "bytes", .offset = 20, .size = 200, .kind = EF_FIELD_BYTES},
	};
	struct ef_format format = {.size = sizeof(struct event), .n_fields = 4, .fields = fields};
	_cleanup_json_ json_t *by = json_loads(word[0], 0, NULL);
	struct ef_aggregate *groups = ef_aggregate_new(&format, by);

	if (!groups) {
		puts(strerrorname_np(errno));
		return;
	}
	for (int i = 1; i < n; i++) {
		struct event event = {.ktime_ns = (uint64_t)i};
		char *colon = strchr(word[i], ':');

		if (!strcmp(word[i], "tell")) {
			ef_aggregate_tell(groups, tell_group, NULL);
			continue;
		}
		/* Behind the end of the text stands something else each time. */
		memset(event.comm, 'A' + i % 26, sizeof(event.comm));
		event.pid = (uint32_t)strtoul(word[i], NULL, 10);
		memccpy(event.comm, colon + 1, 0, sizeof(event.comm));
		ef_aggregate_add(groups, &event, 10);
	}
	ef_aggregate_free(groups);
	ef_aggregate_free(NULL);
}

static void do_quota(int n, char **word) {
	(void)n;
	printf("%" PRIu32 "\n", ef_fairness_quota(strtoll(word[0], NULL, 10)));
}

static void tell_sink(const struct ef_sink *sink) {
	struct ef_sink_state state;

	ef_sink_tell(sink, &state);
	printf("%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", state.segment,
	       state.cursor_segment, state.cursor_offset, state.unshipped_bytes,
	       state.unshipped_deleted_bytes);
}

static void add_line(struct ef_sink *sink, char *numbered, struct ef_tally *tally) {
	char *text = strchr(numbered, ':');
	_cleanup_free_ char *line = NULL;
	int length = asprintf(&line, "%s\n", text + 1);
	uint64_t records = strtoull(numbered, NULL, 10);
	const struct ef_load load = {records, 10 * records};

	ef_sink_add(sink, "feat", line, (size_t)length, tally, &load);
}

/* N lines of BYTES each, with the line feed. */
static void fill(struct ef_sink *sink, const char *numbers, struct ef_tally *tally) {
	unsigned long n = strtoul(numbers, NULL, 10),
		      bytes = strtoul(strchr(numbers, ':') + 1, NULL, 10);
	_cleanup_free_ char *line = malloc(bytes);
	const struct ef_load load = {1, 10};

	memset(line, 'x', bytes);
	line[bytes - 1] = '\n';
	for (unsigned long i = 0; i < n; i++)
		ef_sink_add(sink, "feat", line, bytes, tally, &load);
}

static void do_sink(int n, char **word) {
	struct ef_sink_policy policy = {.kind = (enum ef_sink_kind)atoi(word[0]),
					.file_bytes = strtoull(word[3], NULL, 10),
					.files = (unsigned)atoi(word[4])};
	struct ef_tally tally = {0};
	struct ef_sink *sink;

	snprintf(policy.path, sizeof(policy.path), "%s", word[1]);
	snprintf(policy.cursor, sizeof(policy.cursor), "%s", word[2]);
	sink = ef_sink_new(word[1], &policy);
	for (int i = 5; i < n; i++) {
		if (!strncmp(word[i], "add:", 4))
			add_line(sink, word[i] + 4, &tally);
		else if (!strncmp(word[i], "fill:", 5))
			fill(sink, word[i] + 5, &tally);
		else if (!strcmp(word[i], "flush"))
			ef_sink_flush(sink);
		else if (!strcmp(word[i], "settle"))
			ef_sink_settle(sink);
		else if (!strcmp(word[i], "wait"))
			usleep(1100000);
		else if (!strcmp(word[i], "tell")) {
			tell_sink(sink);
			continue;
		} else if (system(word[i] + 1))
			abort();
		printf("%" PRIu64 "/%" PRIu64 "\n", tally.written, tally.dropped);
		if (tally.weighted != 10 * tally.written)
			abort();
	}
	ef_sink_free(sink);
	ef_sink_free(NULL);
	printf("%" PRIu64 "/%" PRIu64 "\n", tally.written, tally.dropped);
}

static const struct command commands[] = {
    {"looks", 1, do_looks}, {"cursor", 1, do_cursor}, {"aggregate", 1, do_aggregate},
    {"quota", 1, do_quota}, {"notice", 0, do_notice}, {"sources", 1, do_sources},
    {"sink", 5, do_sink},
};

int main(int argc, char **argv) {
	return run_command(commands, EF_ARRAY_SIZE(commands), argc, argv);
}
