/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdio.h>

#include "base/json.h"
#include "base/log.h"
#include "bundle/bundle.h"
#include "cmd/commands.h"

int cmd_version(int argc, char **argv) {
	_cleanup_json_ json_t *answer = NULL;

	if (argc != 1) {
		ef_err("usage: ebpf-loader %s", argv[0]);
		return EF_EXIT_USAGE;
	}
	answer = json_pack("{s:s, s:s, s:s}", "loader_version", EF_LOADER_VERSION, "libbpf",
			   EF_LIBBPF_VERSION, "arch", ef_bundle_machine());
	return ef_json_print(stdout, answer) ? EF_EXIT_FAILED : EF_EXIT_OK;
}
