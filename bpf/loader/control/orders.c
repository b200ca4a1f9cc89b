/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "control/orders.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"

static char *join(const char *dir, const char *name) {
	return ef_must(ef_path_join(dir, name));
}

static void add_order(struct ef_orders *orders, const char *scope, char *path) {
	orders->orders =
	    ef_must(realloc(orders->orders, (orders->n + 1) * sizeof(*orders->orders)));
	orders->orders[orders->n].scope = ef_must(strdup(scope));
	orders->orders[orders->n++].path = path;
}

static void add_unknown(struct ef_orders *orders, char *path) {
	orders->unknown =
	    ef_must(realloc(orders->unknown, (orders->n_unknown + 1) * sizeof(*orders->unknown)));
	orders->unknown[orders->n_unknown++] = path;
}

static bool is_feature(const struct ef_bundle *bundle, const char *name) {
	return bundle ? ef_bundle_has(bundle, name) : *name != 0;
}

/* Whether it may name a distribution; the dash before the version is name[size]. */
static bool is_distro(const char *name, size_t size) {
	for (size_t i = 0; i < size; i++) {
		bool good = name[i] == '-'
				? i && name[i + 1] != '-'
				: isalnum((unsigned char)name[i]) || strchr("._", name[i]);

		if (!good)
			return false;
	}
	return size;
}

/* MAJOR.MINOR or DISTRO-MAJOR.MINOR, of whatever host; all else is a typo, and told. */
static bool is_family(const char *name) {
	static const char digits[] = "0123456789";
	const char *dash = strrchr(name, '-');
	const char *version = dash ? dash + 1 : name;
	size_t major = strspn(version, digits);
	size_t minor = version[major] == '.' ? strspn(version + major + 1, digits) : 0;

	return major && minor && !version[major + 1 + minor] &&
	       (!dash || is_distro(name, (size_t)(dash - name)));
}

enum verdict { HOLDS, ELSEWHERE, UNKNOWN };

static enum verdict judge(const char *name, const struct ef_kernel *kernel,
			  const struct ef_bundle *bundle) {
	if (!strcmp(name, "global"))
		return HOLDS;
	if (!strncmp(name, "feature.", 8))
		return is_feature(bundle, name + 8) ? HOLDS : UNKNOWN;
	if (strncmp(name, "family.", 7))
		return UNKNOWN;
	if (ef_kernel_is_of(kernel, name + 7))
		return HOLDS;
	return is_family(name + 7) ? ELSEWHERE : UNKNOWN;
}

static void take_entry(struct ef_orders *orders, const char *dir, const char *name,
		       const struct ef_kernel *kernel, const struct ef_bundle *bundle) {
	enum verdict verdict;

	if (name[0] == '.')
		return;
	verdict = judge(name, kernel, bundle);
	if (verdict == HOLDS)
		add_order(orders, name, join(dir, name));
	else if (verdict == UNKNOWN)
		add_unknown(orders, join(dir, name));
}

/* The default is closed: what we cannot read may say "global". */
static void read_folder(struct ef_orders *orders, const char *dir, const struct ef_kernel *kernel,
			const struct ef_bundle *bundle) {
	_cleanup_closedir_ DIR *folder = opendir(dir);
	struct dirent *entry;

	if (!folder) {
		if (errno != ENOENT)
			add_order(orders, "global", ef_must(strdup(dir)));
		return;
	}
	errno = 0;
	while ((entry = readdir(folder))) {
		take_entry(orders, dir, entry->d_name, kernel, bundle);
		errno = 0;
	}
	if (errno)
		add_order(orders, "global", ef_must(strdup(dir)));
}

static int by_path(const void *a, const void *b) {
	return strcmp(((const struct ef_order *)a)->path, ((const struct ef_order *)b)->path);
}

static int by_string(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void ef_orders_read(const char *etc, const char *run, const struct ef_kernel *kernel,
		    const struct ef_bundle *bundle, struct ef_orders *orders) {
	_cleanup_free_ char *persistent = join(etc, "kill.d"), *volatile_ = join(run, "kill.d");

	memset(orders, 0, sizeof(*orders));
	read_folder(orders, persistent, kernel, bundle);
	read_folder(orders, volatile_, kernel, bundle);
	if (orders->n)
		qsort(orders->orders, orders->n, sizeof(*orders->orders), by_path);
	if (orders->n_unknown)
		qsort(orders->unknown, orders->n_unknown, sizeof(*orders->unknown), by_string);
}

void ef_orders_free(struct ef_orders *orders) {
	for (size_t i = 0; i < orders->n; i++) {
		free(orders->orders[i].scope);
		free(orders->orders[i].path);
	}
	for (size_t i = 0; i < orders->n_unknown; i++)
		free(orders->unknown[i]);
	free(orders->orders);
	free(orders->unknown);
	memset(orders, 0, sizeof(*orders));
}

const struct ef_order *ef_orders_all(const struct ef_orders *orders) {
	const struct ef_order *family = NULL;

	for (size_t i = 0; i < orders->n; i++) {
		if (!strcmp(orders->orders[i].scope, "global"))
			return &orders->orders[i];
		if (!strncmp(orders->orders[i].scope, "family.", 7))
			family = &orders->orders[i];
	}
	return family;
}

const struct ef_order *ef_orders_feature(const struct ef_orders *orders, const char *feature) {
	const struct ef_order *all = ef_orders_all(orders);

	for (size_t i = 0; !all && i < orders->n; i++)
		if (!strcmp(orders->orders[i].scope + 8, feature))
			return &orders->orders[i];
	return all;
}

const char *ef_order_code(const struct ef_order *order) {
	if (!strcmp(order->scope, "global"))
		return "EF_KILLED_GLOBAL";
	return strncmp(order->scope, "family.", 7) ? "EF_KILLED_FEATURE" : "EF_KILLED_FAMILY";
}

bool ef_orders_equal(const struct ef_orders *a, const struct ef_orders *b) {
	if (a->n != b->n || a->n_unknown != b->n_unknown)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->orders[i].path, b->orders[i].path))
			return false;
	for (size_t i = 0; i < a->n_unknown; i++)
		if (strcmp(a->unknown[i], b->unknown[i]))
			return false;
	return true;
}

json_t *ef_orders_json(const struct ef_orders *orders) {
	json_t *list = json_array();

	for (size_t i = 0; i < orders->n; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:s}", "scope", orders->orders[i].scope,
						"path", orders->orders[i].path));
	return list;
}

/* A file name may be no UTF-8; JSON must be. */
static json_t *path_json(const char *path) {
	json_t *text = json_string(path);
	_cleanup_free_ char *plain = NULL;

	if (text)
		return text;
	plain = ef_must(strdup(path));
	for (char *c = plain; *c; c++)
		if (*c & 0x80)
			*c = '?';
	return json_string(plain);
}

json_t *ef_orders_unknown_json(const struct ef_orders *orders) {
	json_t *list = json_array();

	for (size_t i = 0; i < orders->n_unknown; i++)
		json_array_append_new(list, path_json(orders->unknown[i]));
	return list;
}

const char *ef_order_scope(const struct ef_order *order) {
	return order->scope;
}

const char *ef_order_path(const struct ef_order *order) {
	return order->path;
}
