/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/digest.h"
#include "base/json.h"
#include "base/paths.h"
#include "base/util.h"

#define SCHEMA "ebpf.fleet/manifest/v1"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define ALNUM DIGITS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

/* EF_MANIFEST_SCHEMA with the place in the document. */
static int wrong_field(struct ef_refusal *why, const char *where, const char *what) {
	return ef_refuse(why, "EF_MANIFEST_SCHEMA", EF_MANIFEST,
			 EF_MANIFEST ": %s: %s; build the bundle again", where, what);
}

static int out_of_memory(struct ef_refusal *why) {
	return ef_refuse(why, "EF_UNKNOWN", EF_MANIFEST, EF_MANIFEST ": out of memory");
}

/* Exactly these keys, each there. */
static int check_keys(const json_t *object, const char *where, const char *const *keys,
		      size_t n_keys, struct ef_refusal *why) {
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		return wrong_field(why, where, "it is not an object");
	for (size_t i = 0; i < n_keys; i++)
		if (!json_object_get(object, keys[i]))
			return ef_refuse(why, "EF_MANIFEST_SCHEMA", EF_MANIFEST,
					 EF_MANIFEST ": %s: key %s is missing; build the bundle "
						     "again",
					 where, keys[i]);
	json_object_foreach ((json_t *)object, key, value) {
		size_t i = 0;

		while (i < n_keys && strcmp(keys[i], key))
			i++;
		if (i == n_keys)
			return ef_refuse(why, "EF_MANIFEST_SCHEMA", EF_MANIFEST,
					 EF_MANIFEST ": %s: key %.64s is unknown; update the "
						     "loader or build the bundle again",
					 where, key);
	}
	return 0;
}

#define CHECK_KEYS(object, where, why, ...)                                                        \
	check_keys(object, where, (const char *const[]){__VA_ARGS__},                              \
		   EF_ARRAY_SIZE(((const char *const[]){__VA_ARGS__})), why)

/* `first` then up to max - 1 characters of `rest`. */
static bool matches(const char *text, const char *first, const char *rest, size_t max) {
	size_t length = text ? strlen(text) : 0;

	return length && length <= max && strchr(first, text[0]) && strspn(text, rest) == length;
}

static bool is_version(const char *text) {
	return matches(text, ALNUM, ALNUM ".+-", 64);
}

static bool is_name(const char *text) {
	return matches(text, LOWER, LOWER DIGITS "_", 32);
}

static bool has_shape_of_time(const char *text) {
	static const char shape[] = "dddd-dd-ddTdd:dd:ddZ";

	if (!text || strlen(text) != strlen(shape))
		return false;
	for (size_t i = 0; shape[i]; i++)
		if (shape[i] == 'd' ? !strchr(DIGITS, text[i]) : text[i] != shape[i])
			return false;
	return true;
}

/* YYYY-MM-DDTHH:MM:SSZ, a moment that was or will be, from 1970 on: its Unix seconds. */
static bool parse_time(const char *text, int64_t *seconds) {
	struct tm asked = {0}, found;

	if (!has_shape_of_time(text) || !strptime(text, "%Y-%m-%dT%H:%M:%SZ", &asked))
		return false;
	found = asked;
	*seconds = timegm(&found);
	if (*seconds < 0)
		return false;
	return found.tm_mday == asked.tm_mday && found.tm_hour == asked.tm_hour &&
	       found.tm_min == asked.tm_min && found.tm_sec == asked.tm_sec;
}

static const char *string_of(const json_t *object, const char *key) {
	return json_string_value(json_object_get(object, key));
}

static int copy_string(char **place, const char *text, struct ef_refusal *why) {
	*place = strdup(text);
	return *place ? 0 : out_of_memory(why);
}

