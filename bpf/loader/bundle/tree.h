/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_TREE_H
#define EF_TREE_H

#include "bundle/bundle.h"

/*
 * Check the folder at dir_fd: every entry must be a regular file that the
 * manifest names, the manifest or its signature, or a folder that leads to
 * one. -1: *why is EF_FILE_EXTRA or EF_FILE_TYPE. dir_fd stays the caller's.
 */
int ef_tree_check(int dir_fd, const struct ef_bundle *bundle, struct ef_refusal *why);

#endif
