/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"
#include "control/sink_policy.h"

#define SCHEMA "ebpf.fleet/policy/v1"
#define REMEDY "correct ebpf_fleet_policy and run the role ebpf.fleet.prepare again"

static const struct ef_control_rules rules = {
    .limit = 1024 * 1024, .follow = true, .remedy = REMEDY};

/* Where an error goes. */
struct report {
	const char *path;
	char *error;
	size_t size;
};

static int bad(const struct report *report, const char *where, const char *field,
	       const char *expected) {
	snprintf(report->error, report->size, "%s: field '%s%s%s': %s; " REMEDY, report->path,
		 where, *where ? "." : "", field, expected);
	for (char *c = report->error; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?'; /* it may quote the file */
	return -1;
}

static int budget_of(const char *key) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		if (!strcmp(key, ef_budget_name((enum ef_budget)i)))
			return i;
	return -1;
}

/* As the manifest's feature names. */
static bool is_feature_name(const char *name) {
	return name[0] >= 'a' && name[0] <= 'z' && strlen(name) <= 32 &&
	       !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")];
}

static int read_amounts(const struct report *report, const char *where, const json_t *doc,
			bool of_host, struct ef_amounts *amounts) {
	const char *key;
	json_t *value;

	if (!json_is_object(doc))
		return bad(report, "", where, "must be an object of limits");
	json_object_foreach ((json_t *)doc, key, value) {
		int budget = budget_of(key);
		json_int_t n = json_integer_value(value);
		char expected[96];

		if (budget < 0 || (budget == EF_BUDGET_RSS && !of_host))
			return bad(report, where, key, "is not a known limit");
		snprintf(expected, sizeof(expected),
			 "must be an integer from %" PRId64 " to %" PRId64,
			 ef_budget_kind(budget)->least, ef_budget_kind(budget)->most);
		if (!json_is_integer(value) || n < ef_budget_kind(budget)->least ||
		    n > ef_budget_kind(budget)->most)
			return bad(report, where, key, expected);
		amounts->of[budget] = n;
	}
	return 0;
}

static int read_features(const struct report *report, const json_t *doc, struct ef_policy *policy) {
	const char *name;
	json_t *limits;

	if (!doc)
		return 0;
	if (!json_is_object(doc))
		return bad(report, "", "features", "must be an object");
	policy->features = ef_must(calloc(json_object_size(doc) + 1, sizeof(*policy->features)));
	json_object_foreach ((json_t *)doc, name, limits) {
		struct ef_policy_feature *feature = &policy->features[policy->n];
		char where[64];

		if (!is_feature_name(name))
			return bad(report, "features", name,
				   "must be a feature's name, [a-z][a-z0-9_]{0,31}");
		snprintf(where, sizeof(where), "features.%s", name);
		memset(&feature->limits, 0xff, sizeof(feature->limits)); /* -1: no limit */
		if (read_amounts(report, where, limits, false, &feature->limits))
			return -1;
		feature->name = ef_must(strdup(name));
		policy->n++;
	}
	return 0;
}

static int read_sink(const struct report *report, const json_t *doc, struct ef_policy *policy) {
	char why[200];

	if (!ef_sink_policy_read(doc, &policy->sink, why, sizeof(why)))
		return 0;
	return bad(report, "", "sink", why);
}

static int read_document(const struct report *report, const json_t *doc, struct ef_policy *policy) {
	const char *schema = json_string_value(json_object_get(doc, "schema"));
	const json_t *host = json_object_get(doc, "host");
	const char *key;
	json_t *value;

	if (!schema || strcmp(schema, SCHEMA))
		return bad(report, "", "schema", "must be " SCHEMA);
	json_object_foreach ((json_t *)doc, key, value)
		if (strcmp(key, "schema") && strcmp(key, "host") && strcmp(key, "features") &&
		    strcmp(key, "sink"))
			return bad(report, "", key, "is not known here");
	if (read_sink(report, json_object_get(doc, "sink"), policy))
		return -1;
	if (host && read_amounts(report, "host", host, true, &policy->host))
		return -1;
	return read_features(report, json_object_get(doc, "features"), policy);
}

static void set_defaults(struct ef_policy *policy) {
	memset(policy, 0, sizeof(*policy));
	for (int i = 0; i < EF_N_BUDGETS; i++)
		policy->host.of[i] = ef_budget_kind((enum ef_budget)i)->of_host;
	ef_sink_policy_read(NULL, &policy->sink, NULL, 0);
}

enum ef_policy_result ef_policy_read(const char *path, struct ef_policy *policy, char *error,
				     size_t size) {
	const struct report report = {.path = path, .error = error, .size = size};
	struct ef_control file;
	int err = ef_control_read(path, &rules, &file, error, size);
	_cleanup_free_ uint8_t *data = file.data;
	_cleanup_json_ json_t *doc = NULL;
	char why[256];

	set_defaults(policy);
	if (err)
		return err == -ENOENT ? EF_POLICY_ABSENT : EF_POLICY_BAD;
	doc = ef_json_parse(data, file.size, why, sizeof(why));
	if (!doc)
		bad(&report, "", "", why);
	if (doc && !read_document(&report, doc, policy))
		return EF_POLICY_READ;
	ef_policy_free(policy);
	set_defaults(policy);
	return EF_POLICY_BAD;
}

bool ef_policy_equal(const struct ef_policy *a, const struct ef_policy *b) {
	if (memcmp(&a->host, &b->host, sizeof(a->host)) || a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->features[i].name, b->features[i].name) ||
		    memcmp(&a->features[i].limits, &b->features[i].limits,
			   sizeof(struct ef_amounts)))
			return false;
	return true;
}

void ef_policy_free(struct ef_policy *policy) {
	for (size_t i = 0; i < policy->n; i++)
		free(policy->features[i].name);
	free(policy->features);
	memset(policy, 0, sizeof(*policy));
}

static void tighten(int64_t *limit, int64_t by) {
	if (by >= 0 && (*limit < 0 || by < *limit))
		*limit = by;
}

struct ef_amounts ef_policy_limits(const struct ef_policy *policy, const char *feature,
				   const struct ef_amounts *contract) {
	struct ef_amounts limits = *contract;

	tighten(&limits.of[EF_BUDGET_DROPS], policy->host.of[EF_BUDGET_DROPS]);
	tighten(&limits.of[EF_BUDGET_MAP_FILL], policy->host.of[EF_BUDGET_MAP_FILL]);
	for (size_t i = 0; i < policy->n; i++)
		for (int b = 0; !strcmp(policy->features[i].name, feature) && b < EF_N_BUDGETS; b++)
			tighten(&limits.of[b], policy->features[i].limits.of[b]);
	return limits;
}
