/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_REFUSAL_H
#define EF_REFUSAL_H

#include <jansson.h>

/* Why something was refused: a stable code, a sentence with the remedy, the file. */
struct ef_refusal {
	const char *code; /* "EF_..." of docs/reason-codes.md, a literal; NULL: not refused */
	char reason[512]; /* printable ASCII */
	char file[256];	  /* as the user named it, or relative to the bundle; "" when none */
};

/*
 * Fills in *why and returns -1, so that a check reads
 * `return ef_refuse(why, "EF_...", file, "...")`. file may be NULL. Bytes that
 * are not printable ASCII become '?'.
 */
int ef_refuse(struct ef_refusal *why, const char *code, const char *file, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* {"ok": false, "reason_code", "reason", "file"}: a new reference, or NULL. */
json_t *ef_refusal_json(const struct ef_refusal *why);

#endif
