/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/sink_policy.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

#define LEAST_BYTES 65536
#define MOST_BYTES (1LL << 32)

static const char *const kinds[] = {"jsonl", "journal", "datagram", "count"};

static const struct ef_sink_policy defaults = {
    .kind = EF_SINK_JSONL, .file_bytes = 16 << 20, .files = 8};

/* Where an error goes. */
struct report {
	char *error;
	size_t size;
};

static int bad(const struct report *report, const char *field, const char *expected) {
	snprintf(report->error, report->size, "sink.%s %s", field, expected);
	return -1;
}

static int read_kind(const struct report *report, const json_t *value, enum ef_sink_kind *kind) {
	const char *name = json_string_value(value);

	if (!value)
		return 0; /* the default */
	for (size_t i = 0; name && i < EF_ARRAY_SIZE(kinds); i++)
		if (!strcmp(name, kinds[i])) {
			*kind = (enum ef_sink_kind)i;
			return 0;
		}
	return bad(report, "kind", "must be jsonl, journal, datagram or count");
}

/* A path that is what it says: absolute, printable, with no way back up. */
static bool is_plain_path(const char *path) {
	for (const char *c = path; *c; c++)
		if (*c <= ' ' || *c > '~')
			return false;
	return *path == '/' && !strstr(path, "//") && !strstr(path, "/../") &&
	       !strstr(path, "/./") && path[strlen(path) - 1] != '/';
}

/* The log shipper's word; with one file there is nothing that it could be behind of. */
static int read_cursor(const struct report *report, const json_t *value,
		       struct ef_sink_policy *policy) {
	const char *path = json_string_value(value);

	if (!value)
		return 0;
	if (policy->kind != EF_SINK_JSONL || policy->files < 2)
		return bad(report, "cursor", "is for the kind jsonl with 2 files or more");
	if (!path || json_string_length(value) >= sizeof(policy->cursor) || !is_plain_path(path))
		return bad(report, "cursor",
			   "must be the absolute path of a file: at most 107 printable "
			   "characters, no blanks, no '//', '.' or '..'");
	snprintf(policy->cursor, sizeof(policy->cursor), "%s", path);
	return 0;
}

static int read_path(const struct report *report, const json_t *value,
		     struct ef_sink_policy *policy) {
	const char *path = json_string_value(value);

	if (policy->kind != EF_SINK_DATAGRAM)
		return value ? bad(report, "path", "is for the kind datagram only") : 0;
	if (!path || json_string_length(value) >= sizeof(policy->path) || !is_plain_path(path))
		return bad(report, "path",
			   "must be the absolute path of a Unix socket: at most 107 printable "
			   "characters, no blanks, no '//', '.' or '..'");
	snprintf(policy->path, sizeof(policy->path), "%s", path);
	return 0;
}

static int read_number(const struct report *report, const json_t *doc, const char *field,
		       const char *expected, json_int_t least, json_int_t most, json_int_t *number,
		       const struct ef_sink_policy *policy) {
	const json_t *value = json_object_get(doc, field);

	if (!value)
		return 0;
	if (policy->kind != EF_SINK_JSONL)
		return bad(report, field, "is for the kind jsonl only");
	*number = json_integer_value(value);
	if (!json_is_integer(value) || *number < least || *number > most)
		return bad(report, field, expected);
	return 0;
}

static int check_keys(const struct report *report, const json_t *doc) {
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)doc, key, value)
		if (strcmp(key, "kind") && strcmp(key, "path") && strcmp(key, "file_bytes") &&
		    strcmp(key, "files") && strcmp(key, "cursor"))
			return bad(report, key, "is not known here");
	return 0;
}

static int read_sink(const struct report *report, const json_t *doc,
		     struct ef_sink_policy *policy) {
	json_int_t bytes = (json_int_t)policy->file_bytes, files = policy->files;

	if (!json_is_object(doc))
		return bad(report, "kind", "is missing: sink must be an object");
	if (check_keys(report, doc) ||
	    read_kind(report, json_object_get(doc, "kind"), &policy->kind) ||
	    read_path(report, json_object_get(doc, "path"), policy))
		return -1;
	if (read_number(report, doc, "file_bytes", "must be an integer from 65536 to 4294967296",
			LEAST_BYTES, MOST_BYTES, &bytes, policy) ||
	    read_number(report, doc, "files", "must be an integer from 1 to 16", 1,
			EF_SINK_FILES_MAX, &files, policy))
		return -1;
	policy->file_bytes = (uint64_t)bytes;
	policy->files = (unsigned)files;
	return read_cursor(report, json_object_get(doc, "cursor"), policy);
}

int ef_sink_policy_read(const json_t *sink, struct ef_sink_policy *policy, char *error,
			size_t size) {
	const struct report report = {.error = error, .size = size};

	*policy = defaults;
	if (!sink || !read_sink(&report, sink, policy))
		return 0;
	*policy = defaults;
	return -1;
}
