/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/feed.h"

#include "base/clock.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "events/aggregate.h"
#include "events/perf.h"
#include "kernel/format.h"
#include "kernel/kernel.h"

#define AGE_EVERY_NS 1000000
#define LINE_BYTES (6 * EF_RECORD_BYTES + 4096) /* a byte becomes six characters at most */

struct ef_feed {
	struct ef_feed_source source;
	struct ef_format format;
	bool timed;		       /* records begin with ktime_ns */
	const struct ef_field *weight; /* NULL: records carry none */
	struct ef_sink *sink;
	struct ef_tally *tally;
	struct ring_buffer *ring;
	const unsigned long *positions; /* two pages: the consumer's position, the producer's */
	long page;
	struct ef_perf *perf;	     /* instead of the ring */
	struct ef_aggregate *groups; /* NULL: it has no aggregate_by */
	bool aggregating;
	uint64_t ring_bytes;
	int64_t wall_minus_mono; /* ns */
	unsigned left;		 /* records that this read may still take */
	bool odd_logged;
	int64_t noted_ns;		 /* CLOCK_MONOTONIC, when that was looked for last */
	int64_t oldest_ns;		 /* see ef_feed_lag_ns() */
	int64_t second;			 /* since 1970, of stamp */
	char stamp[32];			 /* a line's beginning up to the second */
	char *names;			 /* owned: a line's middle, feature and event */
	size_t names_length;		 /* bytes */
	uint8_t record[EF_RECORD_BYTES]; /* one that was shorter, filled with zeros */
	char line[LINE_BYTES];
};

/* A line's beginning; thousands of records share it. */
static void set_second(struct ef_feed *feed, int64_t second) {
	time_t seconds = second;
	struct tm utc;

	if (feed->second == second && *feed->stamp)
		return;
	feed->second = second;
	gmtime_r(&seconds, &utc);
	strftime(feed->stamp, sizeof(feed->stamp), "{\"time\": \"%Y-%m-%dT%H:%M:%S.", &utc);
}

/* RFC 3339 in UTC with nanoseconds. */
static void add_time(struct ef_feed *feed, struct ef_text *text, int64_t unix_ns) {
	uint32_t left = (uint32_t)(unix_ns % 1000000000);
	char digits[9];

	set_second(feed, unix_ns / 1000000000);
	ef_text_add_bytes(text, feed->stamp, strlen(feed->stamp));
	for (size_t i = sizeof(digits); i--; left /= 10)
		digits[i] = (char)('0' + left % 10);
	ef_text_add_bytes(text, digits, sizeof(digits));
}

/* When the record was made, or else read; ns since 1970. */
static int64_t time_of(const struct ef_feed *feed, const void *record) {
	uint64_t ktime;

	if (!feed->timed)
		return ef_clock_ns(CLOCK_REALTIME);
	memcpy(&ktime, record, sizeof(ktime));
	return (int64_t)ktime + feed->wall_minus_mono;
}

static void take_record(struct ef_feed *feed, const void *record) {
	struct ef_text text = {.at = feed->line, .size = sizeof(feed->line)};
	const struct ef_load load = {1, feed->weight ? ef_field_uint(feed->weight, record) : 0};

	if (ef_sink_only_counts(feed->sink)) {
		ef_tally_written(feed->tally, &load);
		return;
	}
	if (feed->aggregating) {
		ef_aggregate_add(feed->groups, record, load.weight);
		return;
	}
	add_time(feed, &text, time_of(feed, record));
	ef_text_add_bytes(&text, feed->names, feed->names_length);
	ef_text_add_fields(&text, &feed->format, record);
	ef_text_add_bytes(&text, "}\n", 2);
	if (text.used < text.size)
		ef_sink_add(feed->sink, feed->source.feature, feed->line, text.used, feed->tally,
			    &load);
	else
		feed->tally->dropped++;
}

static void refuse_record(struct ef_feed *feed, size_t size) {
	feed->tally->dropped++;
	if (!feed->odd_logged)
		ef_err("feature %s: a record of %zu bytes, expected %u; it is dropped",
		       feed->source.feature, size, feed->format.size);
	feed->odd_logged = true;
}

/* Others send records without the end of their struct that holds nothing. */
static const void *filled_up(struct ef_feed *feed, const void *record, size_t size) {
	memcpy(feed->record, record, size);
	memset(feed->record + size, 0, feed->format.size - size);
	return feed->record;
}

