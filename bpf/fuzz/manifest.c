/* SPDX-License-Identifier: GPL-3.0-or-later */
/* manifest.json: the bytes as they are, and what they say in canonical form. */
#include "bundle/manifest.h"

#include "base/json.h"
#include "base/util.h"
#include "fuzz.h"

static void parse(const void *data, size_t size) {
	struct ef_bundle *bundle = calloc(1, sizeof(*bundle));
	struct ef_refusal why = {0};

	if (!ef_manifest_parse(data, size, bundle, &why) && !bundle->n_features)
		abort(); /* a manifest that was taken has features */
	ef_bundle_free(bundle);
}

/* A byte changed leaves no canonical form; only this reaches what lies behind that check. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	_cleanup_free_ char *canonical = NULL;
	_cleanup_json_ json_t *doc = NULL;
	size_t length;
	char why[256];

	parse(data, size);
	doc = ef_json_parse(data, size, why, sizeof(why));
	canonical = doc ? ef_json_canonical(doc, &length) : NULL;
	if (canonical)
		parse(canonical, length);
	return 0;
}
