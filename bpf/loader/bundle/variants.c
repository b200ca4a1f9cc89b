/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/variants.h"

#include <string.h>

#include "base/json.h"
#include "base/util.h"
#include "bundle/manifest.h"

/* The contract where it is canonical JSON as the manifest is; NULL: it is not. */
static json_t *parse_contract(const struct ef_file *file) {
	char fault[256];
	_cleanup_json_ json_t *doc = NULL;
	_cleanup_free_ char *canonical = NULL;
	size_t size;

	if (ef_json_depth(file->data, file->size) > EF_MANIFEST_DEPTH)
		return NULL;
	doc = ef_json_parse(file->data, file->size, fault, sizeof(fault));
	canonical = doc ? ef_json_canonical(doc, &size) : NULL;
	if (!canonical || size != file->size || memcmp(canonical, file->data, size))
		return NULL;
	return TAKE_PTR(doc);
}

static bool are_the_manifests(const struct ef_feature *feature, const json_t *variants) {
	if (!json_is_array(variants) || json_array_size(variants) != feature->n_variants)
		return false;
	for (size_t i = 0; i < feature->n_variants; i++) {
		const json_t *entry = json_array_get(variants, i);
		const char *name = json_string_value(json_object_get(entry, "name"));

		if (!name || strcmp(name, feature->variants[i].name))
			return false;
	}
	return true;
}

int ef_variants_check(const struct ef_bundle *bundle, struct ef_refusal *why) {
	for (size_t i = 0; i < bundle->n_features; i++) {
		const struct ef_feature *feature = &bundle->features[i];
		_cleanup_json_ json_t *doc = parse_contract(feature->contract);
		const json_t *variants = json_object_get(doc, "variants");

		if (variants && !are_the_manifests(feature, variants))
			return ef_refuse(why, "EF_CONTRACT_MALFORMED", feature->contract->path,
					 "%s: has other variants than the manifest, or in another "
					 "order; build the bundle again",
					 feature->contract->path);
	}
	return 0;
}
