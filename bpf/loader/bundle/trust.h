/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_TRUST_H
#define EF_TRUST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/moment.h"
#include "base/refusal.h"
#include "bundle/signers.h"

/* Where trust comes from. The strings belong to the caller. */
struct ef_trust_paths {
	const char *allowed_signers; /* must exist */
	const char *revoked_keys;    /* NULL: none */
	bool revoked_required;	     /* true: a revoked_keys that does not exist is a refusal */
	bool quiet;		     /* lines that are left out are not logged: they were before */
};

/* Owned by its caller: ef_trust_load() into a zeroed one, then ef_trust_clear(). */
struct ef_trust {
	size_t n_signers;
	struct ef_signer *signers;
	bool quiet;
	size_t n_unusable; /* lines of allowed_signers that were left out, each logged */
	size_t n_revoked;
	uint8_t (*revoked)[EF_ED25519_KEY];
};

/*
 * Read both files, of the grammar of docs/trust-formats.md. Each must be a
 * regular file that only root or we can write, in a folder of which the same
 * holds. A line of allowed_signers that cannot be used is left out and told in
 * the log; whatever else cannot be understood is a refusal (EF_TRUST_MISSING,
 * EF_TRUST_MALFORMED), a line of revoked_keys included. Call ef_trust_clear() in
 * either case.
 */
int ef_trust_load(const struct ef_trust_paths *paths, struct ef_trust *trust,
		  struct ef_refusal *why);

/*
 * May this key sign in this namespace at this time? 0: *principal is the
 * signer's name, owned by trust. -1: EF_SIG_REVOKED, EF_SIG_UNKNOWN_SIGNER,
 * EF_SIG_NAMESPACE or EF_SIG_EXPIRED, about the signature `file`; EF_CLOCK_UNKNOWN
 * where the time is not known and every line that would allow it has a limit.
 */
int ef_trust_judge(const struct ef_trust *trust, const uint8_t key[EF_ED25519_KEY],
		   const char *namespace, const struct ef_moment *at, const char *file,
		   const char **principal, struct ef_refusal *why);

void ef_trust_clear(struct ef_trust *trust);

#endif