/* False: this read has taken all that it may. */
static bool take(void *ctx, const void *record, size_t size) {
	struct ef_feed *feed = ctx;

	if (size >= feed->format.size)
		take_record(feed, record);
	else if (feed->source.third_party)
		take_record(feed, filled_up(feed, record, size));
	else
		refuse_record(feed, size);
	return --feed->left;
}

/* libbpf's callback; a negative result ends the read after this record. */
static int on_ring(void *ctx, void *record, size_t size) {
	return take(ctx, record, size) ? 0 : -EAGAIN;
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

static int open_ring(struct ef_feed *feed) {
	int fd = bpf_map__fd(feed->source.map);

	feed->ring_bytes = bpf_map__max_entries(feed->source.map);
	feed->ring = ring_buffer__new(fd, on_ring, feed, NULL);
	if (!feed->ring)
		return -errno;
	return map_positions(feed, fd);
}

static int open_perf(struct ef_feed *feed) {
	feed->perf = ef_perf_new(bpf_map__fd(feed->source.map), take, feed);
	if (!feed->perf)
		return -errno;
	feed->ring_bytes = ef_perf_bytes(feed->perf);
	return 0;
}

static int open_buffer(struct ef_feed *feed) {
	enum bpf_map_type type = bpf_map__type(feed->source.map);

	if (type == BPF_MAP_TYPE_RINGBUF)
		return open_ring(feed);
	return type == BPF_MAP_TYPE_PERF_EVENT_ARRAY ? open_perf(feed) : -EPROTOTYPE;
}

static int read_format(struct ef_feed *feed) {
	int err = ef_format_read(feed->source.btf, feed->source.event_struct, &feed->format);

	if (err)
		return err;
	if (feed->format.size > EF_RECORD_BYTES)
		return -E2BIG;
	feed->timed = !ef_format_check_event(&feed->format);
	feed->weight = feed->source.third_party ? NULL : ef_format_weight(&feed->format);
	return feed->timed || feed->source.third_party ? 0 : -EINVAL;
}

static int open_groups(struct ef_feed *feed) {
	if (!feed->source.aggregate_by)
		return 0;
	feed->groups = ef_aggregate_new(&feed->format, feed->source.aggregate_by);
	return feed->groups ? 0 : -errno;
}

static void make_names(struct ef_feed *feed) {
	int length = asprintf(&feed->names, "Z\", \"feature\": \"%s\", \"event\": \"%s\", ",
			      feed->source.feature, feed->source.event);

	if (length < 0)
		feed->names = NULL;
	feed->names_length = strlen(ef_must(feed->names));
}

struct ef_feed *ef_feed_new(const struct ef_feed_source *source, struct ef_sink *sink,
			    struct ef_tally *tally) {
	struct ef_feed *feed = ef_must(calloc(1, sizeof(*feed)));
	int err;

	feed->source = *source;
	feed->sink = sink;
	feed->tally = tally;
	make_names(feed);
	err = read_format(feed);
	if (!err)
		err = open_groups(feed);
	if (!err)
		err = open_buffer(feed);
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
	ef_perf_free(feed->perf);
	ef_aggregate_free(feed->groups);
	ef_format_free(&feed->format);
	free(feed->names);
	free(feed);
}

static void tell_group(void *ctx, const struct ef_format *format, const void *key,
		       const struct ef_sum *count) {
	struct ef_feed *feed = ctx;
	struct ef_text text = {.at = feed->line, .size = sizeof(feed->line)};
	const struct ef_load load = {ef_sum_raw(count), ef_sum_weighted(count)};

	add_time(feed, &text, ef_clock_ns(CLOCK_REALTIME));
	ef_text_add_bytes(&text, feed->names, feed->names_length);
	ef_text_add(&text, "\"aggregated\": ");
	ef_text_add_uint(&text, ef_sum_raw(count));
	if (feed->weight) {
		ef_text_add(&text, ", \"weight\": ");
		ef_text_add_uint(&text, ef_sum_weighted(count));
	}
	if (key) {
		ef_text_add_bytes(&text, ", ", 2);
		ef_text_add_fields(&text, format, key);
	}
	ef_text_add_bytes(&text, "}\n", 2);
	ef_sink_add(feed->sink, feed->source.feature, feed->line, text.used,
		    feed->source.aggregated, &load);
}

void ef_feed_tell(struct ef_feed *feed) {
	if (feed->groups)
		ef_aggregate_tell(feed->groups, tell_group, feed);
}

void ef_feed_aggregate(struct ef_feed *feed, bool on) {
	if (feed->aggregating && !on)
		ef_feed_tell(feed);
	feed->aggregating = on && feed->groups;
}

bool ef_feed_weighs(const struct ef_feed *feed) {
	return feed->weight != NULL;
}

int ef_feed_fd(const struct ef_feed *feed) {
	return feed->perf ? ef_perf_fd(feed->perf) : ring_buffer__epoll_fd(feed->ring);
}

/* ktime_ns of the ring's next record; 0: not known (still being written, or thrown away). */
static uint64_t ring_next(const struct ef_feed *feed) {
	uint64_t at = *feed->positions & (feed->ring_bytes - 1);
	size_t page = (size_t)feed->page, offset = at & (page - 1);
	const uint32_t *header;
	uint64_t ktime = 0;
	void *pages;

	/* Mapped for the moment: a mapping that stays would count as resident once more. */
	pages = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, bpf_map__fd(feed->source.map),
		     (off_t)(2 * page + at - offset));
	if (pages == MAP_FAILED)
		return 0;
	header = (const uint32_t *)((const char *)pages + offset);
	if (!(__atomic_load_n(header, __ATOMIC_ACQUIRE) &
	      (BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)))
		memcpy(&ktime, (const char *)header + BPF_RINGBUF_HDR_SZ, sizeof(ktime));
	munmap(pages, 2 * page);
	return ktime;
}

