/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PATHS_H
#define EF_PATHS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Defaults of a managed host; docs/interfaces.md, "Paths on a managed host". */
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

#endif
