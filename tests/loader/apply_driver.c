/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * A feature that was about to be attached, after shortages, and is put to rest:
 *   rest STATE CODE               is that a change, and what is left
 *   twice STATE CODE STATE CODE   whether the second time is a change
 */
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "run/apply.h"
#include "run/state.h"

static struct ef_feature files = {.name = (char *)"f"};
static struct ef_service service;

static int rest(struct ef_live *live, char **word) {
	struct ef_reason why;

	ef_reason_set(&why, word[1], "because");
	return ef_apply_off(&service, live, (enum ef_state)atoi(word[0]), &why);
}

int main(int argc, char **argv) {
	struct ef_live live = {.files = &files};

	if (argc < 4)
		return 2;
	live.decided.state = EF_STATE_DISABLED;
	live.decided.due = true;
	live.decided.retry_ns = 5;
	live.decided.retries = 3;
	printf("%d", rest(&live, argv + 2));
	if (argc == 6)
		printf(" %d", rest(&live, argv + 4));
	printf(" %d %d %d %u %s\n", live.decided.state, live.decided.due,
	       (int)live.decided.retry_ns, live.decided.retries,
	       ef_reason_code(&live.decided.reason));
	return 0;
}
