/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feed.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "format.h"
#include "kernel.h"
#include "log.h"
#include "must.h"
#include "util.h"

#define LINE_BYTES 16384
#define MAX_RECORD_BYTES 2048 /* at six characters a byte it still fits a line */

struct ef_feed {
	struct ring_buffer *ring;
	struct ef_format format;
	const char *feature;
	const char *event;
	struct ef_sink *sink;
	struct ef_tally *tally;
	uint64_t ring_bytes;
	const unsigned long *positions; /* two pages: the consumer's position, the producer's */
	long page;
	int64_t wall_minus_mono; /* ns */
	unsigned left;		 /* records that this read may still take */
	bool odd_said;
};

/* RFC 3339 in UTC with nanoseconds. */
static void add_time(struct ef_text *text, int64_t unix_ns) {
	time_t seconds = unix_ns / 1000000000;
	struct tm utc;
	char stamp[32];

	gmtime_r(&seconds, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
	ef_text_add(text, "{\"time\": \"%s.%09" PRId64 "Z\"", stamp, unix_ns % 1000000000);
}

static void take_record(struct ef_feed *feed, const void *record) {
	char line[LINE_BYTES];
	struct ef_text text = {.at = line, .size = sizeof(line)};
	uint64_t ktime;

	memcpy(&ktime, record, sizeof(ktime));
	add_time(&text, (int64_t)ktime + feed->wall_minus_mono);
	ef_text_add(&text, ", \"feature\": \"%s\", \"event\": \"%s\", ", feed->feature,
		    feed->event);
	ef_text_add_fields(&text, &feed->format, record);
	ef_text_add(&text, "}\n");
	if (text.used < text.size)
		ef_sink_add(feed->sink, line, text.used, feed->tally);
	else
		feed->tally->dropped++;
}

/* libbpf's callback; a negative result ends the read after this record. */
static int on_record(void *ctx, void *record, size_t size) {
	struct ef_feed *feed = ctx;

	if (size >= feed->format.size) {
		take_record(feed, record);
	} else {
		feed->tally->dropped++;
		if (!feed->odd_said)
			ef_err("feature %s: a record of %zu bytes, expected %u; it is dropped",
			       feed->feature, size, feed->format.size);
		feed->odd_said = true;
	}
	return --feed->left ? 0 : -EAGAIN;
}

static int map_positions(struct ef_feed *feed, int map_fd) {
	void *pages;

	feed->page = sysconf(_SC_PAGESIZE);
	pages = mmap(NULL, 2 * (size_t)feed->page, PROT_READ, MAP_SHARED, map_fd, 0);
	if (pages == MAP_FAILED)
		return -errno;
	feed->positions = pages;
	return 0;
}

static int open_ring(struct ef_feed *feed, int map_fd) {
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(map_fd, &info, &size))
		return -errno;
	feed->ring_bytes = info.max_entries;
	feed->ring = ring_buffer__new(map_fd, on_record, feed, NULL);
	if (!feed->ring)
		return -errno;
	return map_positions(feed, map_fd);
}

static int read_format(struct ef_feed *feed, const struct btf *btf, const char *event_struct) {
	int err = ef_format_read(btf, event_struct, &feed->format);

	if (err)
		return err;
	if (feed->format.size > MAX_RECORD_BYTES)
		return -E2BIG;
	return ef_format_check_event(&feed->format);
}

struct ef_feed *ef_feed_new(int map_fd, const struct btf *btf, const char *event_struct,
			    const char *feature, const char *event, struct ef_sink *sink,
			    struct ef_tally *tally) {
	struct ef_feed *feed = ef_must(calloc(1, sizeof(*feed)));
	int err;

	feed->feature = feature;
	feed->event = event;
	feed->sink = sink;
	feed->tally = tally;
	err = read_format(feed, btf, event_struct);
	if (!err)
		err = open_ring(feed, map_fd);
	if (!err)
		return feed;
	ef_feed_free(feed);
	errno = -err;
	return NULL;
}

void ef_feed_free(struct ef_feed *feed) {
	if (!feed)
		return;
	if (feed->positions)
		munmap((void *)feed->positions, 2 * (size_t)feed->page);
	ring_buffer__free(feed->ring);
	ef_format_free(&feed->format);
	free(feed);
}

int ef_feed_fd(const struct ef_feed *feed) {
	return ring_buffer__epoll_fd(feed->ring);
}

bool ef_feed_read(struct ef_feed *feed, unsigned limit) {
	feed->left = limit;
	feed->wall_minus_mono = ef_clock_ns(CLOCK_REALTIME) - ef_clock_ns(CLOCK_MONOTONIC);
	return ring_buffer__consume(feed->ring) == -EAGAIN;
}

uint64_t ef_feed_lag(const struct ef_feed *feed) {
	const unsigned long *producer =
	    (const unsigned long *)((const char *)feed->positions + feed->page);
	/* The consumer's first: read the other way round, it could seem to be ahead. */
	unsigned long consumed = __atomic_load_n(feed->positions, __ATOMIC_ACQUIRE);

	return __atomic_load_n(producer, __ATOMIC_ACQUIRE) - consumed;
}

uint64_t ef_feed_ring_bytes(const struct ef_feed *feed) {
	return feed->ring_bytes;
}
