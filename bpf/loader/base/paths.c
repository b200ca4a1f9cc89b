/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "base/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

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

static bool owner_is_trusted(const struct stat *st) {
	return st->st_uid == 0 || st->st_uid == geteuid();
}

/* A group's right to write is a right that we do not know the holders of. */
static bool others_may_write(const struct stat *st) {
	return st->st_mode & 022 && !(S_ISDIR(st->st_mode) && st->st_mode & S_ISVTX);
}

int ef_path_check(const char *path, const struct stat *st, char *why, size_t size) {
	if (!owner_is_trusted(st)) {
		snprintf(why, size,
			 "%s: belongs to user %u, neither root nor the loader's own, who can "
			 "write to it; chown root",
			 path, (unsigned)st->st_uid);
		return -EPERM;
	}
	if (others_may_write(st)) {
		snprintf(why, size, "%s: others can write to it (mode %04o); chmod go-w", path,
			 (unsigned)st->st_mode & 07777);
		return -EPERM;
	}
	return 0;
}

int ef_folder_check(const char *path, char *why, size_t size) {
	struct stat st;
	int err;

	if (!stat(path, &st))
		return ef_path_check(path, &st, why, size);
	err = -errno;
	snprintf(why, size, "%s: cannot be looked at (%s); see that it is there", path,
		 strerror(-err));
	return err;
}

/* The folder that path lies in, which the caller frees, or NULL; *name is the rest of path. */
static char *folder_of(const char *path, const char **name) {
	const char *slash = strrchr(path, '/');

	*name = slash ? slash + 1 : path;
	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* Opened beneath the folder that was looked at, so that both are of one moment. */
static int open_safe_here(const char *path, struct stat *st, char *why, size_t size) {
	_cleanup_close_ int folder_fd = -1, fd = -1;
	_cleanup_free_ char *folder = NULL;
	struct stat folder_st;
	const char *name;

	folder = folder_of(path, &name);
	if (!folder)
		return -ENOMEM;
	folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0)
		return -errno;
	fd = open_regular(folder_fd, name, st);
	if (fd < 0)
		return fd;
	if (fstat(folder_fd, &folder_st))
		return -errno;
	if (ef_path_check(folder, &folder_st, why, size) || ef_path_check(path, st, why, size))
		return -EPERM;
	return TAKE_FD(fd);
}

/* Who can write to the symlink's own folder chooses what we read. */
static int open_safe_behind(const char *path, struct stat *st, char *why, size_t size) {
	_cleanup_free_ char *folder = NULL, *real = realpath(path, NULL);
	const char *name;
	int err;

	if (!real)
		return -errno;
	folder = folder_of(path, &name);
	if (!folder)
		return -ENOMEM;
	err = ef_folder_check(folder, why, size);
	return err ? err : open_safe_here(real, st, why, size);
}

int ef_open_safe(const char *path, bool follow, struct stat *st, char *why, size_t size) {
	int fd;

	why[0] = 0;
	fd = open_safe_here(path, st, why, size);
	return fd == -ELOOP && follow ? open_safe_behind(path, st, why, size) : fd;
}

static int read_control(const char *path, const struct ef_control_rules *rules,
			struct ef_control *control, char *why, size_t size) {
	struct stat st = {.st_uid = (uid_t)-1};
	_cleanup_close_ int fd = ef_open_safe(path, rules->follow, &st, why, size);

	if (st.st_uid != (uid_t)-1)
		control->uid = st.st_uid; /* of one that is not safe too: it says who did it */
	if (fd < 0)
		return fd;
	if ((uint64_t)st.st_size > rules->limit)
		return -EFBIG;
	control->size = (size_t)st.st_size;
	return ef_read_whole(fd, control->size, &control->data);
}

int ef_control_read(const char *path, const struct ef_control_rules *rules,
		    struct ef_control *control, char *why, size_t size) {
	int err;

	*control = (struct ef_control){.uid = -1};
	err = read_control(path, rules, control, why, size);
	if (err && err != -ENOENT && !why[0])
		snprintf(why, size, "%s cannot be read: %s; %s", path, strerror(-err),
			 rules->remedy);
	return err;
}
