/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/seen.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"

#define NAME "unobserved.json"
#define SCHEMA "ebpf.fleet/unobserved/v1"

static const struct ef_control_rules rules = {
    .limit = 1024 * 1024, .remedy = "remove it: what earlier lives did not see is then not known"};

/* NULL: there is none, or it is not to be used, which is said. */
static json_t *read_document(const struct ef_service *service) {
	_cleanup_free_ char *path = ef_must(ef_path_join(service->options.log, NAME));
	char why[400] = "";
	int err;
	json_t *doc = ef_json_read(path, &rules, &err, why, sizeof(why));

	if (doc && (!json_string_value(json_object_get(doc, "schema")) ||
		    strcmp(json_string_value(json_object_get(doc, "schema")), SCHEMA))) {
		snprintf(why, sizeof(why), "its schema is not " SCHEMA);
		json_decref(doc);
		doc = NULL;
	}
	if (!doc && err != -ENOENT && err != -ENOTDIR)
		ef_warn("%s is not used: %s; what earlier loaders did not see is not known", path,
			*why ? why : strerror(-err));
	return doc;
}

static struct ef_last_seen seen_of(const struct ef_service *service, const json_t *doc) {
	const char *boot_id = json_string_value(json_object_get(doc, "boot_id"));

	return (struct ef_last_seen){
	    .same_boot = boot_id && *service->boot_id && !strcmp(boot_id, service->boot_id),
	    .boottime_ns = json_integer_value(json_object_get(doc, "boottime_ns")),
	    .unix_ns = json_integer_value(json_object_get(doc, "time_unix_ns")),
	};
}

static void take(struct ef_service *service, const json_t *doc, bool had_gap) {
	const json_t *features = json_object_get(doc, "features");
	struct ef_last_seen seen = seen_of(service, doc);
	/* What the loader lacked since then is noted by itself. */
	int64_t gap = ef_gap_since(&seen, service->began_boottime_ns, service->began_unix_ns,
				   !service->clock_unknown);

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		const json_t *entry = json_object_get(features, ef_live_name(live));
		uint64_t now[EF_N_GAPS];

		if (!entry)
			continue;
		memcpy(now, live->counted.unobserved.ns, sizeof(now));
		ef_unobserved_take(&live->counted.unobserved, json_object_get(entry, "ns"));
		for (enum ef_gap kind = 0; kind < EF_N_GAPS; kind++)
			live->counted.unobserved.ns[kind] += now[kind];
		if (had_gap && live->asked.wanted && json_is_true(json_object_get(entry, "wanted")))
			live->counted.unobserved.ns[seen.same_boot ? EF_GAP_DOWN : EF_GAP_REBOOT] +=
			    (uint64_t)gap;
	}
}

void ef_seen_read(struct ef_service *service, bool had_gap) {
	_cleanup_json_ json_t *doc = read_document(service);

	if (doc)
		take(service, doc, had_gap);
}

static json_t *features_json(const struct ef_service *service) {
	json_t *features = json_object();

	for (size_t i = 0; i < service->n; i++) {
		const struct ef_live *live = &service->lives[i];

		json_object_set_new(features, ef_live_name(live),
				    json_pack("{s:b, s:o}", "wanted", live->asked.wanted, "ns",
					      ef_unobserved_json(&live->counted.unobserved)));
	}
	return features;
}

void ef_seen_write(struct ef_service *service) {
	_cleanup_json_ json_t *doc = NULL;
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int err;

	if (!service->bundle)
		return;
	for (size_t i = 0; i < service->n; i++)
		ef_live_note(&service->lives[i]);
	doc =
	    json_pack("{s:s, s:s, s:I, s:I, s:o}", "schema", SCHEMA, "boot_id", service->boot_id,
		      "boottime_ns", (json_int_t)ef_clock_ns(CLOCK_BOOTTIME), "time_unix_ns",
		      (json_int_t)ef_clock_ns(CLOCK_REALTIME), "features", features_json(service));
	text = ef_must(ef_json_canonical(doc, &size));
	err = ef_write_atomic(service->options.log, NAME, text, size, 0640);
	if (err && !service->seen_failing)
		ef_warn("cannot write %s/" NAME
			": %s; what the next loader says of the time before is too much",
			service->options.log, strerror(-err));
	service->seen_failing = err != 0;
}
