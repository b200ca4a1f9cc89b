/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "manifest.h"
#include "paths.h"
#include "util.h"

struct walk {
	const struct ef_bundle *bundle;
	struct ef_refusal *why;
};

static bool is_known_file(const struct ef_bundle *bundle, const char *path) {
	return !strcmp(path, EF_MANIFEST) || !strcmp(path, EF_MANIFEST_SIG) ||
	       ef_manifest_find(bundle, path);
}

static bool is_known_folder(const struct ef_bundle *bundle, const char *path) {
	size_t length = strlen(path);

	for (size_t i = 0; i < bundle->n_files; i++) {
		const char *file = bundle->files[i].path;

		if (!strncmp(file, path, length) && file[length] == '/')
			return true;
	}
	return false;
}

static int refuse_extra(struct walk *walk, const char *path) {
	return ef_refuse(walk->why, "EF_FILE_EXTRA", path,
			 "%s: the manifest does not name it; remove it or fetch the bundle again",
			 path);
}

static int walk_folder(struct walk *walk, int dir_fd, const char *folder);

/* A known folder's path is shorter than a manifest's path, so this ends. */
static int check_entry(struct walk *walk, int dir_fd, const char *name, const char *path) {
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return ef_refuse(walk->why, "EF_FILE_TYPE", path,
				 "%s: cannot be looked at (%s); fetch the bundle again", path,
				 strerror(errno));
	if (S_ISREG(st.st_mode))
		return is_known_file(walk->bundle, path) ? 0 : refuse_extra(walk, path);
	if (!S_ISDIR(st.st_mode))
		return ef_refuse(walk->why, "EF_FILE_TYPE", path,
				 "%s: neither a regular file nor a folder; fetch the bundle again",
				 path);
	if (!is_known_folder(walk->bundle, path))
		return refuse_extra(walk, path);
	return walk_folder(
	    walk, openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), path);
}

/* Takes dir_fd over. `folder` is "" for the bundle itself. */
static int walk_folder(struct walk *walk, int dir_fd, const char *folder) {
	_cleanup_closedir_ DIR *dir = dir_fd < 0 ? NULL : fdopendir(dir_fd);
	const struct dirent *entry;
	char path[EF_PATH_MAX + NAME_MAX + 1];

	if (!dir) {
		if (dir_fd >= 0)
			close(dir_fd);
		return ef_refuse(walk->why, "EF_FILE_TYPE", folder,
				 "%s/: the folder cannot be read; fetch the bundle again", folder);
	}
	while ((errno = 0, entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "", entry->d_name);
		if (check_entry(walk, dirfd(dir), entry->d_name, path))
			return -1;
	}
	if (errno)
		return ef_refuse(walk->why, "EF_FILE_TYPE", folder,
				 "%s/: the folder cannot be read; fetch the bundle again", folder);
	return 0;
}

int ef_tree_check(int dir_fd, const struct ef_bundle *bundle, struct ef_refusal *why) {
	struct walk walk = {bundle, why};

	return walk_folder(&walk, openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "");
}
