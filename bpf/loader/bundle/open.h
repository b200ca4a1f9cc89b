/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BUNDLE_OPEN_H
#define EF_BUNDLE_OPEN_H

#include "bundle/bundle.h"
#include "bundle/trust.h"

/* How a bundle is opened. */
struct ef_bundle_options {
	const char *self_arch; /* NULL: the running binary need not be the bundle's loader */
	bool clock_later;      /* an unknown clock does not refuse it: the caller judges */
	int64_t seen_s;	       /* Unix seconds that this host has seen; 0: not known */
};

/*
 * Verify the bundle in folder dir: trust files, signature, manifest, every
 * file's type, size and hash, that there is no other file, and that contracts
 * have the manifest's variants. With self_arch the running binary must also be
 * the bundle's loader for that architecture (ef_bundle_machine() gives this
 * machine's).
 * 0: *out is owned by the caller, who frees it with ef_bundle_free().
 * -1: *out is NULL and *why says why; nothing of the bundle may be used.
 * Files are read once and kept in memory: changing the folder later changes
 * nothing in *out.
 */
int ef_bundle_open(const char *dir, const struct ef_trust_paths *trust,
		   const struct ef_bundle_options *options, struct ef_bundle **out,
		   struct ef_refusal *why);

#endif
