/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "log.h"
#include "must.h"
#include "util.h"

#define BUFFER_BYTES (64 * 1024)
#define MAX_RECORDS 2048
#define NAME "events.jsonl"

struct record {
	size_t end; /* offset in the buffer behind its last byte */
	struct ef_tally *tally;
};

struct ef_sink {
	const char *dir;
	int fd;	      /* -1: not open */
	off_t size;   /* bytes in the file */
	bool failing; /* the last flush lost records; said once */
	size_t used;
	size_t n_records;
	struct record records[MAX_RECORDS];
	char buffer[BUFFER_BYTES];
};

struct ef_sink *ef_sink_new(const char *dir) {
	struct ef_sink *sink = ef_must(calloc(1, sizeof(*sink)));

	sink->dir = dir;
	sink->fd = -1;
	return sink;
}

static void close_file(struct ef_sink *sink) {
	if (sink->fd >= 0)
		close(sink->fd);
	sink->fd = -1;
}

void ef_sink_free(struct ef_sink *sink) {
	if (!sink)
		return;
	ef_sink_flush(sink);
	close_file(sink);
	free(sink);
}

/* A loader that was killed may have left half a line: the next one starts a line of its own. */
static int end_torn_line(struct ef_sink *sink) {
	char last;

	if (!sink->size || pread(sink->fd, &last, 1, sink->size - 1) != 1 || last == '\n')
		return 0;
	if (write(sink->fd, "\n", 1) != 1)
		return -errno;
	sink->size++;
	return 0;
}

static int open_file(struct ef_sink *sink) {
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

static int rotate(struct ef_sink *sink) {
	char from[4096], to[4096];

	snprintf(from, sizeof(from), "%s/" NAME, sink->dir);
	snprintf(to, sizeof(to), "%s/" NAME ".1", sink->dir);
	if (rename(from, to) && errno != ENOENT)
		return -errno;
	close_file(sink);
	return open_file(sink);
}

/* A file that somebody removed or moved away is not written to any more. */
static bool still_there(const struct ef_sink *sink) {
	char path[4096];
	struct stat ours, there;

	snprintf(path, sizeof(path), "%s/" NAME, sink->dir);
	return !fstat(sink->fd, &ours) && !lstat(path, &there) && ours.st_ino == there.st_ino &&
	       ours.st_dev == there.st_dev;
}

static int make_ready(struct ef_sink *sink) {
	int err;

	if (sink->fd >= 0 && !still_there(sink))
		close_file(sink);
	err = open_file(sink);
	if (!err && sink->size && sink->size + (off_t)sink->used > EF_SINK_FILE_LIMIT)
		err = rotate(sink);
	return err;
}

/* Offset behind the last whole record within the first n bytes of the buffer. */
static size_t whole_records(const struct ef_sink *sink, size_t n) {
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
static size_t write_buffer(struct ef_sink *sink, int *err) {
	ssize_t n = write(sink->fd, sink->buffer, sink->used);
	size_t whole;

	*err = n < 0 ? -errno : (size_t)n < sink->used ? -ENOSPC : 0;
	if (n <= 0)
		return 0;
	whole = whole_records(sink, (size_t)n);
	sink->size += (off_t)whole;
	if (whole != (size_t)n && ftruncate(sink->fd, sink->size))
		close_file(sink); /* opened anew, the torn line is ended */
	return whole;
}

/* Say a failure once, and its end once. */
static void report(struct ef_sink *sink, int err) {
	if (err && !sink->failing)
		ef_err("cannot write %s/" NAME
		       ": %s; events are dropped and counted until the folder "
		       "can be written",
		       sink->dir, strerror(-err));
	if (!err && sink->failing)
		ef_notice("%s/" NAME " can be written again", sink->dir);
	sink->failing = err != 0;
}

static void settle(struct ef_sink *sink, size_t written) {
	for (size_t i = 0; i < sink->n_records; i++) {
		if (sink->records[i].end <= written)
			sink->records[i].tally->written++;
		else
			sink->records[i].tally->dropped++;
	}
	sink->used = 0;
	sink->n_records = 0;
}

void ef_sink_flush(struct ef_sink *sink) {
	size_t written = 0;
	int err;

	if (!sink->n_records)
		return;
	err = make_ready(sink);
	if (!err)
		written = write_buffer(sink, &err);
	report(sink, err);
	settle(sink, written);
}

void ef_sink_add(struct ef_sink *sink, const char *line, size_t length, struct ef_tally *tally) {
	if (sink->used + length > BUFFER_BYTES || sink->n_records == MAX_RECORDS)
		ef_sink_flush(sink);
	if (length > BUFFER_BYTES) {
		tally->dropped++;
		return;
	}
	memcpy(sink->buffer + sink->used, line, length);
	sink->used += length;
	sink->records[sink->n_records].end = sink->used;
	sink->records[sink->n_records++].tally = tally;
}
