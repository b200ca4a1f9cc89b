/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The sink `jsonl`: DIR/events.jsonl, and full ones as events.jsonl.N, the highest the youngest. */
#include "events/sink.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "events/cursor.h"

#define BUFFER_BYTES (64 * 1024)
#define MAX_RECORDS 2048
#define NAME "events.jsonl"
#define CURSOR_MOST 1000000000000000 /* beyond that it is not a number of ours */

struct record {
	size_t end; /* offset in the buffer behind its last byte */
	struct ef_tally *tally;
	struct ef_load load; /* what the line tells of */
};

struct file_sink {
	struct ef_sink base;
	const char *dir;
	uint64_t limit; /* bytes of a file */
	unsigned files;
	char cursor[EF_SINK_PATH_BYTES]; /* where the log shipper says how far it is; "": nowhere */
	uint64_t lost;			 /* bytes that were removed before it took them */
	int fd;				 /* -1: not open */
	off_t size;			 /* bytes in the file */
	bool failing;			 /* the last flush lost records; logged once */
	size_t used;
	size_t n_records;
	struct record records[MAX_RECORDS];
	char buffer[BUFFER_BYTES];
};

static void close_file(struct file_sink *sink) {
	if (sink->fd >= 0)
		close(sink->fd);
	sink->fd = -1;
}

/* A loader that was killed may have left half a line: the next one starts a line of its own. */
static int end_torn_line(struct file_sink *sink) {
	char last;

	if (!sink->size || pread(sink->fd, &last, 1, sink->size - 1) != 1 || last == '\n')
		return 0;
	if (write(sink->fd, "\n", 1) != 1)
		return -errno;
	sink->size++;
	return 0;
}

static int open_file(struct file_sink *sink) {
	char path[4096];
	struct stat st;

	if (sink->fd >= 0)
		return 0;
	snprintf(path, sizeof(path), "%s/" NAME, sink->dir);
	sink->fd =
	    open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
	if (sink->fd < 0)
		return -errno;
	if (fstat(sink->fd, &st) || !S_ISREG(st.st_mode)) {
		close_file(sink);
		return -EINVAL;
	}
	sink->size = st.st_size;
	return end_torn_line(sink);
}

static void name_segment(const struct file_sink *sink, uint64_t number, char *path, size_t size) {
	snprintf(path, size, "%s/" NAME ".%" PRIu64, sink->dir, number);
}

/* The number of a segment by its file's name; 0: it is something else. */
static uint64_t number_of(const char *name) {
	static const char prefix[] = NAME ".";
	const char *digits = name + sizeof(prefix) - 1;

	if (strncmp(name, prefix, sizeof(prefix) - 1) || *digits == '0' || strlen(digits) > 18 ||
	    digits[strspn(digits, "0123456789")])
		return 0;
	return strtoull(digits, NULL, 10);
}

/* The segments that are there. */
struct segments {
	uint64_t lowest, highest; /* 0: there are none */
	unsigned n;
};

static struct segments list_segments(const struct file_sink *sink) {
	_cleanup_closedir_ DIR *dir = opendir(sink->dir);
	struct segments found = {0};
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		uint64_t number = number_of(entry->d_name);

		if (!number)
			continue;
		found.n++;
		if (!found.lowest || number < found.lowest)
			found.lowest = number;
		if (number > found.highest)
			found.highest = number;
	}
	return found;
}

/* What the log shipper has not taken of a segment of that size. */
static uint64_t unshipped(const struct ef_cursor *cursor, uint64_t number, uint64_t size) {
	uint64_t taken = cursor->segment > number    ? size
			 : cursor->segment == number ? cursor->offset
						     : 0;

	return taken < size ? size - taken : 0;
}

static void remove_segment(struct file_sink *sink, uint64_t number,
			   const struct ef_cursor *cursor) {
	char path[4096];
	struct stat st;

	name_segment(sink, number, path, sizeof(path));
	if (lstat(path, &st) || unlink(path))
		return; /* a folder that cannot be written is told elsewhere */
	if (*sink->cursor)
		sink->lost += unshipped(cursor, number, (uint64_t)st.st_size);
}

/* The oldest segments give way; how many there may be is in policy.json. */
static void remove_surplus(struct file_sink *sink) {
	struct segments found = list_segments(sink);
	struct ef_cursor cursor = {0};

	if (found.n >= sink->files)
		ef_cursor_read(sink->cursor, &cursor);
	for (; found.n >= sink->files; found.n--) {
		remove_segment(sink, found.lowest, &cursor);
		found = (struct segments){list_segments(sink).lowest, found.highest, found.n};
	}
}

/*
 * The number that the file that is written will have. Where all segments are gone the
 * cursor says how far the numbers were: a shipper must not take new records for old.
 */
static uint64_t next_number(const struct file_sink *sink) {
	struct segments found = list_segments(sink);
	struct ef_cursor cursor;

	if (!found.n && !ef_cursor_read(sink->cursor, &cursor) && cursor.segment < CURSOR_MOST)
		return cursor.segment;
	return found.highest + 1;
}

/* The full file gets its number, and keeps it: a reader finds it by that until it is removed. */
static int rotate(struct file_sink *sink) {
	char from[4096], to[4096];

	snprintf(from, sizeof(from), "%s/" NAME, sink->dir);
	name_segment(sink, next_number(sink), to, sizeof(to));
	if (rename(from, to) && errno != ENOENT)
		return -errno;
	remove_surplus(sink);
	close_file(sink);
	return open_file(sink);
}

