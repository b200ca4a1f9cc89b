/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/paths.h"
#include "base/util.h"

json_t *ef_json_parse(const void *data, size_t size, char *why, size_t why_size) {
	json_error_t error;
	json_t *doc = json_loadb(data, size, JSON_REJECT_DUPLICATES, &error);

	if (!doc)
		snprintf(why, why_size, "line %d, column %d: %s", error.line, error.column,
			 error.text);
	return doc;
}

json_t *ef_json_read(const char *path, const struct ef_control_rules *rules, int *err, char *why,
		     size_t why_size) {
	_cleanup_free_ uint8_t *data = NULL;
	struct ef_control file = {0};

	*err = ef_control_read(path, rules, &file, why, why_size);
	data = file.data;
	return *err ? NULL : ef_json_parse(data, file.size, why, why_size);
}

size_t ef_json_depth(const void *data, size_t size) {
	const char *at = data, *end = at + size;
	size_t depth = 0, deepest = 0;
	bool in_string = false;

	for (; at < end; at++) {
		if (*at == '\\')
			at++; /* what it escapes is not a quote */
		else if (*at == '"')
			in_string = !in_string;
		else if (!in_string && (*at == '[' || *at == '{') && ++depth > deepest)
			deepest = depth;
		else if (!in_string && (*at == ']' || *at == '}') && depth)
			depth--;
	}
	return deepest;
}

/* The code point at *at, which moves behind it. jansson holds only valid UTF-8. */
static uint32_t next_code_point(const unsigned char **at, const unsigned char *end) {
	uint32_t point = *(*at)++;

	if (point < 0x80)
		return point;
	point &= point < 0xe0 ? 0x1f : point < 0xf0 ? 0x0f : 0x07;
	while (*at < end && (**at & 0xc0) == 0x80)
		point = point << 6 | (*(*at)++ & 0x3f);
	return point;
}

static void write_escaped(FILE *out, uint32_t point) {
	static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	for (const char *pair = named; *pair; pair += 2)
		if (point == (unsigned char)pair[0]) {
			fprintf(out, "\\%c", pair[1]);
			return;
		}
	if (point >= ' ' && point <= '~')
		fputc((int)point, out);
	else if (point < 0x10000)
		fprintf(out, "\\u%04" PRIx32, point);
	else
		fprintf(out, "\\u%04" PRIx32 "\\u%04" PRIx32, 0xd800 + ((point - 0x10000) >> 10),
			0xdc00 + ((point - 0x10000) & 0x3ff));
}

static void write_string(FILE *out, const char *text, size_t size) {
	const unsigned char *at = (const unsigned char *)text;
	const unsigned char *end = at + size;

	fputc('"', out);
	while (at < end)
		write_escaped(out, next_code_point(&at, end));
	fputc('"', out);
}

static int write_value(FILE *out, const json_t *value);

static int compare_strings(const void *left, const void *right) {
	return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* UTF-8 in byte order is in code point order, as Python sorts. */
static int write_object(FILE *out, const json_t *object) {
	size_t count = 0, total = json_object_size(object);
	_cleanup_free_ const char **keys = calloc(total + 1, sizeof(*keys));
	const char *key;
	json_t *value;

	if (!keys)
		return -ENOMEM;
	json_object_foreach ((json_t *)object, key, value)
		keys[count++] = key;
	qsort(keys, count, sizeof(*keys), compare_strings);
	fputc('{', out);
	for (size_t i = 0; i < count; i++) {
		int err;

		if (i)
			fputc(',', out);
		write_string(out, keys[i], strlen(keys[i]));
		fputc(':', out);
		err = write_value(out, json_object_get(object, keys[i]));
		if (err)
			return err;
	}
	fputc('}', out);
	return 0;
}

static int write_array(FILE *out, const json_t *array) {
	fputc('[', out);
	for (size_t i = 0; i < json_array_size(array); i++) {
		int err;

		if (i)
			fputc(',', out);
		err = write_value(out, json_array_get(array, i));
		if (err)
			return err;
	}
	fputc(']', out);
	return 0;
}

static int write_value(FILE *out, const json_t *value) {
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return write_object(out, value);
	case JSON_ARRAY:
		return write_array(out, value);
	case JSON_STRING:
		write_string(out, json_string_value(value), json_string_length(value));
		return 0;
	case JSON_INTEGER:
		fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		return 0;
	case JSON_TRUE:
		fputs("true", out);
		return 0;
	case JSON_FALSE:
		fputs("false", out);
		return 0;
	case JSON_NULL:
		fputs("null", out);
		return 0;
	default:
		return -EINVAL;
	}
}

char *ef_json_canonical(const json_t *doc, size_t *size) {
	char *text = NULL;
	FILE *out = open_memstream(&text, size);
	int err;

	if (!out)
		return NULL;
	err = write_value(out, doc);
	fputc('\n', out);
	if (!err && ferror(out))
		err = -ENOMEM;
	if (fclose(out) && !err)
		err = -ENOMEM;
	if (!err)
		return text;
	free(text);
	errno = -err;
	return NULL;
}

int ef_json_print(FILE *stream, const json_t *doc) {
	if (!doc)
		return -ENOMEM;
	if (json_dumpf(doc, stream, JSON_COMPACT | JSON_ENSURE_ASCII) || fputc('\n', stream) == EOF)
		return -EIO;
	return fflush(stream) ? -errno : 0;
}

static int write_fully(int fd, const char *at, size_t left) {
	while (left) {
		ssize_t written = write(fd, at, left);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		at += written;
		left -= (size_t)written;
	}
	return 0;
}

/* The names of one process do not collide: ours has one writer. */
static int fill_temporary(int dir_fd, const char *name, const void *buf, size_t len, mode_t mode) {
	_cleanup_close_ int fd = -1;
	int err;

	if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = write_fully(fd, buf, len);
	if (err)
		return err;
	if (fchmod(fd, mode) < 0)
		return -errno;
	return 0;
}

int ef_write_atomic(const char *dir, const char *name, const void *buf, size_t len, mode_t mode) {
	_cleanup_close_ int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char temporary[NAME_MAX + 1];
	int err;

	if (dir_fd < 0)
		return -errno;
	if (snprintf(temporary, sizeof(temporary), ".%s.tmp", name) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	err = fill_temporary(dir_fd, temporary, buf, len, mode);
	if (!err && renameat(dir_fd, temporary, dir_fd, name) < 0)
		err = -errno;
	if (err) {
		unlinkat(dir_fd, temporary, 0);
		return err;
	}
	return 0;
}

json_t *ef_json_measured(int64_t value) {
	return value < 0 ? json_null() : json_integer(value);
}
