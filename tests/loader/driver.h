/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a driver's main() does: its first word is a command, the others are given to it. */
#ifndef DRIVER_H
#define DRIVER_H

#include <stddef.h>
#include <string.h>

struct command {
	const char *name;
	int words; /* at least */
	void (*run)(int n, char **word);
};

/* The exit status: 2 where no command has that name and is content with so few words. */
static inline int run_command(const struct command *commands, size_t n, int argc, char **argv) {
	for (size_t i = 0; argc > 1 && i < n; i++)
		if (!strcmp(argv[1], commands[i].name) && argc - 2 >= commands[i].words) {
			commands[i].run(argc - 2, argv + 2);
			return 0;
		}
	return 2;
}

#endif