/* A file that somebody removed or moved away is not written to any more. */
static bool still_there(const struct file_sink *sink) {
	char path[4096];
	struct stat ours, there;

	snprintf(path, sizeof(path), "%s/" NAME, sink->dir);
	return !fstat(sink->fd, &ours) && !lstat(path, &there) && ours.st_ino == there.st_ino &&
	       ours.st_dev == there.st_dev;
}

static int make_ready(struct file_sink *sink) {
	int err;

	if (sink->fd >= 0 && !still_there(sink))
		close_file(sink);
	err = open_file(sink);
	if (!err && sink->size && (uint64_t)sink->size + sink->used > sink->limit)
		err = rotate(sink);
	return err;
}

/* Offset behind the last whole record within the first n bytes of the buffer. */
static size_t whole_records(const struct file_sink *sink, size_t n) {
	size_t end = 0;

	for (size_t i = 0; i < sink->n_records && sink->records[i].end <= n; i++)
		end = sink->records[i].end;
	return end;
}

/*
 * Write the buffer once: an ordinary file takes all or is out of space. Half a
 * record at the end is taken back. Returns bytes written, whole records only;
 * *err is why not all.
 */
static size_t write_buffer(struct file_sink *sink, int *err) {
	ssize_t n = write(sink->fd, sink->buffer, sink->used);
	size_t whole;

	*err = n < 0 ? -errno : (size_t)n < sink->used ? -ENOSPC : 0;
	if (n <= 0)
		return 0;
	whole = whole_records(sink, (size_t)n);
	sink->size += (off_t)whole;
	if (whole != (size_t)n && ftruncate(sink->fd, sink->size))
		close_file(sink); /* opened again, the torn line is ended */
	return whole;
}

/* Say a failure once, and its end once. */
static void report(struct file_sink *sink, int err) {
	if (err && !sink->failing)
		ef_err("cannot write %s/" NAME
		       ": %s; events are dropped and counted until the folder "
		       "can be written",
		       sink->dir, strerror(-err));
	if (!err && sink->failing)
		ef_notice("%s/" NAME " can be written again", sink->dir);
	sink->failing = err != 0;
}

static void settle(struct file_sink *sink, size_t written) {
	for (size_t i = 0; i < sink->n_records; i++) {
		if (sink->records[i].end <= written)
			ef_tally_written(sink->records[i].tally, &sink->records[i].load);
		else
			sink->records[i].tally->dropped += sink->records[i].load.records;
	}
	sink->used = 0;
	sink->n_records = 0;
}

/* A file takes everything at once or has no space: nothing ever waits. */
static void file_flush(struct ef_sink *base, bool all) {
	struct file_sink *sink = (struct file_sink *)base;
	size_t written = 0;
	int err;

	(void)all;
	if (!sink->n_records)
		return;
	err = make_ready(sink);
	if (!err)
		written = write_buffer(sink, &err);
	report(sink, err);
	settle(sink, written);
}

static void file_add(struct ef_sink *base, const char *feature, const char *line, size_t length,
		     struct ef_tally *tally, const struct ef_load *load) {
	struct file_sink *sink = (struct file_sink *)base;

	(void)feature; /* the line names it */
	if (sink->used + length > BUFFER_BYTES || sink->n_records == MAX_RECORDS)
		file_flush(base, false);
	if (length > BUFFER_BYTES) {
		tally->dropped += load->records;
		return;
	}
	memcpy(sink->buffer + sink->used, line, length);
	sink->used += length;
	sink->records[sink->n_records].end = sink->used;
	sink->records[sink->n_records].load = *load;
	sink->records[sink->n_records++].tally = tally;
}

/* Bytes that are in the files and were not taken yet. */
static int64_t behind(const struct file_sink *sink, const struct ef_cursor *cursor, uint64_t now) {
	int64_t bytes = 0;
	char path[4096];
	struct stat st;

	for (uint64_t n = now > EF_SINK_FILES_MAX ? now - EF_SINK_FILES_MAX : 1; n <= now; n++) {
		name_segment(sink, n, path, sizeof(path));
		if (n == now)
			snprintf(path, sizeof(path), "%s/" NAME, sink->dir);
		if (!lstat(path, &st))
			bytes += (int64_t)unshipped(cursor, n, (uint64_t)st.st_size);
	}
	return bytes;
}

static void file_tell(const struct ef_sink *base, struct ef_sink_state *state) {
	const struct file_sink *sink = (const struct file_sink *)base;
	struct ef_cursor cursor;

	if (!*sink->cursor)
		return;
	state->segment = (int64_t)next_number(sink);
	state->unshipped_deleted_bytes = (int64_t)sink->lost;
	if (ef_cursor_read(sink->cursor, &cursor))
		return;
	state->cursor_segment = (int64_t)cursor.segment;
	state->cursor_offset = (int64_t)cursor.offset;
	state->unshipped_bytes = behind(sink, &cursor, (uint64_t)state->segment);
}

static void file_free(struct ef_sink *base) {
	close_file((struct file_sink *)base);
	free(base);
}

struct ef_sink *ef_sink_jsonl_new(const char *dir, const struct ef_sink_policy *policy) {
	static const struct ef_sink_ops ops = {file_add, file_flush, file_free, file_tell};
	struct file_sink *sink = ef_must(calloc(1, sizeof(*sink)));

	sink->base.ops = &ops;
	sink->dir = dir;
	sink->fd = -1;
	sink->limit = policy->file_bytes;
	sink->files = policy->files;
	memcpy(sink->cursor, policy->cursor, sizeof(sink->cursor));
	remove_surplus(sink);
	return &sink->base;
}