/* The age of the oldest unread record; 0: there is none; -1: not known. */
static int64_t age(const struct ef_feed *feed) {
	uint64_t ktime;
	int64_t now;

	if (!ef_feed_lag(feed))
		return 0;
	if (!feed->timed)
		return -1;
	ktime = feed->perf ? ef_perf_next(feed->perf) : ring_next(feed);
	now = ef_clock_ns(CLOCK_MONOTONIC);
	return ktime ? now > (int64_t)ktime ? now - (int64_t)ktime : 0 : -1;
}

static void note_age(struct ef_feed *feed) {
	int64_t now = age(feed);

	if (now > feed->oldest_ns)
		feed->oldest_ns = now;
}

/* Asking costs as much as reading ten records: under load not before each read. */
static void note_age_at(struct ef_feed *feed, int64_t now_ns) {
	if (now_ns - feed->noted_ns < AGE_EVERY_NS)
		return;
	feed->noted_ns = now_ns;
	note_age(feed);
}

int64_t ef_feed_lag_ns(struct ef_feed *feed) {
	int64_t oldest;

	if (!feed->timed)
		return -1;
	note_age(feed);
	oldest = feed->oldest_ns;
	feed->oldest_ns = 0;
	return oldest;
}

bool ef_feed_read(struct ef_feed *feed, unsigned limit) {
	feed->left = limit;
	note_age_at(feed, ef_clock_ns(CLOCK_MONOTONIC));
	feed->wall_minus_mono = ef_clock_ns(CLOCK_REALTIME) - ef_clock_ns(CLOCK_MONOTONIC);
	if (!feed->perf)
		return ring_buffer__consume(feed->ring) == -EAGAIN;
	ef_perf_read(feed->perf);
	return !feed->left;
}

/* Bytes between the two positions of the ring. */
static uint64_t ring_lag(const struct ef_feed *feed) {
	const unsigned long *producer =
	    (const unsigned long *)((const char *)feed->positions + feed->page);
	/* The consumer's first: read the other way round, it could seem to be ahead. */
	unsigned long consumed = __atomic_load_n(feed->positions, __ATOMIC_ACQUIRE);

	return __atomic_load_n(producer, __ATOMIC_ACQUIRE) - consumed;
}

uint64_t ef_feed_lag(const struct ef_feed *feed) {
	return feed->perf ? ef_perf_lag(feed->perf) : ring_lag(feed);
}

uint64_t ef_feed_ring_bytes(const struct ef_feed *feed) {
	return feed->ring_bytes;
}

int64_t ef_feed_lost(const struct ef_feed *feed) {
	return feed->perf ? (int64_t)ef_perf_lost(feed->perf) : -1;
}

bool ef_feed_stale(const struct ef_feed *feed) {
	return feed->perf && ef_perf_stale(feed->perf);
}
