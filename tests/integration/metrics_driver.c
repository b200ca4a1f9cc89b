/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * metrics.prom of a made-up snapshot, by the loader's own renderer; no root, no kernel
 * and no bundle. The argument is the number of its features.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/must.h"
#include "tell/metrics.h"

int main(int argc, char **argv) {
	static struct ef_inputs inputs;
	static struct ef_kernel kernel;
	struct ef_snapshot snapshot = {
	    .orders = &inputs.orders, .policy = &inputs.policy, .lease = &inputs.lease, .standing = &inputs.standing,
	    .desired_error = "", .policy_error = "", .kernel = &kernel, .cpu_ns = -1, .rss_bytes = -1};
	size_t size;
	char *text;

	snapshot.n = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	snapshot.features = ef_must(calloc(snapshot.n + 1, sizeof(*snapshot.features)));
	for (size_t i = 0; i < snapshot.n; i++) {
		snapshot.features[i].name = i ? "other" : "one";
		snapshot.features[i].profile = "disabled";
	}
	text = ef_metrics_text(&snapshot, &size);
	fwrite(text, 1, size, stdout);
	free(text);
	free(snapshot.features);
	return 0;
}
