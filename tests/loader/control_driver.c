/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * What the loader makes of the files that control it, without a kernel and without a loader:
 *   orders ETC RUN FEATURE...     each order with its path; those that are unknown; what keeps FEATURE off, and
 *                                 its code. The kernel is debian-6.1. FEATURE "-": no bundle
 *   same ETC RUN ETC RUN          are the orders of two places equal
 *   desired PATH DIGEST           the result, each wish, the error
 *   lease PATH DIGEST BOOT NOW    there, unusable, expired, owner, as the status has it; the reason
 *   leases PATH PATH              are they equal
 *   policy PATH FEATURE           the result, the host's limits, the feature's beside a contract's, the error
 *   policies PATH PATH            are they equal
 *   sink JSON                     how events are written, or what is wrong
 *   watch FILE... -- COMMAND      "seen" when a change was, once COMMAND ran; a FILE that ends in / is a folder
 */
/* clang-format on */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/util.h"
#include "control/desired.h"
#include "control/lease.h"
#include "control/orders.h"
#include "control/policy.h"
#include "control/watch.h"

#include "driver.h"

static const struct ef_kernel kernel = {.family = "6.1", .distro_family = "debian-6.1"};

static void do_orders(int n, char **word) {
	struct ef_feature features[8] = {0};
	struct ef_bundle bundle = {.features = features};
	struct ef_orders orders;
	bool bare = n > 2 && !strcmp(word[2], "-");
	_cleanup_json_ json_t *known = NULL, *unknown = NULL;

	for (int i = 2; i < n && i < 10; i++)
		features[bundle.n_features++].name = word[i];
	ef_orders_read(word[0], word[1], &kernel, bare ? NULL : &bundle, &orders);
	known = ef_orders_json(&orders);
	unknown = ef_orders_unknown_json(&orders);
	printf("{\"known\": ");
	json_dumpf(known, stdout, JSON_ENSURE_ASCII);
	printf(", \"unknown\": ");
	json_dumpf(unknown, stdout, JSON_ENSURE_ASCII);
	printf(", \"off\": [");
	for (int i = 2; i < n; i++) {
		const struct ef_order *order = ef_orders_feature(&orders, word[i]);

		printf("%s[\"%s\", \"%s\", \"%s\"]", i > 2 ? ", " : "",
		       order ? ef_order_scope(order) : "", order ? ef_order_code(order) : "",
		       order ? ef_order_path(order) : "");
	}
	printf("], \"all\": %s}\n", ef_orders_all(&orders) ? "true" : "false");
	ef_orders_free(&orders);
	if (orders.n || orders.n_unknown || orders.orders)
		abort();
}

static void do_same(int n, char **word) {
	struct ef_orders one, two;

	(void)n;
	ef_orders_read(word[0], word[1], &kernel, NULL, &one);
	ef_orders_read(word[2], word[3], &kernel, NULL, &two);
	printf("%d\n", ef_orders_equal(&one, &two));
	ef_orders_free(&one);
	ef_orders_free(&two);
}

static void do_desired(int n, char **word) {
	struct ef_desired desired;
	char error[512] = "";
	enum ef_desired_result result;

	(void)n;
	memset(&desired, 0xa5, sizeof(desired));
	result = ef_desired_read(word[0], word[1], &desired, error, sizeof(error));
	printf("%d", result);
	for (size_t i = 0; i < desired.n; i++) {
		const struct ef_wish *wish = ef_desired_find(&desired, desired.wishes[i].feature);

		printf(" %s=%d/%" PRIu32, wish->feature, wish->enabled, wish->sample_every);
	}
	printf(" %s%s\n", ef_desired_find(&desired, "none") ? "none" : "", error);
	ef_desired_free(&desired);
	if (desired.n || desired.wishes)
		abort();
}

