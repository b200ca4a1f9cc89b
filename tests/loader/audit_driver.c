/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * The loader's audit and its word to systemd, without a kernel and without a loader:
 *   audit DIR STEP...   host, feature: a record; bundle, none: with a bundle from here on, or without;
 *                       stdin: descriptor 0 is closed; !COMMAND is run. Then what is lost; the log is on stderr
 *   notify TEXT         0 or the error
 *   watchdog            microseconds
 */
/* clang-format on */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "tell/audit.h"
#include "tell/notify.h"

static void take_step(struct ef_audit *audit, const char *step) {
	static const struct ef_who file = {.source = "kill file", .path = "/a", .uid = 7};
	static const struct ef_who nobody = {.source = "loader", .uid = -1};
	struct ef_reason why;

	ef_reason_set(&why, "EF_OK", "all is well");
	if (!strcmp(step, "host"))
		ef_audit_host(audit, "start", &why, &nobody);
	else if (!strcmp(step, "feature"))
		ef_audit_feature(audit, "attach", "f",
				 json_pack("{s:s, s:[i], s:[i, i]}", "variant", "full", "programs",
					   5, "links", 6, 7),
				 &why, &file);
	else if (!strcmp(step, "bundle"))
		ef_audit_bundle(audit, "abc");
	else if (!strcmp(step, "none"))
		ef_audit_bundle(audit, NULL);
	else if (!strcmp(step, "stdin"))
		close(STDIN_FILENO);
	else if (system(step + 1))
		abort();
}

int main(int argc, char **argv) {
	if (argc > 2 && !strcmp(argv[1], "audit")) {
		struct ef_audit *audit = ef_audit_new(argv[2], "boot");

		for (int i = 3; i < argc; i++)
			take_step(audit, argv[i]);
		take_step(NULL, "host");
		take_step(NULL, "feature");
		printf("%" PRIu64 " %" PRIu64 "\n", ef_audit_lost(audit), ef_audit_lost(NULL));
		ef_audit_free(audit);
		ef_audit_free(NULL);
	} else if (argc == 3 && !strcmp(argv[1], "notify")) {
		int err = ef_notify(argv[2]);

		puts(err ? strerrorname_np(-err) : "0");
	} else if (argc == 2 && !strcmp(argv[1], "watchdog")) {
		printf("%" PRIu64 "\n", ef_notify_watchdog_us());
	} else
		return 2;
	return 0;
}
