/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/open.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/digest.h"
#include "base/paths.h"
#include "base/util.h"
#include "bundle/manifest.h"
#include "bundle/sshsig.h"
#include "bundle/tree.h"
#include "bundle/variants.h"

/* Bytes of the manifest or its signature; the holder frees data. */
struct blob {
	uint8_t *data;
	size_t size;
};

static void clear_blob(struct blob *blob) {
	free(blob->data);
}

static int refuse_open(const char *path, int err, const char *missing, struct ef_refusal *why) {
	if (err == ELOOP || err == EINVAL || err == ENOTDIR)
		return ef_refuse(why, "EF_FILE_TYPE", path,
				 "%s: not a regular file; fetch the bundle again", path);
	return ef_refuse(why, missing, path, "%s: cannot be opened (%s); fetch the bundle again",
			 path, strerror(err));
}

/* No one but its owner may write the manifest and its signature; they have no signed mode. */
static int check_mode(const char *path, const struct stat *st, struct ef_refusal *why) {
	unsigned mode = st->st_mode & 07777;

	if (!(mode & ~0755u))
		return 0;
	return ef_refuse(why, "EF_FILE_TYPE", path,
			 "%s: mode %04o lets others write or is set-id; chmod 0644 or 0755", path,
			 mode);
}

/* What a file is refused with when it is absent or too large. */
struct head_codes {
	const char *missing;
	const char *malformed;
};

static int read_head(int dir_fd, const char *path, size_t limit, const struct head_codes *codes,
		     struct blob *blob, struct ef_refusal *why) {
	struct stat st;
	_cleanup_close_ int fd = ef_open_beneath(dir_fd, path, &st);
	int err;

	if (fd < 0)
		return refuse_open(path, -fd, codes->missing, why);
	if (check_mode(path, &st, why))
		return -1;
	if ((uint64_t)st.st_size > limit)
		return ef_refuse(why, codes->malformed, path,
				 "%s: larger than the limit of %zu bytes; fetch the bundle again",
				 path, limit);
	blob->size = (size_t)st.st_size;
	err = ef_read_whole(fd, blob->size, &blob->data);
	if (err)
		return ef_refuse(why, codes->malformed, path, "%s: cannot be read (%s); try again",
				 path, strerror(-err));
	return 0;
}

/* The key that signed these bytes as a release; the manifest is not looked into before. */
static int check_signature(const struct blob *manifest, const struct blob *sig,
			   struct ef_bundle *bundle, struct ef_refusal *why) {
	if (!sig->size)
		return ef_refuse(why, "EF_SIG_MISSING", EF_MANIFEST_SIG,
				 EF_MANIFEST_SIG
				 ": empty; sign the bundle with ssh-keygen -Y sign");
	return ef_sshsig_verify(sig->data, sig->size, manifest->data, manifest->size,
				EF_MANIFEST_SIG, bundle->signer_key, why);
}

static int judge_signer(const struct ef_trust *trust, struct ef_bundle *bundle,
			const struct ef_moment *at, struct ef_refusal *why) {
	const char *principal;

	if (ef_trust_judge(trust, bundle->signer_key, EF_RELEASE_NAMESPACE, at, EF_MANIFEST_SIG,
			   &principal, why))
		return -1;
	free(bundle->signer);
	bundle->signer = strdup(principal);
	return bundle->signer ? 0 : ef_refuse(why, "EF_UNKNOWN", NULL, "out of memory");
}

/* The manifest says since when it exists: a clock that stands before that decides nothing. */
static int judge_clock(const struct ef_trust *trust, const struct ef_bundle_options *options,
		       struct ef_bundle *bundle, struct ef_refusal *why) {
	int64_t floor = options->seen_s > bundle->created_s ? options->seen_s : bundle->created_s;
	const struct ef_moment at = ef_moment_at(time(NULL), floor);

	if (at.known)
		return why->code ? -1 : 0;
	*why = (struct ef_refusal){0};
	if (!judge_signer(trust, bundle, &at, why) || !options->clock_later)
		return why->code ? -1 : 0;
	*why = (struct ef_refusal){0};
	if (bundle->signer)
		return 0;
	bundle->signer = strdup("");
	return bundle->signer ? 0 : ef_refuse(why, "EF_UNKNOWN", NULL, "out of memory");
}

/* Only a key that may sign passes. One outside of its time is refused only after `created` was
 * read. */
static int judge_manifest(const struct blob *manifest, const struct ef_trust *trust,
			  const struct ef_bundle_options *options, struct ef_bundle *bundle,
			  struct ef_refusal *why) {
	const struct ef_moment at = {.now = time(NULL), .known = true};
	struct ef_refusal late = {0}, fault = {0};
	uint8_t digest[EF_SHA256_SIZE];

	if (judge_signer(trust, bundle, &at, &late) && strcmp(late.code, "EF_SIG_EXPIRED")) {
		*why = late;
		return -1;
	}
	ef_sha256(manifest->data, manifest->size, digest);
	ef_sha256_hex(digest, bundle->digest);
	if (ef_manifest_parse(manifest->data, manifest->size, bundle, &fault)) {
		*why = late.code ? late : fault;
		return -1;
	}
	*why = late;
	return judge_clock(trust, options, bundle, why);
}