static int parse_identity(const json_t *object, struct ef_bundle *bundle, struct ef_refusal *why) {
	const char *name = string_of(object, "name"), *version = string_of(object, "version");
	const char *created = string_of(object, "created");
	json_int_t sequence = json_integer_value(json_object_get(object, "sequence"));

	if (CHECK_KEYS(object, "bundle", why, "name", "version", "sequence", "created"))
		return -1;
	if (!matches(name, ALNUM, ALNUM "._-", 64))
		return wrong_field(why, "bundle.name", "not 1 to 64 of [A-Za-z0-9._-]");
	if (!is_version(version))
		return wrong_field(why, "bundle.version",
				   "not of the form [0-9A-Za-z][0-9A-Za-z.+-]{0,63}");
	if (sequence < 1)
		return wrong_field(why, "bundle.sequence", "not a positive integer");
	if (!parse_time(created, &bundle->created_s))
		return wrong_field(why, "bundle.created", "not a UTC time YYYY-MM-DDTHH:MM:SSZ");
	bundle->sequence = (uint64_t)sequence;
	if (copy_string(&bundle->name, name, why) || copy_string(&bundle->version, version, why))
		return -1;
	return copy_string(&bundle->created, created, why);
}

static bool is_head(const char *path) {
	return !strcmp(path, EF_MANIFEST) || !strcmp(path, EF_MANIFEST_SIG);
}

/* The largest size of that file, in bytes. */
static json_int_t limit_of(const char *path) {
	const char *name = strrchr(path, '/');

	if (name && !strcmp(name, "/contract.json"))
		return EF_CONTRACT_MAX;
	return strncmp(path, "loader/", 7) ? EF_OBJECT_MAX : EF_LOADER_MAX;
}

static int parse_file(const char *path, const json_t *entry, struct ef_file *file,
		      struct ef_refusal *why) {
	const char *digest = string_of(entry, "sha256"), *mode = string_of(entry, "mode");
	json_int_t size = json_integer_value(json_object_get(entry, "size"));

	if (!ef_path_is_plain(path) || is_head(path))
		return ef_refuse(why, "EF_MANIFEST_SCHEMA", path,
				 EF_MANIFEST ": files: %.128s is not a plain relative path; build "
					     "the bundle again",
				 path);
	if (CHECK_KEYS(entry, path, why, "sha256", "size", "mode"))
		return -1;
	if (!digest || ef_sha256_from_hex(digest, file->sha256))
		return wrong_field(why, path, "sha256 is not 64 lower-case hex digits");
	if (!json_is_integer(json_object_get(entry, "size")) || size < 0 || size > limit_of(path))
		return wrong_field(why, path,
				   "size is not an integer from 0 to the limit of such "
				   "a file");
	if (!mode || (strcmp(mode, "0644") && strcmp(mode, "0755")))
		return wrong_field(why, path, "mode is neither \"0644\" nor \"0755\"");
	file->size = (size_t)size;
	file->mode = strcmp(mode, "0755") ? 0644 : 0755;
	return copy_string(&file->path, path, why);
}

static int compare_files(const void *left, const void *right) {
	return strcmp(((const struct ef_file *)left)->path, ((const struct ef_file *)right)->path);
}

/* A file cannot also be a folder that holds another. */
static bool lies_in_a_file(const struct ef_bundle *bundle, const char *path) {
	char folder[EF_PATH_MAX];

	for (const char *slash = path; (slash = strchr(slash, '/')); slash++) {
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
		if (is_head(folder) || ef_manifest_find(bundle, folder))
			return true;
	}
	return false;
}

static int check_folders(const struct ef_bundle *bundle, struct ef_refusal *why) {
	for (size_t i = 0; i < bundle->n_files; i++)
		if (lies_in_a_file(bundle, bundle->files[i].path))
			return wrong_field(why, bundle->files[i].path,
					   "a part of its path is a file of the bundle");
	return 0;
}

static int parse_files(const json_t *files, struct ef_bundle *bundle, struct ef_refusal *why) {
	const char *path;
	json_t *entry;

	if (!json_is_object(files))
		return wrong_field(why, "files", "it is not an object");
	if (json_object_size(files) > EF_FILES_MAX)
		return wrong_field(why, "files", "it names more than 1024 files");
	bundle->files = calloc(json_object_size(files) + 1, sizeof(*bundle->files));
	if (!bundle->files)
		return out_of_memory(why);
	json_object_foreach ((json_t *)files, path, entry) {
		if (parse_file(path, entry, &bundle->files[bundle->n_files], why))
			return -1;
		bundle->n_files++;
	}
	qsort(bundle->files, bundle->n_files, sizeof(*bundle->files), compare_files);
	return check_folders(bundle, why);
}

