/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_JSON_H
#define EF_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/types.h>

#define _cleanup_json_ __attribute__((cleanup(ef_cleanup_json)))

static inline void ef_cleanup_json(json_t **doc) {
	json_decref(*doc);
}

/*
 * Parse one document of UTF-8 without duplicate keys or a byte behind it.
 * Returns a new reference, or NULL with a sentence (line and column) in
 * why[0..why_size).
 */
json_t *ef_json_parse(const void *data, size_t size, char *why, size_t why_size);

struct ef_control_rules;

/*
 * Read a document of ours as ef_control_read() reads a file. A new reference; NULL with the
 * sentence in why[0..why_size): *err is what that function gave, 0 where the bytes are not such a
 * document.
 */
json_t *ef_json_read(const char *path, const struct ef_control_rules *rules, int *err, char *why,
		     size_t why_size);

/* How deep brackets are nested in the text, those within strings left out; of any bytes. */
size_t ef_json_depth(const void *data, size_t size);

/*
 * The canonical form of docs/formats/bundle.md, equal byte for byte to Python's
 * json.dumps(doc, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n".
 * Returns a malloc'ed buffer of *size bytes that the caller frees, or NULL
 * when the document holds a real number (errno EINVAL) or memory ran out (ENOMEM).
 */
char *ef_json_canonical(const json_t *doc, size_t *size);

/* Writes the document and "\n" to the stream and flushes it. 0, or -errno. */
int ef_json_print(FILE *stream, const json_t *doc);

/*
 * Replace dir/name by len bytes from buf: a temporary file in the same folder,
 * then rename(2). A reader sees the old file or the new, never half of one.
 * name holds no '/'. mode is the final mode, whatever the umask. On failure the
 * temporary file is gone and the old file is as it was. Returns 0 or -errno.
 * It does not reach for the disk (no fsync): for /run, and for files that are
 * rewritten all the time.
 */
int ef_write_atomic(const char *dir, const char *name, const void *buf, size_t len, mode_t mode);

/* An integer, or null when it is negative (not measured). A new reference. */
json_t *ef_json_measured(int64_t value);

#endif
