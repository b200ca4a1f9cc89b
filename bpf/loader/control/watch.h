/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_WATCH_H
#define EF_WATCH_H

#include <stddef.h>

/*
 * A new inotify descriptor (non-blocking) that becomes readable when anything
 * changes that bears on these folders and files: an entry made, removed,
 * renamed or written, a folder made or taken away, a symlink on the way
 * switched. A path that does not exist is watched for through the nearest
 * folder that does.
 *
 * Make it before reading the paths, and a new one after each event: then no
 * change falls between. The caller closes it. -errno on failure.
 */
int ef_watch_open(const char *const *folders, size_t n_folders, const char *const *files,
		  size_t n_files);

#endif
