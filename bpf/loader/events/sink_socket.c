/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The sinks `journal` and `datagram`: one datagram an event, to a Unix socket. */
#include "events/sink.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "kernel/kernel.h"

#define BUFFER_BYTES (128 * 1024) /* all that may wait for a slow reader */
#define MAX_RECORDS 1024
#define BATCH 64
#define RETRY_NS 1000000000 /* between two attempts to reach an absent reader */

struct record {
	size_t end; /* offset in the buffer behind its last byte */
	struct ef_tally *tally;
	struct ef_load load; /* what the line tells of */
};

struct socket_sink {
	struct ef_sink base;
	struct sockaddr_un address;
	bool journal;
	bool failing; /* logged once */
	int fd;	      /* -1: not connected */
	int64_t retry_ns;
	size_t n;
	size_t used;
	struct record records[MAX_RECORDS];
	char buffer[BUFFER_BYTES];
};

static void report(struct socket_sink *sink, int err) {
	if (err && !sink->failing)
		ef_err("no reader takes events at %s: %s; they are dropped and counted until "
		       "somebody does",
		       sink->address.sun_path, strerror(-err));
	if (!err && sink->failing)
		ef_notice("events are taken again at %s", sink->address.sun_path);
	sink->failing = err != 0;
}

static void disconnect(struct socket_sink *sink) {
	if (sink->fd >= 0)
		close(sink->fd);
	sink->fd = -1;
}

/* 0, or why no one can be reached; tried once a second. */
static int reach(struct socket_sink *sink) {
	int64_t now = ef_clock_ns(CLOCK_MONOTONIC);
	int err;

	if (sink->fd >= 0)
		return 0;
	if (now < sink->retry_ns)
		return -ENOTCONN;
	sink->retry_ns = now + RETRY_NS;
	sink->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sink->fd >= 0 &&
	    !connect(sink->fd, (const struct sockaddr *)&sink->address, sizeof(sink->address))) {
		report(sink, 0);
		return 0;
	}
	err = -errno;
	disconnect(sink);
	report(sink, err);
	return err;
}

static size_t start_of(const struct socket_sink *sink, size_t index) {
	return index ? sink->records[index - 1].end : 0;
}

static void count(const struct record *record, bool written) {
	if (written)
		ef_tally_written(record->tally, &record->load);
	else
		record->tally->dropped += record->load.records;
}

/* One call for up to BATCH records; returns how many were taken, or -errno. */
static int send_batch(struct socket_sink *sink, size_t first) {
	struct mmsghdr messages[BATCH] = {0};
	struct iovec parts[BATCH];
	unsigned n = 0;
	int taken;

	for (; n < BATCH && first + n < sink->n; n++) {
		size_t start = start_of(sink, first + n);

		parts[n].iov_base = sink->buffer + start;
		parts[n].iov_len = sink->records[first + n].end - start;
		messages[n].msg_hdr.msg_iov = &parts[n];
		messages[n].msg_hdr.msg_iovlen = 1;
	}
	taken = sendmmsg(sink->fd, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return taken < 0 ? -errno : taken;
}

/* Send from record first on. Returns the first that was not; *err is why, 0: all went. */
static size_t send_all(struct socket_sink *sink, size_t first, int *err) {
	*err = 0;
	while (first < sink->n) {
		int taken = send_batch(sink, first);

		for (int i = 0; i < taken; i++)
			count(&sink->records[first++], true);
		if (taken == -EMSGSIZE) /* this one never will */
			count(&sink->records[first++], false);
		else if (taken < 0) {
			*err = taken;
			return first;
		}
	}
	return first;
}

static void drop_from(struct socket_sink *sink, size_t first) {
	while (first < sink->n)
		count(&sink->records[first++], false);
}

/* What was not taken moves to the front of the buffer. */
static void keep_from(struct socket_sink *sink, size_t first) {
	size_t start = start_of(sink, first);

	memmove(sink->buffer, sink->buffer + start, sink->used - start);
	memmove(sink->records, sink->records + first, (sink->n - first) * sizeof(*sink->records));
	sink->n -= first;
	sink->used -= start;
	for (size_t i = 0; i < sink->n; i++)
		sink->records[i].end -= start;
}

/* A slow reader is waited for, in the buffer; one that is gone is not. */
static void socket_flush(struct ef_sink *base, bool all) {
	struct socket_sink *sink = (struct socket_sink *)base;
	size_t first = 0;
	int err;

	if (!sink->n)
		return;
	err = reach(sink);
	if (!err)
		first = send_all(sink, 0, &err);
	if ((err == -EAGAIN || err == -ENOBUFS) && !all) {
		keep_from(sink, first);
		return;
	}
	if (err && err != -EAGAIN && err != -ENOBUFS && sink->fd >= 0) {
		disconnect(sink);
		report(sink, err);
	}
	drop_from(sink, first);
	sink->n = 0;
	sink->used = 0;
}

static bool has_room(const struct socket_sink *sink, size_t bytes) {
	return sink->n < MAX_RECORDS && sink->used + bytes <= BUFFER_BYTES;
}

/* As journald reads it: fields by lines; the event's JSON holds no line feed itself. */
static size_t frame(const struct socket_sink *sink, const char *feature, char *head, size_t size) {
	if (!sink->journal)
		return 0;
	return (size_t)snprintf(head, size,
				"PRIORITY=6\nSYSLOG_IDENTIFIER=ebpf-loader\nEF_FEATURE=%s\n"
				"MESSAGE=",
				feature);
}

static void socket_add(struct ef_sink *base, const char *feature, const char *line, size_t length,
		       struct ef_tally *tally, const struct ef_load *load) {
	struct socket_sink *sink = (struct socket_sink *)base;
	char head[160];
	size_t n = frame(sink, feature, head, sizeof(head));
	size_t body = sink->journal ? length : length - 1; /* a datagram needs no line feed */

	if (!has_room(sink, n + body))
		socket_flush(base, false);
	if (!has_room(sink, n + body)) {
		tally->dropped += load->records;
		return;
	}
	memcpy(sink->buffer + sink->used, head, n);
	memcpy(sink->buffer + sink->used + n, line, body);
	sink->used += n + body;
	sink->records[sink->n].end = sink->used;
	sink->records[sink->n].load = *load;
	sink->records[sink->n++].tally = tally;
}

static void socket_free(struct ef_sink *base) {
	disconnect((struct socket_sink *)base);
	free(base);
}

struct ef_sink *ef_sink_socket_new(const char *path, bool journal) {
	static const struct ef_sink_ops ops = {socket_add, socket_flush, socket_free, NULL};
	struct socket_sink *sink = ef_must(calloc(1, sizeof(*sink)));

	sink->base.ops = &ops;
	sink->fd = -1;
	sink->journal = journal;
	sink->address.sun_family = AF_UNIX;
	snprintf(sink->address.sun_path, sizeof(sink->address.sun_path), "%s", path);
	return &sink->base;
}
