/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/desired.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"

#define SCHEMA "ebpf.fleet/desired/v1"
#define REMEDY "deploy the release again"

/* A symlink to the current release's. */
static const struct ef_control_rules rules = {
    .limit = 1024 * 1024, .follow = true, .remedy = REMEDY};

/* Where an error goes. */
struct report {
	const char *path;
	char *error;
	size_t size;
};

static int bad(const struct report *report, const char *field, const char *expected) {
	snprintf(report->error, report->size, "%s: field '%s': %s; " REMEDY, report->path, field,
		 expected);
	return -1;
}

static bool known_keys(const json_t *doc, const char *const *keys, size_t n, const char **odd) {
	const char *key;
	json_t *value;

	json_object_foreach ((json_t *)doc, key, value) {
		bool found = false;

		for (size_t i = 0; i < n; i++)
			found |= !strcmp(key, keys[i]);
		if (!found) {
			*odd = key;
			return false;
		}
	}
	return true;
}

/* As the manifest's feature names: [a-z][a-z0-9_]{0,31}. */
static bool is_feature_name(const char *name) {
	return name[0] >= 'a' && name[0] <= 'z' && strlen(name) <= 32 &&
	       !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")];
}

static int read_wish(const struct report *report, const char *name, const json_t *doc,
		     struct ef_wish *wish) {
	static const char *const keys[] = {"enabled", "sample_every"};
	const json_t *enabled = json_object_get(doc, "enabled");
	const json_t *every = json_object_get(doc, "sample_every");
	const char *odd;

	if (!is_feature_name(name))
		return bad(report, name, "must be a feature's name, [a-z][a-z0-9_]{0,31}");
	if (!json_is_object(doc) || !json_is_boolean(enabled))
		return bad(report, name, "must be an object with 'enabled' true or false");
	if (!known_keys(doc, keys, 2, &odd))
		return bad(report, odd, "is not known here");
	if (every && (!json_is_integer(every) || json_integer_value(every) < 1 ||
		      json_integer_value(every) > UINT32_MAX))
		return bad(report, "sample_every", "must be an integer from 1 to 4294967295");
	wish->feature = ef_must(strdup(name));
	wish->enabled = json_is_true(enabled);
	wish->sample_every = every ? (uint32_t)json_integer_value(every) : 0;
	return 0;
}

static int read_wishes(const struct report *report, const json_t *doc, struct ef_desired *desired) {
	const char *name;
	json_t *item;

	if (!json_is_object(doc))
		return bad(report, "features", "must be an object");
	desired->wishes = ef_must(calloc(json_object_size(doc) + 1, sizeof(*desired->wishes)));
	json_object_foreach ((json_t *)doc, name, item) {
		if (read_wish(report, name, item, &desired->wishes[desired->n]))
			return -1;
		desired->n++;
	}
	return 0;
}

/* Whom else but the loader the operator lets run something; it is the collectors that act on it. */
static int read_fallbacks(const struct report *report, const json_t *list) {
	json_t *item;
	size_t i;

	if (list && !json_is_array(list))
		return bad(report, "fallbacks", "must be a list");
	json_array_foreach (list, i, item) {
		const char *name = json_string_value(item);

		if (!name || strcmp(name, "bcc"))
			return bad(report, "fallbacks", "only 'bcc' is known");
	}
	return 0;
}

static int read_document(const struct report *report, const json_t *doc, const char *digest,
			 struct ef_desired *desired) {
	static const char *const keys[] = {"schema", "bundle_digest", "features", "fallbacks"};
	const char *schema = json_string_value(json_object_get(doc, "schema"));
	const json_t *wanted = json_object_get(doc, "bundle_digest");
	const char *odd;

	if (!schema || strcmp(schema, SCHEMA))
		return bad(report, "schema", "must be " SCHEMA);
	if (!known_keys(doc, keys, EF_ARRAY_SIZE(keys), &odd))
		return bad(report, odd, "is not known here");
	if (!wanted || (!json_is_string(wanted) && !json_is_null(wanted)))
		return bad(report, "bundle_digest", "must be a digest or null");
	if (json_is_string(wanted) && strcmp(json_string_value(wanted), digest))
		return bad(
		    report, "bundle_digest",
		    "is of another bundle than the one that runs; restart the service if the "
		    "release was just changed");
	if (read_fallbacks(report, json_object_get(doc, "fallbacks")))
		return -1;
	return read_wishes(report, json_object_get(doc, "features"), desired);
}

/* An error may quote the file; what is shown is ASCII. */
static void make_printable(char *text) {
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

enum ef_desired_result ef_desired_read(const char *path, const char *digest,
				       struct ef_desired *desired, char *error, size_t size) {
	const struct report report = {.path = path, .error = error, .size = size};
	struct ef_control file;
	int err = ef_control_read(path, &rules, &file, error, size);
	_cleanup_free_ uint8_t *data = file.data;
	_cleanup_json_ json_t *doc = NULL;
	char why[256];

	memset(desired, 0, sizeof(*desired));
	if (err)
		return err == -ENOENT ? EF_DESIRED_ABSENT : EF_DESIRED_BAD;
	doc = ef_json_parse(data, file.size, why, sizeof(why));
	if (!doc)
		snprintf(error, size, "%s: %s; " REMEDY, path, why);
	if (doc && !read_document(&report, doc, digest, desired))
		return EF_DESIRED_READ;
	make_printable(error);
	ef_desired_free(desired);
	return EF_DESIRED_BAD;
}

void ef_desired_free(struct ef_desired *desired) {
	for (size_t i = 0; i < desired->n; i++)
		free(desired->wishes[i].feature);
	free(desired->wishes);
	memset(desired, 0, sizeof(*desired));
}

const struct ef_wish *ef_desired_find(const struct ef_desired *desired, const char *feature) {
	for (size_t i = 0; i < desired->n; i++)
		if (!strcmp(desired->wishes[i].feature, feature))
			return &desired->wishes[i];
	return NULL;
}