static void do_lease(int n, char **word) {
	int64_t now = strtoll(word[3], NULL, 10);
	struct ef_lease lease;
	struct ef_reason why;
	_cleanup_json_ json_t *told = NULL;

	(void)n;
	memset(&lease, 0xa5, sizeof(lease));
	ef_lease_read(word[0], word[1], word[2], &lease);
	told = ef_lease_json(&lease, now);
	ef_lease_reason(&lease, &why);
	printf("%d %d %d %" PRId64 "|", lease.there, lease.unusable, ef_lease_expired(&lease, now),
	       lease.uid);
	json_dumpf(told, stdout, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
	printf("|%s %s\n", ef_reason_code(&why), ef_reason_text(&why));
}

static void do_leases(int n, char **word) {
	struct ef_lease one, two;
	char digest[65];

	(void)n;
	memset(digest, 'a', 64);
	digest[64] = 0;
	ef_lease_read(word[0], digest, "boot", &one);
	ef_lease_read(word[1], digest, "boot", &two);
	printf("%d\n", ef_lease_equal(&one, &two));
}

static void print_amounts(const struct ef_amounts *amounts) {
	for (int i = 0; i < EF_N_BUDGETS; i++)
		printf(" %" PRId64, amounts->of[i]);
	putchar('|');
}

static void do_policy(int n, char **word) {
	static const struct ef_amounts contract = {.of = {500000, 10, -1, 5000, -1, 20000}};
	struct ef_policy policy;
	struct ef_amounts limits;
	char error[512] = "";

	(void)n;
	memset(&policy, 0xa5, sizeof(policy));
	printf("%d|", ef_policy_read(word[0], &policy, error, sizeof(error)));
	print_amounts(&policy.host);
	limits = ef_policy_limits(&policy, word[1], &contract);
	print_amounts(&limits);
	printf("%d %s|%s\n", policy.sink.kind, policy.sink.path, error);
	ef_policy_free(&policy);
}

static void do_policies(int n, char **word) {
	struct ef_policy one, two;
	char error[512];

	(void)n;
	ef_policy_read(word[0], &one, error, sizeof(error));
	ef_policy_read(word[1], &two, error, sizeof(error));
	printf("%d\n", ef_policy_equal(&one, &two));
	ef_policy_free(&one);
	ef_policy_free(&two);
}

static void do_sink(int n, char **word) {
	char why[256] = "";
	_cleanup_json_ json_t *doc = json_loads(word[0], JSON_DECODE_ANY, NULL);
	struct ef_sink_policy policy;
	int err;

	(void)n;
	memset(&policy, 0xa5, sizeof(policy));
	err = ef_sink_policy_read(doc, &policy, why, sizeof(why));
	printf("%d %d [%s] [%s] %" PRIu64 " %u %s\n", err, policy.kind, policy.path, policy.cursor,
	       policy.file_bytes, policy.files, why);
}

static void do_watch(int n, char **word) {
	const char *folders[8], *files[8];
	size_t n_folders = 0, n_files = 0;
	struct pollfd watched = {.events = POLLIN};
	int i = 0;

	for (; i < n && strcmp(word[i], "--"); i++) {
		size_t length = strlen(word[i]);

		if (word[i][length - 1] == '/') {
			word[i][length - 1] = 0;
			folders[n_folders++] = word[i];
		} else
			files[n_files++] = word[i];
	}
	watched.fd = ef_watch_open(folders, n_folders, files, n_files);
	if (watched.fd < 0) {
		printf("%s\n", strerrorname_np(-watched.fd));
		return;
	}
	if (system(word[i + 1]))
		abort();
	puts(poll(&watched, 1, 0) > 0 ? "seen" : "not seen");
	close(watched.fd);
}

static const struct command commands[] = {
    {"orders", 2, do_orders},	  {"same", 4, do_same},	    {"desired", 2, do_desired},
    {"lease", 4, do_lease},	  {"leases", 2, do_leases}, {"policy", 2, do_policy},
    {"policies", 2, do_policies}, {"sink", 1, do_sink},	    {"watch", 3, do_watch},
};

int main(int argc, char **argv) {
	return run_command(commands, EF_ARRAY_SIZE(commands), argc, argv);
}