static int read_manifest(int dir_fd, const struct ef_trust *trust,
			 const struct ef_bundle_options *options, struct ef_bundle *bundle,
			 struct ef_refusal *why) {
	static const struct head_codes manifest_codes = {"EF_MANIFEST_MISSING",
							 "EF_MANIFEST_MALFORMED"};
	static const struct head_codes sig_codes = {"EF_SIG_MISSING", "EF_SIG_MALFORMED"};
	__attribute__((cleanup(clear_blob))) struct blob manifest = {0};
	__attribute__((cleanup(clear_blob))) struct blob sig = {0};

	if (read_head(dir_fd, EF_MANIFEST, EF_MANIFEST_MAX, &manifest_codes, &manifest, why) ||
	    read_head(dir_fd, EF_MANIFEST_SIG, EF_MANIFEST_SIG_MAX, &sig_codes, &sig, why) ||
	    check_signature(&manifest, &sig, bundle, why))
		return -1;
	return judge_manifest(&manifest, trust, options, bundle, why);
}

static int check_digest(const struct ef_file *file, const uint8_t digest[EF_SHA256_SIZE],
			struct ef_refusal *why) {
	if (!memcmp(digest, file->sha256, EF_SHA256_SIZE))
		return 0;
	return ef_refuse(why, "EF_FILE_DIGEST", file->path,
			 "%s: its SHA-256 is not the manifest's: it was altered; fetch the bundle "
			 "again",
			 file->path);
}

static int read_file(int dir_fd, struct ef_file *file, struct ef_refusal *why) {
	struct stat st;
	_cleanup_close_ int fd = ef_open_beneath(dir_fd, file->path, &st);
	uint8_t digest[EF_SHA256_SIZE];
	int err;

	if (fd < 0)
		return refuse_open(file->path, -fd, "EF_FILE_MISSING", why);
	if ((st.st_mode & 07777) != file->mode)
		return ef_refuse(why, "EF_FILE_TYPE", file->path,
				 "%s: mode %04o, where the manifest says %04o; chmod it",
				 file->path, (unsigned)st.st_mode & 07777, file->mode);
	if ((uint64_t)st.st_size != file->size)
		return ef_refuse(why, "EF_FILE_SIZE", file->path,
				 "%s: %lld bytes, where the manifest says %zu; fetch the bundle "
				 "again",
				 file->path, (long long)st.st_size, file->size);
	err = ef_read_whole(fd, file->size, &file->data);
	if (err)
		return ef_refuse(why, "EF_FILE_DIGEST", file->path, "%s: cannot be read (%s)",
				 file->path, strerror(-err));
	ef_sha256(file->data, file->size, digest);
	return check_digest(file, digest, why);
}

/* What nothing here uses (the loaders, megabytes each) is hashed and let go. */
static int read_files(int dir_fd, struct ef_bundle *bundle, struct ef_refusal *why) {
	for (size_t i = 0; i < bundle->n_files; i++) {
		struct ef_file *file = &bundle->files[i];

		if (read_file(dir_fd, file, why))
			return -1;
		if (ef_manifest_is_of_feature(bundle, file) || ef_bundle_is_btf(file))
			continue;
		free(file->data);
		file->data = NULL;
	}
	return 0;
}

static const struct ef_file *loader_for(const struct ef_bundle *bundle, const char *arch) {
	for (size_t i = 0; i < bundle->n_loaders; i++)
		if (!strcmp(bundle->loaders[i].arch, arch))
			return bundle->loaders[i].file;
	return NULL;
}

/* /proc/self/exe is the running image itself, whatever happened to its path. */
static int check_self(const struct ef_bundle *bundle, const char *arch, struct ef_refusal *why) {
	const struct ef_file *loader = loader_for(bundle, arch);
	_cleanup_close_ int fd = -1;
	uint8_t digest[EF_SHA256_SIZE];

	if (!loader)
		return ef_refuse(why, "EF_LOADER_ARCH", EF_MANIFEST,
				 EF_MANIFEST ": it has no loader for %s; build the bundle with one",
				 arch);
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || ef_sha256_fd(fd, digest))
		return ef_refuse(why, "EF_LOADER_SELF", NULL,
				 "/proc/self/exe cannot be read (%s); mount /proc",
				 strerror(errno));
	if (memcmp(digest, loader->sha256, EF_SHA256_SIZE))
		return ef_refuse(why, "EF_LOADER_SELF", loader->path,
				 "this ebpf-loader is not the bundle's %s; install that one",
				 loader->path);
	return 0;
}

static int verify_folder(const char *dir, const struct ef_trust *trust,
			 const struct ef_bundle_options *options, struct ef_bundle *bundle,
			 struct ef_refusal *why) {
	_cleanup_close_ int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir_fd < 0)
		return ef_refuse(why, "EF_MANIFEST_MISSING", dir,
				 "%s: the bundle's folder cannot be opened (%s); name the folder "
				 "that holds " EF_MANIFEST,
				 dir, strerror(errno));
	if (read_manifest(dir_fd, trust, options, bundle, why) || read_files(dir_fd, bundle, why) ||
	    ef_tree_check(dir_fd, bundle, why) || ef_variants_check(bundle, why))
		return -1;
	return options->self_arch ? check_self(bundle, options->self_arch, why) : 0;
}

int ef_bundle_open(const char *dir, const struct ef_trust_paths *trust_paths,
		   const struct ef_bundle_options *options, struct ef_bundle **out,
		   struct ef_refusal *why) {
	struct ef_bundle *bundle = calloc(1, sizeof(*bundle));
	struct ef_trust trust = {0};
	int err;

	*out = NULL;
	*why = (struct ef_refusal){0};
	if (!bundle || sodium_init() < 0) {
		free(bundle);
		return ef_refuse(why, "EF_UNKNOWN", NULL, "out of memory or no libsodium");
	}
	err = ef_trust_load(trust_paths, &trust, why);
	if (!err)
		err = verify_folder(dir, &trust, options, bundle, why);
	ef_trust_clear(&trust);
	if (err) {
		ef_bundle_free(bundle);
		return -1;
	}
	*out = bundle;
	return 0;
}
