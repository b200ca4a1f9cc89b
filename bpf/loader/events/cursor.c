/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"

#define SCHEMA "ebpf.fleet/cursor/v1"
#define MOST_BYTES 4096

static int parse(const char *data, size_t size, struct ef_cursor *cursor) {
	char why[256];
	_cleanup_json_ json_t *doc = ef_json_parse(data, size, why, sizeof(why));
	const char *schema = json_string_value(json_object_get(doc, "schema"));
	const json_t *segment = json_object_get(doc, "segment");
	const json_t *offset = json_object_get(doc, "offset");

	if (!schema || strcmp(schema, SCHEMA) || !json_is_integer(segment) ||
	    !json_is_integer(offset))
		return -EINVAL;
	if (json_integer_value(segment) < 1 || json_integer_value(segment) > 999999999999999999 ||
	    json_integer_value(offset) < 0)
		return -EINVAL;
	cursor->segment = (uint64_t)json_integer_value(segment);
	cursor->offset = (uint64_t)json_integer_value(offset);
	return 0;
}

int ef_cursor_read(const char *path, struct ef_cursor *cursor) {
	_cleanup_close_ int fd = -1;
	char data[MOST_BYTES + 1];
	struct stat st;
	ssize_t size;

	memset(cursor, 0, sizeof(*cursor));
	if (!*path)
		return -ENOENT;
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : -EINVAL;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > MOST_BYTES)
		return -EINVAL;
	size = read(fd, data, sizeof(data));
	if (size < 0 || size > MOST_BYTES)
		return -EINVAL;
	return parse(data, (size_t)size, cursor);
}
