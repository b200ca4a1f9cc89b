/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/bundle.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/json.h"
#include "base/util.h"

static void free_feature(struct ef_feature *feature) {
	for (size_t i = 0; i < feature->n_variants; i++)
		free(feature->variants[i].name);
	free(feature->variants);
	free(feature->name);
}

void ef_bundle_free(struct ef_bundle *bundle) {
	if (!bundle)
		return;
	for (size_t i = 0; i < bundle->n_features; i++)
		free_feature(&bundle->features[i]);
	for (size_t i = 0; i < bundle->n_loaders; i++)
		free(bundle->loaders[i].arch);
	for (size_t i = 0; i < bundle->n_files; i++) {
		free(bundle->files[i].path);
		free(bundle->files[i].data);
	}
	free(bundle->features);
	free(bundle->loaders);
	free(bundle->files);
	free(bundle->name);
	free(bundle->version);
	free(bundle->created);
	free(bundle->signer);
	free(bundle->loader_version);
	free(bundle);
}

/* The index of the bundle's minimal BTF, and those of this machine's architecture. */
bool ef_bundle_is_btf(const struct ef_file *file) {
	const char *machine = ef_bundle_machine();
	size_t length = strlen(machine);

	if (!strcmp(file->path, EF_BTF_INDEX))
		return true;
	return !strncmp(file->path, "btf/", 4) && !strncmp(file->path + 4, machine, length) &&
	       file->path[4 + length] == '/';
}

void ef_bundle_forget_btf(struct ef_bundle *bundle) {
	for (size_t i = 0; i < bundle->n_files; i++) {
		struct ef_file *file = &bundle->files[i];

		if (!ef_bundle_is_btf(file))
			continue;
		free(file->data);
		file->data = NULL;
	}
}

const char *ef_bundle_machine(void) {
	static struct utsname host;

	return uname(&host) < 0 ? "unknown" : host.machine;
}

json_t *ef_bundle_json(const struct ef_bundle *bundle) {
	return json_pack("{s:s, s:s, s:I, s:s}", "name", bundle->name, "version", bundle->version,
			 "sequence", (json_int_t)bundle->sequence, "digest", bundle->digest);
}

const char *ef_feature_name(const struct ef_feature *feature) {
	return feature->name;
}

const char *ef_bundle_digest(const struct ef_bundle *bundle) {
	return bundle->digest;
}

const char *ef_bundle_version(const struct ef_bundle *bundle) {
	return bundle->version;
}

const char *ef_bundle_signer(const struct ef_bundle *bundle) {
	return bundle->signer;
}

int64_t ef_bundle_created(const struct ef_bundle *bundle) {
	return bundle->created_s;
}

size_t ef_bundle_count(const struct ef_bundle *bundle) {
	return bundle->n_features;
}

const struct ef_feature *ef_bundle_feature(const struct ef_bundle *bundle, size_t i) {
	return &bundle->features[i];
}

bool ef_bundle_has(const struct ef_bundle *bundle, const char *feature) {
	for (size_t i = 0; i < bundle->n_features; i++)
		if (!strcmp(bundle->features[i].name, feature))
			return true;
	return false;
}

const char *ef_feature_contract_path(const struct ef_feature *feature) {
	return feature->contract->path;
}
