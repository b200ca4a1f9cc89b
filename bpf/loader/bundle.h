/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BUNDLE_H
#define EF_BUNDLE_H

#include <stddef.h>
#include <stdint.h>

#include "refusal.h"
#include "trust.h"

#define EF_BTF_INDEX "btf/index.json"

/* One file of a bundle. The bundle owns everything in it. */
struct ef_file {
	char *path;    /* relative to the bundle */
	uint8_t *data; /* the very bytes that were hashed; NULL for what the loader does not use */
	size_t size;   /* bytes, as signed */
	unsigned mode; /* 0644 or 0755, as signed */
	uint8_t sha256[32];
};

struct ef_variant {
	char *name;
	const struct ef_file *object; /* data is never NULL */
};

struct ef_feature {
	char *name;
	const struct ef_file *contract; /* data is never NULL */
	size_t n_variants;		/* at least 1 */
	struct ef_variant *variants;	/* in order of preference, names unique */
};

/* The loader binary of one architecture. */
struct ef_loader_file {
	char *arch;		    /* uname -m */
	const struct ef_file *file; /* data is NULL */
};

/* A verified bundle: every byte in it is covered by the signature. */
struct ef_bundle {
	char *name;
	char *version;
	char *created;	   /* YYYY-MM-DDTHH:MM:SSZ */
	int64_t created_s; /* the same in Unix seconds */
	uint64_t sequence; /* at least 1 */
	char digest[65];   /* SHA-256 of manifest.json, lower-case hex */
	char *signer;	   /* principal of allowed_signers */
	uint8_t signer_key[EF_ED25519_KEY];
	char *loader_version;
	size_t n_features;
	struct ef_feature *features; /* sorted by name */
	size_t n_loaders;
	struct ef_loader_file *loaders;
	size_t n_files;
	struct ef_file *files; /* sorted by path */
};

/* How a bundle is opened. */
struct ef_bundle_options {
	const char *self_arch; /* NULL: the running binary need not be the bundle's loader */
	bool clock_later;      /* a clock that is not known is no refusal: the caller judges it */
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

/* NULL is fine. */
void ef_bundle_free(struct ef_bundle *bundle);

/* Lets go of the data of btf/: for whoever has taken from it what this kernel needs. */
void ef_bundle_forget_btf(struct ef_bundle *bundle);

/* uname -m of this machine; a static string. */
const char *ef_bundle_machine(void);

/* {"name", "version", "sequence", "digest"} of status.json: a new reference, or NULL. */
json_t *ef_bundle_json(const struct ef_bundle *bundle);

#endif
