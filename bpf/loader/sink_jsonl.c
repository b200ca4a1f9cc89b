/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The sink `jsonl`: DIR/events.jsonl and its rotations, events.jsonl.1 the youngest. */
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
	uint64_t records; /* that the line tells of */
};

struct file_sink {
	struct ef_sink base;
	const char *dir;
	uint64_t limit; /* bytes of a file */
	unsigned files;
	int fd;	      /* -1: not open */
	off_t size;   /* bytes in the file */
	bool failing; /* the last flush lost records; said once */
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

/* Number 0 is the file that is written. */
static void name_file(const struct file_sink *sink, unsigned number, char *path, size_t size) {
	if (number)
		snprintf(path, size, "%s/" NAME ".%u", sink->dir, number);
	else
		snprintf(path, size, "%s/" NAME, sink->dir);
}

/* Files that an earlier policy allowed; a folder that cannot be written is said elsewhere. */
static void remove_surplus(const struct file_sink *sink) {
	char path[4096];

	for (unsigned i = sink->files; i < EF_SINK_FILES_MAX; i++) {
		name_file(sink, i, path, sizeof(path));
		unlink(path);
	}
}

/* Each file takes the next one's number; the oldest gives way. */
static int rotate(struct file_sink *sink) {
	char from[4096], to[4096];

	for (unsigned i = sink->files - 1; i; i--) {
		name_file(sink, i - 1, from, sizeof(from));
		name_file(sink, i, to, sizeof(to));
		if (rename(from, to) && errno != ENOENT)
			return -errno;
	}
	name_file(sink, 0, from, sizeof(from));
	if (sink->files == 1 && unlink(from) && errno != ENOENT)
		return -errno;
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
		close_file(sink); /* opened anew, the torn line is ended */
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
			sink->records[i].tally->written += sink->records[i].records;
		else
			sink->records[i].tally->dropped += sink->records[i].records;
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
		     struct ef_tally *tally, uint64_t records) {
	struct file_sink *sink = (struct file_sink *)base;

	(void)feature; /* the line names it */
	if (sink->used + length > BUFFER_BYTES || sink->n_records == MAX_RECORDS)
		file_flush(base, false);
	if (length > BUFFER_BYTES) {
		tally->dropped += records;
		return;
	}
	memcpy(sink->buffer + sink->used, line, length);
	sink->used += length;
	sink->records[sink->n_records].end = sink->used;
	sink->records[sink->n_records].records = records;
	sink->records[sink->n_records++].tally = tally;
}

static void file_free(struct ef_sink *base) {
	close_file((struct file_sink *)base);
	free(base);
}

struct ef_sink *ef_sink_jsonl_new(const char *dir, const struct ef_sink_policy *policy) {
	static const struct ef_sink_ops ops = {file_add, file_flush, file_free};
	struct file_sink *sink = ef_must(calloc(1, sizeof(*sink)));

	sink->base.ops = &ops;
	sink->dir = dir;
	sink->fd = -1;
	sink->limit = policy->file_bytes;
	sink->files = policy->files;
	remove_surplus(sink);
	return &sink->base;
}
