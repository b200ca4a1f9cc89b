/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cmd/commands.h"

struct command {
	const char *name;
	const char *usage;
	int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {"verify", EF_USAGE_VERIFY, cmd_verify},
    {"inspect", EF_USAGE_INSPECT, cmd_inspect},
    {"probe", "", cmd_probe},
    {"check", EF_USAGE_CHECK, cmd_check},
    {"run", EF_USAGE_RUN, cmd_run},
    {"status", EF_USAGE_STATUS, cmd_status},
    {"left", EF_USAGE_LEFT, cmd_left},
    {"version", "", cmd_version},
};

static void print_usage(FILE *stream) {
	for (size_t i = 0; i < EF_ARRAY_SIZE(commands); i++)
		fprintf(stream, "%s ebpf-loader %s%s%s\n",
			i ? "      " : "usage:", commands[i].name, *commands[i].usage ? " " : "",
			commands[i].usage);
	fputs("JSON on stdout, messages on stderr. Exit: 0 good, 1 failed, 2 usage, 3 refused,\n"
	      "4 programs of ours are left in the kernel.\n",
	      stream);
}

int main(int argc, char **argv) {
	if (argc < 2) {
		print_usage(stderr);
		return EF_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		print_usage(stdout);
		return EF_EXIT_OK;
	}
	for (size_t i = 0; i < EF_ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	ef_err("%s: no such command; `ebpf-loader --help` lists them", argv[1]);
	return EF_EXIT_USAGE;
}
