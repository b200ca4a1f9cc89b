/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/paths.h"
#include "base/util.h"
#include "bundle/manifest.h"

struct tree {
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

static int refuse_extra(struct tree *tree, const char *path) {
	return ef_refuse(tree->why, "EF_FILE_EXTRA", path,
			 "%s: the manifest does not name it; remove it or fetch the bundle again",
			 path);
}

static int check_folder(struct tree *tree, int dir_fd, const char *folder);

/* A known folder's path is shorter than a manifest's path, so this ends. */
static int check_entry(struct tree *tree, int dir_fd, const char *name, const char *path) {
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return ef_refuse(tree->why, "EF_FILE_TYPE", path,
				 "%s: cannot be looked at (%s); fetch the bundle again", path,
				 strerror(errno));
	if (S_ISREG(st.st_mode))
		return is_known_file(tree->bundle, path) ? 0 : refuse_extra(tree, path);
	if (!S_ISDIR(st.st_mode))
		return ef_refuse(tree->why, "EF_FILE_TYPE", path,
				 "%s: neither a regular file nor a folder; fetch the bundle again",
				 path);
	if (!is_known_folder(tree->bundle, path))
		return refuse_extra(tree, path);
	return check_folder(
	    tree, openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), path);
}

static int refuse_folder(struct tree *tree, const char *folder) {
	return ef_refuse(tree->why, "EF_FILE_TYPE", folder,
			 "%s/: the folder cannot be read; fetch the bundle again", folder);
}

static int is_entry(const struct dirent *entry) {
	return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

static int compare_entries(const struct dirent **left, const struct dirent **right) {
	return strcmp((*left)->d_name, (*right)->d_name);
}

static int check_entries(struct tree *tree, int dir_fd, const char *folder,
			 struct dirent *const *entries, int count) {
	char path[EF_PATH_MAX + NAME_MAX + 1];

	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s%s%s", folder, *folder ? "/" : "",
			 entries[i]->d_name);
		if (check_entry(tree, dir_fd, entries[i]->d_name, path))
			return -1;
	}
	return 0;
}

/*
 * Takes dir_fd over. `folder` is "" for the bundle itself. Sorted by
 * name, so that of two faults every verifier names the same one.
 */
static int check_folder(struct tree *tree, int dir_fd, const char *folder) {
	_cleanup_close_ int owned = dir_fd;
	struct dirent **entries;
	int count, refused;

	if (owned < 0)
		return refuse_folder(tree, folder);
	count = scandirat(owned, ".", &entries, is_entry, compare_entries);
	if (count < 0)
		return refuse_folder(tree, folder);
	refused = check_entries(tree, owned, folder, entries, count);
	for (int i = 0; i < count; i++)
		free(entries[i]);
	free(entries);
	return refused;
}

int ef_tree_check(int dir_fd, const struct ef_bundle *bundle, struct ef_refusal *why) {
	struct tree tree = {bundle, why};

	return check_folder(&tree, openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "");
}
