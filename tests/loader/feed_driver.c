/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * How the loader reads records, from a ring and from perf buffers that are made up here in libbpf's place:
 *   ring FOLDER STEP...   put:SIZE:PID, read:LIMIT, lag, age (ms), aggregate:0|1, tell, what, !COMMAND; as words
 *                         anywhere: broken (the positions cannot be mapped), failing (there are no buffers),
 *                         hash (a map of another type), third (the object is of others), count (nobody needs lines)
 *   perf FOLDER STEP...   put:CPU:SIZE:PID:AGE_MS, lost:CPU:N, and the same
 */
/* clang-format on */
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "events/feed.h"
#include "events/perf.h"

#define RING 65536
#define CPUS 3
#define BUFFER 4096

struct event {
	uint64_t ktime_ns;
	uint32_t pid;
	uint32_t more;
};

static enum bpf_map_type type = BPF_MAP_TYPE_RINGBUF;
static int ring_fd = -1;
static bool failing;
static char *ring_memory;

int bpf_map__fd(const struct bpf_map *map) {
	(void)map;
	return ring_fd;
}

enum bpf_map_type bpf_map__type(const struct bpf_map *map) {
	(void)map;
	return type;
}

__u32 bpf_map__max_entries(const struct bpf_map *map) {
	(void)map;
	return RING;
}

/* ---- a ring: two pages of positions, and its data twice ---- */

static ring_buffer_sample_fn on_record;
static void *record_ctx;
static unsigned long *consumer, *producer;

static void make_ring(bool broken) {
	long page = sysconf(_SC_PAGESIZE);

	ring_fd = memfd_create("ring", MFD_CLOEXEC);
	if (ftruncate(ring_fd, 2 * page + 2 * RING))
		abort();
	ring_memory = mmap(NULL, (size_t)(2 * page) + 2 * RING, PROT_READ | PROT_WRITE, MAP_SHARED,
			   ring_fd, 0);
	consumer = (unsigned long *)ring_memory;
	producer = (unsigned long *)(ring_memory + page);
	/* Far in: a distance is not taken for a position. */
	*consumer = *producer = RING + 512;
	if (broken)
		ring_fd = STDERR_FILENO;
}

static char *data_at(unsigned long position) {
	return ring_memory + 2 * sysconf(_SC_PAGESIZE) + (position & (RING - 1));
}

