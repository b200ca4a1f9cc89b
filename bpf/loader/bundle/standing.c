/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/standing.h"

#include <string.h>

#include "bundle/manifest.h"
#include "bundle/sshsig.h"

void ef_standing_read(const struct ef_trust_paths *paths, const struct ef_bundle *bundle,
		      const struct ef_moment *at, struct ef_standing *standing) {
	struct ef_trust_paths quietly = *paths;
	struct ef_trust trust = {0};
	const char *principal;

	*standing = (struct ef_standing){0};
	quietly.quiet = true;
	standing->lost = ef_trust_load(&quietly, &trust, &standing->why) ||
			 ef_trust_judge(&trust, bundle->signer_key, EF_RELEASE_NAMESPACE, at,
					EF_MANIFEST_SIG, &principal, &standing->why);
	ef_trust_clear(&trust);
}

bool ef_standing_equal(const struct ef_standing *a, const struct ef_standing *b) {
	if (a->lost != b->lost)
		return false;
	return !a->lost ||
	       (!strcmp(a->why.code, b->why.code) && !strcmp(a->why.reason, b->why.reason));
}

void ef_standing_reason(const struct ef_standing *standing, struct ef_reason *why) {
	if (!strcmp(standing->why.code, "EF_CLOCK_UNKNOWN"))
		ef_reason_set(why, "EF_CLOCK_UNKNOWN", "%s", standing->why.reason);
	else
		ef_reason_set(why, "EF_TRUST_WITHDRAWN",
			      "this host no longer trusts the release that runs: %s (%s)",
			      standing->why.reason, standing->why.code);
}

json_t *ef_standing_json(const struct ef_standing *standing) {
	struct ef_reason why;

	if (!standing->lost)
		return json_pack("{s:b, s:s, s:s}", "ok", 1, "reason_code", "EF_OK", "reason",
				 "its signer is trusted");
	ef_standing_reason(standing, &why);
	return json_pack("{s:b, s:s, s:s}", "ok", 0, "reason_code", ef_reason_code(&why), "reason",
			 ef_reason_text(&why));
}

bool ef_standing_is_lost(const struct ef_standing *standing) {
	return standing->lost;
}
