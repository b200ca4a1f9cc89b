/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_MANIFEST_H
#define EF_MANIFEST_H

#include <stdbool.h>

#include "bundle/bundle.h"

#define EF_MANIFEST "manifest.json"
#define EF_MANIFEST_SIG "manifest.json.sig"
#define EF_MANIFEST_MAX (1024 * 1024)
#define EF_MANIFEST_SIG_MAX (16 * 1024)
#define EF_CONTRACT_MAX (64 * 1024)
#define EF_OBJECT_MAX (8 * 1024 * 1024)
#define EF_LOADER_MAX (32 * 1024 * 1024)
#define EF_FILES_MAX 1024
#define EF_MANIFEST_DEPTH 32 /* of nested brackets */

/*
 * Fill *bundle from the bytes of a manifest whose signature is good. It must
 * be canonical JSON and follow docs/trust-formats.md to the letter. Every file
 * has its path, size, mode and sha256, and no data yet. -1: *why is
 * EF_MANIFEST_MALFORMED or EF_MANIFEST_SCHEMA; the caller still frees what
 * *bundle holds, with ef_bundle_free().
 */
int ef_manifest_parse(const void *data, size_t size, struct ef_bundle *bundle,
		      struct ef_refusal *why);

/* The file of that path, or NULL. */
struct ef_file *ef_manifest_find(const struct ef_bundle *bundle, const char *path);

/* Is it a contract or an object, that is, something that is used after verification? */
bool ef_manifest_is_of_feature(const struct ef_bundle *bundle, const struct ef_file *file);

#endif