static void put(unsigned size, uint32_t pid) {
	struct event event = {(uint64_t)ef_clock_ns(CLOCK_MONOTONIC), pid, 7};
	char *at = data_at(*producer);
	char record[64] = {0};

	memcpy(record, &event, sizeof(event));
	*(uint32_t *)at = size;
	memcpy(at + BPF_RINGBUF_HDR_SZ, record, size);
	*producer += (size + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
}

struct ring_buffer *ring_buffer__new(int fd, ring_buffer_sample_fn fn, void *ctx,
				     const struct ring_buffer_opts *opts) {
	(void)fd, (void)opts;
	if (failing) {
		errno = ENOMEM;
		return NULL;
	}
	on_record = fn;
	record_ctx = ctx;
	return (struct ring_buffer *)ring_memory;
}

void ring_buffer__free(struct ring_buffer *ring) {
	(void)ring;
}

int ring_buffer__epoll_fd(const struct ring_buffer *ring) {
	(void)ring;
	return 77;
}

int ring_buffer__consume(struct ring_buffer *ring) {
	int n = 0;

	(void)ring;
	while (*consumer < *producer) {
		char *at = data_at(*consumer);
		uint32_t size = *(uint32_t *)at;
		int err = on_record(record_ctx, at + BPF_RINGBUF_HDR_SZ, size);

		*consumer += (size + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
		if (err < 0)
			return err;
		n++;
	}
	return n;
}

/* ---- perf buffers ---- */

static struct {
	struct perf_event_mmap_page page;
	char data[BUFFER] __attribute__((aligned(8)));
} buffers[CPUS];
static perf_buffer_event_fn on_event;
static void *event_ctx;

struct perf_buffer *perf_buffer__new_raw(int fd, size_t pages, struct perf_event_attr *attr,
					 perf_buffer_event_fn fn, void *ctx,
					 const struct perf_buffer_raw_opts *opts) {
	(void)fd, (void)pages, (void)opts;
	printf("attr %u %llu %llu %u\n", attr->type, attr->config, attr->sample_period,
	       attr->watermark);
	if (failing) {
		errno = EPERM;
		return NULL;
	}
	on_event = fn;
	event_ctx = ctx;
	for (int i = 0; i < CPUS; i++) {
		buffers[i].page.data_offset = offsetof(typeof(buffers[0]), data);
		buffers[i].page.data_size = BUFFER;
		buffers[i].page.data_head = buffers[i].page.data_tail = 3 * BUFFER - 40;
	}
	return (struct perf_buffer *)buffers;
}

void perf_buffer__free(struct perf_buffer *all) {
	(void)all;
}

int perf_buffer__epoll_fd(const struct perf_buffer *all) {
	(void)all;
	return 78;
}

size_t perf_buffer__buffer_cnt(const struct perf_buffer *all) {
	(void)all;
	return CPUS;
}

int perf_buffer__buffer(struct perf_buffer *all, int index, void **memory, size_t *size) {
	(void)all;
	if (index < 0 || index >= CPUS)
		return -EINVAL;
	*memory = &buffers[index];
	*size = BUFFER;
	return 0;
}

static void copy_in(int cpu, const void *from, size_t n) {
	for (size_t i = 0; i < n; i++)
		buffers[cpu].data[(buffers[cpu].page.data_head + i) % BUFFER] =
		    ((const char *)from)[i];
	buffers[cpu].page.data_head += n;
}

/* As libbpf: what goes round the end is put together first. */
int perf_buffer__consume_buffer(struct perf_buffer *all, size_t index) {
	struct perf_event_mmap_page *page = &buffers[index].page;

	(void)all;
	while (page->data_tail < page->data_head) {
		struct perf_event_header header;
		char whole[256] __attribute__((aligned(8)));

		for (size_t i = 0; i < sizeof(header); i++)
			((char *)&header)[i] = buffers[index].data[(page->data_tail + i) % BUFFER];
		for (size_t i = 0; i < header.size; i++)
			whole[i] = buffers[index].data[(page->data_tail + i) % BUFFER];
		page->data_tail += header.size;
		if (on_event(event_ctx, (int)index, (struct perf_event_header *)whole) !=
		    LIBBPF_PERF_EVENT_CONT)
			break;
	}
	return 0;
}

static void put_sample(int cpu, uint32_t size, uint32_t pid, int64_t age_ms) {
	struct event event = {(uint64_t)(ef_clock_ns(CLOCK_MONOTONIC) - age_ms * 1000000), pid, 7};
	struct {
		struct perf_event_header header;
		uint32_t size;
		char data[64];
	} __attribute__((packed)) sample = {.size = size};

	sample.header.type = PERF_RECORD_SAMPLE;
	sample.header.size = (uint16_t)(sizeof(sample.header) + 4 + size);
	memcpy(sample.data, &event, sizeof(event));
	copy_in(cpu, &sample, sample.header.size);
}

static void put_lost(int cpu, uint64_t n) {
	struct {
		struct perf_event_header header;
		uint64_t id, lost;
	} lost = {.lost = n};

	lost.header.type = PERF_RECORD_LOST;
	lost.header.size = sizeof(lost);
	copy_in(cpu, &lost, sizeof(lost));
}

/* ---- the feed ---- */

static struct btf *make_types(bool weighs) {
	struct btf *btf = btf__new_empty();
	int u32 = btf__add_int(btf, "u32", 4, 0), u64 = btf__add_int(btf, "u64", 8, 0);

	btf__add_struct(btf, "ef_event", sizeof(struct event));
	btf__add_field(btf, "ktime_ns", u64, 0, 0);
	if (weighs) {
		btf__add_field(btf, "weight", u64, 64, 0);
		return btf;
	}
	btf__add_field(btf, "pid", u32, 64, 0);
	btf__add_field(btf, "more", u32, 96, 0);
	return btf;
}

static struct ef_tally tally, aggregated;

static void print_tally(void) {
	printf("%" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64, tally.written, tally.dropped,
	       aggregated.written, aggregated.dropped);
	if (tally.weighted || aggregated.weighted)
		printf(" weigh %" PRIu64 " %" PRIu64, tally.weighted, aggregated.weighted);
	putchar('\n');
}

/* Milliseconds, rounded up; -1: not known. */
static void print_age(struct ef_feed *feed) {
	int64_t ns = ef_feed_lag_ns(feed);

	printf("%" PRId64 "\n", ns < 0 ? -1 : (ns + 999999) / 1000000);
}

static void take_step(struct ef_feed *feed, char *step, struct ef_sink *sink) {
	unsigned a = 0, b = 0, c = 0, d = 0;

	if (sscanf(step, "put:%u:%u:%u:%u", &a, &b, &c, &d) == 4)
		put_sample((int)a, b, c, d);
	else if (sscanf(step, "put:%u:%u", &a, &b) == 2)
		put(a, b);
	else if (sscanf(step, "lost:%u:%u", &a, &b) == 2)
		put_lost((int)a, b);
	else if (sscanf(step, "read:%u", &a) == 1)
		printf("%d ", ef_feed_read(feed, a));
	else if (!strcmp(step, "lag"))
		printf("%" PRIu64 "\n", ef_feed_lag(feed));
	else if (!strcmp(step, "age"))
		print_age(feed);
	else if (sscanf(step, "aggregate:%u", &a) == 1)
		ef_feed_aggregate(feed, a);
	else if (!strcmp(step, "tell"))
		ef_feed_tell(feed);
	else if (!strcmp(step, "what"))
		printf("%d %" PRIu64 " %" PRId64 " %d\n", ef_feed_fd(feed),
		       ef_feed_ring_bytes(feed), ef_feed_lost(feed), ef_feed_stale(feed));
	else if (step[0] == '!' && system(step + 1))
		abort();
	if (step[0] == 'r' || step[0] == 't') {
		ef_sink_flush(sink);
		print_tally();
	}
}

static bool among(int n, char **word, const char *wanted) {
	for (int i = 0; i < n; i++)
		if (!strcmp(word[i], wanted))
			return true;
	return false;
}

int main(int argc, char **argv) {
	struct ef_sink_policy policy = {.kind = EF_SINK_JSONL, .file_bytes = 1 << 20, .files = 2};
	struct ef_feed_source source = {
	    .feature = "f", .event = "e", .event_struct = "ef_event", .aggregated = &aggregated};
	json_t *by = json_pack("[s]", among(argc, argv, "weighs") ? "ktime_ns" : "pid");
	struct ef_sink *sink;
	struct ef_feed *feed;
	struct btf *btf = make_types(among(argc, argv, "weighs"));

	if (argc < 4)
		return 2;
	source.btf = btf;
	source.aggregate_by = by;
	source.third_party = among(argc, argv, "third");
	if (!strcmp(argv[1], "perf"))
		type = BPF_MAP_TYPE_PERF_EVENT_ARRAY;
	else if (among(argc, argv, "hash"))
		type = BPF_MAP_TYPE_HASH;
	if (among(argc, argv, "count"))
		policy.kind = EF_SINK_COUNT;
	failing = among(argc, argv, "failing");
	make_ring(among(argc, argv, "broken"));
	sink = ef_sink_new(argv[2], &policy);
	feed = ef_feed_new(&source, sink, &tally);
	if (!feed)
		printf("%s\n", strerrorname_np(errno));
	for (int i = 3; feed && i < argc; i++)
		take_step(feed, argv[i], sink);
	ef_feed_free(feed);
	ef_feed_free(NULL);
	ef_sink_free(sink);
	print_tally();
	json_decref(by);
	btf__free(btf);
	return 0;
}
