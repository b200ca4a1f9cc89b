/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PATHS_H
#define EF_PATHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Defaults of a managed host; docs/formats/paths.md. */
#define EF_DEFAULT_ETC "/etc/ebpf-fleet"
#define EF_DEFAULT_RUN "/run/ebpf-fleet"
#define EF_DEFAULT_STATE "/run/ebpf-fleet-loader"
#define EF_DEFAULT_LOG "/var/log/ebpf-fleet"
#define EF_TRUST_SIGNERS "trust/allowed_signers" /* below the etc folder */
#define EF_TRUST_REVOKED "trust/revoked_keys"

#define EF_PATH_MAX 256 /* bytes of a path inside a bundle, with the final 0 */

/* dir + "/" + name: a malloc'ed string that the caller frees, or NULL. */
char *ef_path_join(const char *dir, const char *name);

/*
 * Is path relative, of [A-Za-z0-9._/-], shorter than EF_PATH_MAX, without an
 * empty, "." or ".." component?
 */
bool ef_path_is_plain(const char *path);

/*
 * Open the regular file at a plain path beneath dir_fd for reading; no
 * component may be a symlink. Returns a descriptor that the caller closes, and
 * its stat in *st; or -errno, of which ELOOP, ENOTDIR and EINVAL mean "not a
 * regular file".
 */
int ef_open_beneath(int dir_fd, const char *path, struct stat *st);

/*
 * Read a whole file of exactly size bytes into a malloc'ed buffer (with a 0
 * behind it) that the caller frees. 0 or -errno; ESTALE when the file is
 * longer or shorter than size, that is, changed since its stat.
 */
int ef_read_whole(int fd, size_t size, uint8_t **data);

/*
 * May no one write it but root and our own user? st is a file's or a folder's;
 * a sticky folder (/tmp) is safe: there no one else can rename or remove what
 * is ours. 0; or -EPERM, and in why[0..size) a sentence that names path, what
 * is wrong and the remedy.
 */
int ef_path_check(const char *path, const struct stat *st, char *why, size_t size);

/* The same of the folder at path, which is not opened. Also -errno of stat(2), with its sentence.
 */
int ef_folder_check(const char *path, char *why, size_t size);

/*
 * Open for reading a regular file on whose word we act: it and the folder that
 * it lies in must pass ef_path_check(). follow: where path is a symlink, what
 * it leads to must pass too, with its folder. Returns a descriptor that the caller
 * closes, and its stat in *st. -EPERM: not safe, why[0..size) is the sentence.
 * Other -errno as of ef_open_beneath(), without one. From any thread.
 */
int ef_open_safe(const char *path, bool follow, struct stat *st, char *why, size_t size);

/* How a file of ours in the etc folder is read. */
struct ef_control_rules {
	size_t limit;	    /* bytes */
	bool follow;	    /* it may be a symlink */
	const char *remedy; /* where it cannot be read */
};

/* The bytes of such a file. */
struct ef_control {
	uint8_t *data; /* with a 0 behind it; the holder frees it */
	size_t size;
	int64_t uid; /* the file's owner; -1: not known */
};

/*
 * Read a whole file on whose word we act, as ef_open_safe() opens it. 0; -ENOENT:
 * there is none; other -errno: it is not to be used, and why[0..size) says so with
 * path and remedy. From any thread.
 */
int ef_control_read(const char *path, const struct ef_control_rules *rules,
		    struct ef_control *control, char *why, size_t size);

#endif
