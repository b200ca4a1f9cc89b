/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BUNDLE_H
#define EF_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/refusal.h"
#include "bundle/trust.h"

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

const char *ef_feature_name(const struct ef_feature *feature);
const char *ef_feature_contract_path(const struct ef_feature *feature);

const char *ef_bundle_digest(const struct ef_bundle *bundle);
const char *ef_bundle_version(const struct ef_bundle *bundle);
const char *ef_bundle_signer(const struct ef_bundle *bundle);
int64_t ef_bundle_created(const struct ef_bundle *bundle); /* Unix seconds */

/* Its features, sorted by name. */
size_t ef_bundle_count(const struct ef_bundle *bundle);
const struct ef_feature *ef_bundle_feature(const struct ef_bundle *bundle, size_t i);
bool ef_bundle_has(const struct ef_bundle *bundle, const char *feature);

/* NULL is fine. */
void ef_bundle_free(struct ef_bundle *bundle);

/* Is it one of btf/, which only a kernel without types of its own needs? */
bool ef_bundle_is_btf(const struct ef_file *file);

/* Lets go of the data of btf/: for whoever has taken from it what this kernel needs. */
void ef_bundle_forget_btf(struct ef_bundle *bundle);

/* uname -m of this machine; a static string. */
const char *ef_bundle_machine(void);

/* {"name", "version", "sequence", "digest"} of status.json: a new reference, or NULL. */
json_t *ef_bundle_json(const struct ef_bundle *bundle);

#endif
