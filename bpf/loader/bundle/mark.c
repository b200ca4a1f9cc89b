/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/mark.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/paths.h"
#include "base/util.h"
#include "bundle/manifest.h"

#define SCHEMA "ebpf.fleet/mark/v1"
#define REMEDY "deploy a release with allow_downgrade, which writes it again"

static const struct ef_control_rules rules = {.limit = 4096, .remedy = REMEDY};

static int malformed(struct ef_refusal *why, const char *path, const char *what) {
	return ef_refuse(why, "EF_MARK_MALFORMED", path, "%s: %s; " REMEDY, path, what);
}

static bool is_digest(const char *text) {
	return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static bool is_count(const json_t *value) {
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

/* null, or from, to, digest and at_unix of who lowered the mark last. */
static bool is_lowering(const json_t *doc) {
	if (json_is_null(doc))
		return true;
	return json_object_size(doc) == 4 && is_count(json_object_get(doc, "from")) &&
	       is_count(json_object_get(doc, "to")) && is_count(json_object_get(doc, "at_unix")) &&
	       is_digest(json_string_value(json_object_get(doc, "digest")));
}

static bool are_digests(const json_t *list) {
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!is_digest(json_string_value(json_array_get(list, i))))
			return false;
	return json_is_array(list) && json_array_size(list) <= EF_MARK_BELOW;
}

/*
 * What is wrong with the document, by field; NULL: nothing. As
 * plugins/module_utils/release/mark.py.
 */
static const char *misfit(const json_t *doc) {
	const char *schema = json_string_value(json_object_get(doc, "schema"));

	if (!schema || strcmp(schema, SCHEMA))
		return "field 'schema': must be " SCHEMA;
	if (json_object_size(doc) != 6)
		return "must have schema, sequence, digest, below, seen_unix and lowered, and "
		       "nothing else";
	if (json_integer_value(json_object_get(doc, "sequence")) < 1)
		return "field 'sequence': must be a positive integer";
	if (!is_digest(json_string_value(json_object_get(doc, "digest"))))
		return "field 'digest': must be 64 hex digits";
	if (!is_count(json_object_get(doc, "seen_unix")))
		return "field 'seen_unix': must be an integer, 0 at least";
	if (!are_digests(json_object_get(doc, "below")))
		return "field 'below': must be a list of at most 8 digests of 64 hex digits";
	if (!is_lowering(json_object_get(doc, "lowered")))
		return "field 'lowered': must be null, or from, to, digest and at_unix";
	return NULL;
}

static void take(const json_t *doc, struct ef_mark *mark) {
	const json_t *below = json_object_get(doc, "below");

	mark->sequence = json_integer_value(json_object_get(doc, "sequence"));
	mark->seen = json_integer_value(json_object_get(doc, "seen_unix"));
	mark->lowered_from =
	    json_integer_value(json_object_get(json_object_get(doc, "lowered"), "from"));
	snprintf(mark->digest, sizeof(mark->digest), "%s",
		 json_string_value(json_object_get(doc, "digest")));
	for (; mark->n_below < json_array_size(below); mark->n_below++)
		snprintf(mark->below[mark->n_below], sizeof(mark->below[0]), "%s",
			 json_string_value(json_array_get(below, mark->n_below)));
}

int ef_mark_read(const char *path, struct ef_mark *mark, struct ef_refusal *why) {
	struct ef_control file;
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_json_ json_t *doc = NULL;
	char error[400];
	int err;

	memset(mark, 0, sizeof(*mark));
	err = ef_control_read(path, &rules, &file, error, sizeof(error));
	data = file.data;
	if (err == -ENOENT || err == -ENOTDIR)
		return 0;
	if (err)
		return ef_refuse(why, "EF_MARK_MALFORMED", path, "%s", error);
	doc = ef_json_parse(data, file.size, error, sizeof(error));
	if (!doc || misfit(doc))
		return malformed(why, path, doc ? misfit(doc) : error);
	take(doc, mark);
	return 0;
}

void ef_mark_sentence(const struct ef_mark *mark, char *text, size_t size) {
	text[0] = 0;
	if (mark->sequence && mark->lowered_from)
		snprintf(text, size,
			 "; mark %" PRId64 ", which allow_downgrade lowered from %" PRId64,
			 mark->sequence, mark->lowered_from);
	else if (mark->sequence)
		snprintf(text, size, "; mark %" PRId64, mark->sequence);
}

static bool is_way_back(const struct ef_mark *mark, const char *digest) {
	for (size_t i = 0; i < mark->n_below; i++)
		if (!strcmp(mark->below[i], digest))
			return true;
	return !strcmp(mark->digest, digest);
}

int ef_mark_check(const struct ef_mark *mark, const struct ef_bundle *bundle,
		  struct ef_refusal *why) {
	if (bundle->sequence > (uint64_t)mark->sequence || is_way_back(mark, bundle->digest))
		return 0;
	return ef_refuse(why, "EF_SEQUENCE_DOWNGRADE", EF_MANIFEST,
			 EF_MANIFEST ": the bundle has sequence %" PRIu64
				     ", and this host has run %" PRId64
				     " (release %.12s); deploy a higher one, or allow it with "
				     "allow_downgrade",
			 bundle->sequence, mark->sequence, mark->digest);
}
