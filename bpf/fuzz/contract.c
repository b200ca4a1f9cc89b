/* SPDX-License-Identifier: GPL-3.0-or-later */
/* contract.json, held against a manifest that names the same variants. */
#include "bundle/contract.h"

#include <string.h>

#include "base/json.h"
#include "base/util.h"
#include "fuzz.h"

#define VARIANTS 8

/* Where the document names no feature, or too many variants, runqlat stands in. */
static size_t name_variants(const json_t *doc, struct ef_variant *variants) {
	const json_t *list = json_object_get(doc, "variants");
	size_t n = json_array_size(list);

	if (!n || n > VARIANTS)
		n = 1;
	for (size_t i = 0; i < n; i++) {
		const json_t *name = json_object_get(json_array_get(list, i), "name");

		variants[i].name =
		    (char *)(json_is_string(name) ? json_string_value(name) : "full");
	}
	return n;
}

static void use(const struct ef_contract *contract) {
	ef_contract_expired(contract);
	for (int kind = EF_SIGNAL_HISTOGRAM; kind <= EF_SIGNAL_COUNTERS; kind++)
		ef_contract_signal(contract, (enum ef_signal_kind)kind);
	for (size_t i = 0; i < contract->n_variants; i++)
		if (!ef_contract_profile(&contract->variants[i]))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	const struct ef_file file = {
	    .path = (char *)"contract.json", .data = (uint8_t *)data, .size = size};
	struct ef_variant variants[VARIANTS] = {0};
	struct ef_feature feature = {.contract = &file, .variants = variants};
	char error[256];
	_cleanup_json_ json_t *doc = ef_json_parse(data, size, error, sizeof(error));
	const char *name = json_string_value(json_object_get(doc, "feature"));
	struct ef_contract contract;
	struct ef_refusal why = {0};

	feature.name = (char *)(name ? name : "runqlat");
	feature.n_variants = name_variants(doc, variants);
	if (!ef_contract_read(&feature, &contract, &why)) {
		use(&contract);
		ef_contract_free(&contract);
	}
	return 0;
}
