/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/lease.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/paths.h"
#include "base/util.h"

#define SCHEMA "ebpf.fleet/lease/v1"
#define REMEDY "roll out again, or remove it to end the probation"

/* A symlink is not a lease. */
static const struct ef_control_rules rules = {.limit = 4096, .remedy = REMEDY};

/* The caller says why. */
static void make_unusable(struct ef_lease *lease) {
	lease->there = true;
	lease->unusable = true;
	lease->expires_ns = 0;
	lease->holder[0] = 0;
}

static void unusable(struct ef_lease *lease, const char *path, const char *what) {
	make_unusable(lease);
	snprintf(lease->why, sizeof(lease->why), "%s: %s; " REMEDY, path, what);
}

/* What is wrong with the document, by field; NULL: nothing. */
static const char *misfit(const json_t *doc) {
	const char *schema = json_string_value(json_object_get(doc, "schema"));
	const json_t *holder = json_object_get(doc, "holder");
	const json_t *expires = json_object_get(doc, "expires_boottime_ns");

	if (!schema || strcmp(schema, SCHEMA))
		return "field 'schema': must be " SCHEMA;
	if (json_object_size(doc) != 5)
		return "must have schema, bundle_digest, boot_id, expires_boottime_ns and holder, "
		       "and nothing else";
	if (json_string_length(json_object_get(doc, "bundle_digest")) != 64)
		return "field 'bundle_digest': must be 64 hex digits";
	if (!json_is_string(json_object_get(doc, "boot_id")))
		return "field 'boot_id': must be a text";
	if (!json_is_integer(expires) || json_integer_value(expires) < 0)
		return "field 'expires_boottime_ns': must be an integer, 0 at least";
	if (!json_string_length(holder) ||
	    json_string_length(holder) >= sizeof(((struct ef_lease *)0)->holder))
		return "field 'holder': must be a text of 1 to 128 bytes";
	return NULL;
}

static bool same_text(const json_t *doc, const char *key, const char *text) {
	return !strcmp(json_string_value(json_object_get(doc, key)), text);
}

/* The boot's clock began again with the boot: a time of another says nothing here. */
static void take(struct ef_lease *lease, const char *path, const json_t *doc, const char *boot_id) {
	lease->there = true;
	lease->expires_ns = json_integer_value(json_object_get(doc, "expires_boottime_ns"));
	snprintf(lease->holder, sizeof(lease->holder), "%s",
		 json_string_value(json_object_get(doc, "holder")));
	if (!*boot_id || !same_text(doc, "boot_id", boot_id))
		unusable(lease, path, "is of another boot of this host");
}

void ef_lease_read(const char *path, const char *digest, const char *boot_id,
		   struct ef_lease *lease) {
	struct ef_control file;
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_json_ json_t *doc = NULL;
	char error[256];
	int err;

	memset(lease, 0, sizeof(*lease));
	err = ef_control_read(path, &rules, &file, lease->why, sizeof(lease->why));
	data = file.data;
	lease->uid = file.uid;
	if (err == -ENOENT || err == -ENOTDIR) {
		lease->why[0] = 0;
		return;
	}
	if (err) {
		make_unusable(lease);
		return;
	}
	doc = ef_json_parse(data, file.size, error, sizeof(error));
	if (!doc || misfit(doc))
		unusable(lease, path, doc ? misfit(doc) : error);
	else if (same_text(doc, "bundle_digest", digest))
		take(lease, path, doc, boot_id);
}

bool ef_lease_expired(const struct ef_lease *lease, int64_t now_ns) {
	return lease->there && (lease->unusable || now_ns >= lease->expires_ns);
}

bool ef_lease_equal(const struct ef_lease *a, const struct ef_lease *b) {
	return a->there == b->there && a->unusable == b->unusable &&
	       a->expires_ns == b->expires_ns && !strcmp(a->holder, b->holder) &&
	       !strcmp(a->why, b->why);
}

void ef_lease_reason(const struct ef_lease *lease, struct ef_reason *why) {
	if (lease->unusable)
		ef_reason_set(why, "EF_LEASE_EXPIRED", "%s", lease->why);
	else
		ef_reason_set(why, "EF_LEASE_EXPIRED",
			      "the lease of '%s' ran out unconfirmed; " REMEDY, lease->holder);
}

json_t *ef_lease_json(const struct ef_lease *lease, int64_t now_ns) {
	bool expired = ef_lease_expired(lease, now_ns);

	if (!lease->there)
		return json_null();
	if (lease->unusable)
		return json_pack("{s:n, s:n, s:n, s:b}", "expires_boottime_ns", "left_ns", "holder",
				 "expired", 1);
	return json_pack("{s:I, s:I, s:s, s:b}", "expires_boottime_ns",
			 (json_int_t)lease->expires_ns, "left_ns",
			 (json_int_t)(expired ? 0 : lease->expires_ns - now_ns), "holder",
			 lease->holder, "expired", expired);
}