struct ef_file *ef_manifest_find(const struct ef_bundle *bundle, const char *path) {
	const struct ef_file key = {.path = (char *)path};

	return bsearch(&key, bundle->files, bundle->n_files, sizeof(key), compare_files);
}

/*
 * The file that the manifest names as `path`. The layout is fixed, so a path
 * other than `expected` is a manifest that was built wrongly.
 */
static const struct ef_file *find_file(const struct ef_bundle *bundle, const json_t *path,
				       const char *expected, struct ef_refusal *why) {
	const struct ef_file *file;

	if (!json_is_string(path) || strcmp(json_string_value(path), expected)) {
		wrong_field(why, expected, "the manifest names another path in its place");
		return NULL;
	}
	file = ef_manifest_find(bundle, expected);
	if (!file)
		wrong_field(why, expected, "it is used but not in `files`");
	return file;
}

static int parse_loaders(const json_t *object, struct ef_bundle *bundle, struct ef_refusal *why) {
	const json_t *files = json_object_get(object, "files");
	const char *version = string_of(object, "version"), *arch;
	char expected[EF_PATH_MAX];
	json_t *path;

	if (CHECK_KEYS(object, "loader", why, "version", "files"))
		return -1;
	if (!is_version(version))
		return wrong_field(why, "loader.version",
				   "not of the form [0-9A-Za-z][0-9A-Za-z.+-]{0,63}");
	if (!json_object_size(files))
		return wrong_field(why, "loader.files", "it names no loader");
	bundle->loaders = calloc(json_object_size(files) + 1, sizeof(*bundle->loaders));
	if (!bundle->loaders)
		return out_of_memory(why);
	json_object_foreach ((json_t *)files, arch, path) {
		struct ef_loader_file *loader = &bundle->loaders[bundle->n_loaders];

		if (!is_name(arch))
			return wrong_field(why, "loader.files", "an architecture is not uname -m");
		snprintf(expected, sizeof(expected), "loader/%s/ebpf-loader", arch);
		loader->file = find_file(bundle, path, expected, why);
		if (!loader->file || copy_string(&loader->arch, arch, why))
			return -1;
		bundle->n_loaders++;
	}
	return copy_string(&bundle->loader_version, version, why);
}

static bool variant_is_known(const struct ef_feature *feature, const char *name) {
	for (size_t i = 0; i < feature->n_variants; i++)
		if (!strcmp(feature->variants[i].name, name))
			return true;
	return false;
}

static int parse_variant(const json_t *entry, const struct ef_bundle *bundle,
			 struct ef_feature *feature, struct ef_refusal *why) {
	struct ef_variant *variant = &feature->variants[feature->n_variants];
	const char *name = string_of(entry, "name");
	char expected[EF_PATH_MAX];

	if (CHECK_KEYS(entry, feature->name, why, "name", "object"))
		return -1;
	if (!is_name(name) || variant_is_known(feature, name))
		return wrong_field(why, feature->name,
				   "a variant's name is not [a-z][a-z0-9_]{0,31} or not unique");
	snprintf(expected, sizeof(expected), "features/%s/%s.bpf.o", feature->name, name);
	variant->object = find_file(bundle, json_object_get(entry, "object"), expected, why);
	if (!variant->object || copy_string(&variant->name, name, why))
		return -1;
	feature->n_variants++;
	return 0;
}

static int parse_feature(const json_t *entry, const struct ef_bundle *bundle,
			 struct ef_feature *feature, struct ef_refusal *why) {
	const json_t *variants = json_object_get(entry, "variants");
	char expected[EF_PATH_MAX];

	if (CHECK_KEYS(entry, feature->name, why, "contract", "variants"))
		return -1;
	snprintf(expected, sizeof(expected), "features/%s/contract.json", feature->name);
	feature->contract = find_file(bundle, json_object_get(entry, "contract"), expected, why);
	if (!feature->contract)
		return -1;
	if (!json_array_size(variants))
		return wrong_field(why, feature->name, "`variants` is not a list of at least one");
	feature->variants = calloc(json_array_size(variants), sizeof(*feature->variants));
	if (!feature->variants)
		return out_of_memory(why);
	for (size_t i = 0; i < json_array_size(variants); i++)
		if (parse_variant(json_array_get(variants, i), bundle, feature, why))
			return -1;
	return 0;
}

