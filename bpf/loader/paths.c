/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

char *ef_path_join(const char *dir, const char *name) {
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

bool ef_path_is_plain(const char *path) {
	const char *component = path;

	for (const char *at = path;; at++) {
		if (*at && *at != '/') {
			if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789._-",
				    *at))
				return false;
			continue;
		}
		if (at == component || !strncmp(component, "./", 2) ||
		    !strncmp(component, "../", 3) || !strcmp(component, ".") ||
		    !strcmp(component, ".."))
			return false;
		if (!*at)
			return at - path < EF_PATH_MAX;
		component = at + 1;
	}
}

/* O_NONBLOCK: opening a FIFO must not wait for a writer. */
static int open_regular(int dir_fd, const char *name, struct stat *st) {
	_cleanup_close_ int fd =
	    openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENXIO ? -EINVAL : -errno;
	if (fstat(fd, st) < 0)
		return -errno;
	if (!S_ISREG(st->st_mode))
		return -EINVAL;
	return TAKE_FD(fd);
}

int ef_open_beneath(int dir_fd, const char *path, struct stat *st) {
	_cleanup_close_ int owned = -1;
	char component[EF_PATH_MAX];
	const char *slash;

	while ((slash = strchr(path, '/'))) {
		int next;

		if (slash - path >= EF_PATH_MAX)
			return -ENAMETOOLONG;
		snprintf(component, sizeof(component), "%.*s", (int)(slash - path), path);
		next = openat(dir_fd, component, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return -errno;
		if (owned >= 0)
			close(owned);
		dir_fd = owned = next;
		path = slash + 1;
	}
	return open_regular(dir_fd, path, st);
}

int ef_read_whole(int fd, size_t size, uint8_t **data) {
	_cleanup_free_ uint8_t *buffer = malloc(size + 1);
	size_t done = 0;

	if (!buffer)
		return -ENOMEM;
	while (done <= size) {
		ssize_t got = read(fd, buffer + done, size + 1 - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	if (done != size)
		return -ESTALE;
	buffer[size] = 0;
	*data = TAKE_PTR(buffer);
	return 0;
}
