/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/watch.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/must.h"
#include "base/util.h"

#define CHANGES                                                                                    \
	(IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE | IN_ATTRIB |        \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define MAX_SYMLINKS 16

/* The folder that holds path: a malloc'ed string. */
static char *parent_of(const char *path) {
	const char *slash = strrchr(path, '/');

	if (!slash)
		return ef_must(strdup("."));
	if (slash == path)
		return ef_must(strdup("/"));
	return ef_must(strndup(path, (size_t)(slash - path)));
}

/* 0: watched, or not there or not ours to open; -errno: nothing more can be watched. */
static int add_watch(int fd, const char *path, bool *watched) {
	*watched = inotify_add_watch(fd, path, CHANGES) >= 0;
	return !*watched && (errno == ENOSPC || errno == ENOMEM) ? -errno : 0;
}

/*
 * Watch a folder, or the nearest one above it that exists. A folder that may
 * not be opened is left to the rescan of each interval.
 */
static int watch_folder(int fd, const char *path) {
	_cleanup_free_ char *above = NULL;
	bool watched;
	int err = add_watch(fd, path, &watched);

	if (err || watched || !strcmp(path, "/") || !strcmp(path, "."))
		return err;
	above = parent_of(path);
	err = watch_folder(fd, above);
	/* Once more: it may have been made before the one above was watched. */
	return err ? err : add_watch(fd, path, &watched);
}

static int watch_path(int fd, const char *path, int links_left);

/* The folder that holds the symlink at path, and where it leads. */
static int watch_symlink(int fd, const char *path, const char *rest, int links_left) {
	_cleanup_free_ char *above = parent_of(path), *onward = NULL;
	char target[PATH_MAX];
	int err = watch_folder(fd, above);
	/* Read behind the watch: a switch before it would go unseen. */
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (err || n < 0 || !links_left)
		return err;
	target[n] = 0;
	if (asprintf(&onward, "%s%s%s%s", target[0] == '/' ? "" : above,
		     target[0] == '/' ? "" : "/", target, rest) < 0)
		onward = ef_must(NULL);
	return watch_path(fd, onward, links_left - 1);
}

/* Every folder in which a change could make path mean something else. */
static int watch_path(int fd, const char *path, int links_left) {
	_cleanup_free_ char *prefix = ef_must(strdup(path)), *above = NULL;
	struct stat st;

	for (char *at = prefix + 1; at[-1]; at++) {
		char kept = *at;

		if (kept && kept != '/')
			continue;
		*at = 0;
		if (!lstat(prefix, &st) && S_ISLNK(st.st_mode))
			return watch_symlink(fd, prefix, path + (at - prefix), links_left);
		*at = kept;
		if (!kept)
			break;
	}
	above = parent_of(path);
	return watch_folder(fd, above);
}

/* A folder: what happens in it, and what happens to it. */
static int watch_tree(int fd, const char *path) {
	int err = watch_folder(fd, path);

	return err ? err : watch_path(fd, path, MAX_SYMLINKS);
}

int ef_watch_open(const char *const *folders, size_t n_folders, const char *const *files,
		  size_t n_files) {
	_cleanup_close_ int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int err = fd < 0 ? -errno : 0;

	for (size_t i = 0; !err && i < n_folders; i++)
		err = watch_tree(fd, folders[i]);
	for (size_t i = 0; !err && i < n_files; i++)
		err = watch_path(fd, files[i], MAX_SYMLINKS);
	return err ? err : TAKE_FD(fd);
}