static int parse_features(const json_t *features, struct ef_bundle *bundle,
			  struct ef_refusal *why) {
	const char *name;
	json_t *entry;

	if (!json_object_size(features))
		return wrong_field(why, "features", "it names no feature");
	bundle->features = calloc(json_object_size(features) + 1, sizeof(*bundle->features));
	if (!bundle->features)
		return out_of_memory(why);
	json_object_foreach ((json_t *)features, name, entry) {
		struct ef_feature *feature = &bundle->features[bundle->n_features];

		if (!is_name(name))
			return wrong_field(why, "features",
					   "a feature's name is not [a-z][a-z0-9_]{0,31}");
		if (copy_string(&feature->name, name, why))
			return -1;
		bundle->n_features++;
		if (parse_feature(entry, bundle, feature, why))
			return -1;
	}
	return 0;
}

bool ef_manifest_is_of_feature(const struct ef_bundle *bundle, const struct ef_file *file) {
	for (size_t i = 0; i < bundle->n_features; i++) {
		const struct ef_feature *feature = &bundle->features[i];

		if (feature->contract == file)
			return true;
		for (size_t j = 0; j < feature->n_variants; j++)
			if (feature->variants[j].object == file)
				return true;
	}
	return false;
}

static json_t *parse_canonical(const void *data, size_t size, struct ef_refusal *why) {
	char fault[256];
	_cleanup_json_ json_t *doc = NULL;
	_cleanup_free_ char *canonical = NULL;
	size_t canonical_size;

	if (ef_json_depth(data, size) > EF_MANIFEST_DEPTH) {
		ef_refuse(why, "EF_MANIFEST_MALFORMED", EF_MANIFEST,
			  EF_MANIFEST ": nested deeper than %d; build the bundle again",
			  EF_MANIFEST_DEPTH);
		return NULL;
	}
	doc = ef_json_parse(data, size, fault, sizeof(fault));
	if (!doc) {
		ef_refuse(why, "EF_MANIFEST_MALFORMED", EF_MANIFEST,
			  EF_MANIFEST ": not JSON: %s; build the bundle again", fault);
		return NULL;
	}
	canonical = ef_json_canonical(doc, &canonical_size);
	if (!canonical || canonical_size != size || memcmp(canonical, data, size)) {
		ef_refuse(why, "EF_MANIFEST_MALFORMED", EF_MANIFEST,
			  EF_MANIFEST ": not in canonical form (sorted keys, no white space, "
				      "integers only, ASCII); build the bundle again");
		return NULL;
	}
	return TAKE_PTR(doc);
}

static int parse_document(const json_t *doc, struct ef_bundle *bundle, struct ef_refusal *why) {
	const char *schema = string_of(doc, "schema");

	if (CHECK_KEYS(doc, "top level", why, "schema", "bundle", "loader", "features", "files",
		       "provenance", "compatibility"))
		return -1;
	if (!schema || strcmp(schema, SCHEMA))
		return wrong_field(why, "schema", "it is not " SCHEMA);
	if (!json_is_object(json_object_get(doc, "provenance")) ||
	    !json_is_object(json_object_get(doc, "compatibility")))
		return wrong_field(why, "provenance, compatibility", "one is not an object");
	if (parse_identity(json_object_get(doc, "bundle"), bundle, why) ||
	    parse_files(json_object_get(doc, "files"), bundle, why) ||
	    parse_loaders(json_object_get(doc, "loader"), bundle, why))
		return -1;
	return parse_features(json_object_get(doc, "features"), bundle, why);
}

int ef_manifest_parse(const void *data, size_t size, struct ef_bundle *bundle,
		      struct ef_refusal *why) {
	_cleanup_json_ json_t *doc = parse_canonical(data, size, why);

	return doc ? parse_document(doc, bundle, why) : -1;
}
