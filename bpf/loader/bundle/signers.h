/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SIGNERS_H
#define EF_SIGNERS_H

#include <stdbool.h>
#include <stdint.h>

#include "bundle/sshkey.h"

/* One usable line of allowed_signers. */
struct ef_signer {
	char *principal;      /* the first of the line's principals */
	char *namespaces;     /* patterns as in namespaces="..."; NULL: every namespace */
	int64_t valid_after;  /* Unix seconds; 0: no limit */
	int64_t valid_before; /* Unix seconds; 0: no limit */
	uint8_t key[EF_ED25519_KEY];
};

enum ef_signer_line {
	EF_SIGNER_OK,
	EF_SIGNER_UNUSABLE, /* left out: that can only narrow what is trusted */
};

/*
 * Parse one line of allowed_signers (docs/trust-formats.md) that is neither
 * empty nor a comment. EF_SIGNER_OK: the strings in *signer are the
 * caller's to free. Otherwise *signer is zero and *why a literal that
 * says what is wrong.
 */
enum ef_signer_line ef_signer_parse(const char *line, struct ef_signer *signer, const char **why);

void ef_signer_clear(struct ef_signer *signer);

/*
 * Does text match one of OpenSSH's comma-separated patterns (`*`, `?`), and
 * none of those that a `!` stands before?
 */
bool ef_pattern_list_matches(const char *patterns, const char *text);

#endif
