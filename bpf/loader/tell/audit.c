/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tell/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "kernel/kernel.h"

#define NAME "audit.jsonl"

struct ef_audit {
	const char *dir;
	const char *boot_id;
	const char *digest; /* NULL: no bundle */
	uint64_t seq;	    /* of the last record */
	uint64_t lost;
	int fd;	      /* -1: not open */
	off_t size;   /* bytes in the file */
	bool failing; /* logged once */
};

struct ef_audit *ef_audit_new(const char *dir, const char *boot_id) {
	struct ef_audit *audit = ef_must(calloc(1, sizeof(*audit)));

	audit->dir = dir;
	audit->boot_id = boot_id;
	audit->fd = -1;
	return audit;
}

static void close_file(struct ef_audit *audit) {
	if (audit->fd >= 0)
		close(audit->fd);
	audit->fd = -1;
}

void ef_audit_free(struct ef_audit *audit) {
	if (!audit)
		return;
	close_file(audit);
	free(audit);
}

void ef_audit_bundle(struct ef_audit *audit, const char *digest) {
	audit->digest = digest;
}

uint64_t ef_audit_lost(const struct ef_audit *audit) {
	return audit ? audit->lost : 0;
}

/* ---- the file ---- */

/* The path of the file, or of its n-th rotation. */
static void path_of(const struct ef_audit *audit, unsigned n, char *path, size_t size) {
	if (n)
		snprintf(path, size, "%s/" NAME ".%u", audit->dir, n);
	else
		snprintf(path, size, "%s/" NAME, audit->dir);
}

/* A loader that was killed may have left half a record: the next starts a line of its own. */
static int end_torn_line(struct ef_audit *audit) {
	char last;

	if (!audit->size || pread(audit->fd, &last, 1, audit->size - 1) != 1 || last == '\n')
		return 0;
	if (write(audit->fd, "\n", 1) != 1)
		return -errno;
	audit->size++;
	return 0;
}

static int open_file(struct ef_audit *audit) {
	char path[4096];
	struct stat st;

	if (audit->fd >= 0)
		return 0;
	path_of(audit, 0, path, sizeof(path));
	audit->fd =
	    open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
	if (audit->fd < 0)
		return -errno;
	if (fstat(audit->fd, &st) || !S_ISREG(st.st_mode)) {
		close_file(audit);
		return -EINVAL;
	}
	audit->size = st.st_size;
	return end_torn_line(audit);
}

/* The oldest goes, each other one moves up. One that cannot be moved is overwritten by none. */
static int rotate(struct ef_audit *audit) {
	char from[4096], to[4096];

	for (unsigned n = EF_AUDIT_FILES - 1; n; n--) {
		path_of(audit, n - 1, from, sizeof(from));
		path_of(audit, n, to, sizeof(to));
		if (rename(from, to) && errno != ENOENT)
			return -errno;
	}
	close_file(audit);
	return open_file(audit);
}

/* A file that somebody removed or moved away is not written to any more. */
static bool still_there(const struct ef_audit *audit) {
	struct stat ours, there;
	char path[4096];

	path_of(audit, 0, path, sizeof(path));
	return !fstat(audit->fd, &ours) && !lstat(path, &there) && ours.st_ino == there.st_ino &&
	       ours.st_dev == there.st_dev;
}

static int make_ready(struct ef_audit *audit, size_t length) {
	int err;

	if (audit->fd >= 0 && !still_there(audit))
		close_file(audit);
	err = open_file(audit);
	if (!err && audit->size && audit->size + (off_t)length > EF_AUDIT_FILE_LIMIT)
		err = rotate(audit);
	return err;
}

/* The whole line or nothing of it: 0, or -errno. */
static int append(struct ef_audit *audit, const char *line, size_t length) {
	int err = make_ready(audit, length);
	ssize_t n;

	if (err)
		return err;
	n = write(audit->fd, line, length);
	if (n == (ssize_t)length) {
		audit->size += n;
		return 0;
	}
	err = n < 0 ? -errno : -ENOSPC;
	if (n > 0 && ftruncate(audit->fd, audit->size))
		close_file(audit); /* opened again, the torn line is ended */
	return err;
}

/* Say a failure once, and its end once. */
static void report(struct ef_audit *audit, int err) {
	if (err && !audit->failing)
		ef_err("cannot write %s/" NAME ": %s; records go to the journal only, and are "
		       "counted, until the folder can be written",
		       audit->dir, strerror(-err));
	if (!err && audit->failing)
		ef_notice("%s/" NAME " can be written again", audit->dir);
	audit->failing = err != 0;
	audit->lost += err != 0;
}

/* ---- the record ---- */

static json_t *text_or_null(const char *text) {
	json_t *value =
	    text && *text ? json_string(text) : NULL; /* NULL too where it is not UTF-8 */

	return value ? value : json_null();
}

static json_t *time_json(void) {
	struct timespec now;
	struct tm utc;
	char day[32], stamp[64];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(stamp, sizeof(stamp), "%s.%09ldZ", day, now.tv_nsec);
	return json_string(stamp);
}

static json_t *who_json(const struct ef_who *who) {
	return json_pack("{s:s, s:o, s:o}", "source", who->source, "path", text_or_null(who->path),
			 "uid", ef_json_measured(who->uid));
}

/* Takes the references of feature and what (variant, programs and links; NULL: none). */
static void record(struct ef_audit *audit, const char *event, const char *feature, json_t *what,
		   const struct ef_reason *why, const struct ef_who *who) {
	_cleanup_json_ json_t *doc =
	    json_pack("{s:s, s:I, s:o, s:I, s:s, s:I, s:s, s:o, s:o, s:n, s:[], s:[], s:s, s:s, "
		      "s:o}",
		      "schema", "ebpf.fleet/audit/v1", "seq", (json_int_t)++audit->seq, "time",
		      time_json(), "boottime_ns", (json_int_t)ef_clock_ns(CLOCK_BOOTTIME),
		      "boot_id", audit->boot_id, "pid", (json_int_t)getpid(), "event", event,
		      "bundle_digest", text_or_null(audit->digest), "feature",
		      text_or_null(feature), "variant", "programs", "links", "reason_code",
		      ef_reason_code(why), "reason", ef_reason_text(why), "who", who_json(who));
	_cleanup_free_ char *line = NULL;
	size_t length;

	json_object_update(doc, what);
	json_decref(what);
	line = ef_must(json_dumps(doc, JSON_COMPACT | JSON_ENSURE_ASCII));
	ef_log_line(EF_LOG_INFO, "", line);
	length = strlen(line);
	line[length] = '\n'; /* in the place of its end: append() is told the length */
	report(audit, append(audit, line, length + 1));
}

void ef_audit_host(struct ef_audit *audit, const char *event, const struct ef_reason *why,
		   const struct ef_who *who) {
	if (audit)
		record(audit, event, NULL, NULL, why, who);
}

void ef_audit_feature(struct ef_audit *audit, const char *event, const char *feature, json_t *what,
		      const struct ef_reason *why, const struct ef_who *who) {
	if (audit)
		record(audit, event, feature, what, why, who);
	else
		json_decref(what);
}
