/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/paths.h"
#include "cmd/commands.h"
#include "run/service.h"

#define MAX_INTERVAL 3600

static int parse_interval(const char *text, unsigned *interval) {
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < 1 || value > MAX_INTERVAL) {
		ef_err("--interval %s: must be a number of seconds from 1 to %d", text,
		       MAX_INTERVAL);
		return -1;
	}
	*interval = (unsigned)value;
	return 0;
}

/* Where the value of an option goes; NULL: not a path. */
static const char **place_of(struct ef_options *options, int option) {
	switch (option) {
	case 'b':
		return &options->bundle;
	case 'e':
		return &options->etc;
	case 'r':
		return &options->run;
	case 's':
		return &options->state;
	case 'l':
		return &options->log;
	case 't':
		return &options->trust;
	case 'v':
		return &options->revoked;
	default:
		return NULL;
	}
}

static int parse_options(int argc, char **argv, struct ef_options *options) {
	static const struct option known[] = {
	    {"bundle", required_argument, NULL, 'b'},  {"etc", required_argument, NULL, 'e'},
	    {"run", required_argument, NULL, 'r'},     {"state", required_argument, NULL, 's'},
	    {"log", required_argument, NULL, 'l'},     {"trust", required_argument, NULL, 't'},
	    {"revoked", required_argument, NULL, 'v'}, {"interval", required_argument, NULL, 'i'},
	    {"handover", no_argument, NULL, 'h'},      {0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		const char **place = place_of(options, option);

		if (place)
			*place = optarg;
		else if (option == 'h')
			options->handover = true;
		else if (option != 'i' || parse_interval(optarg, &options->interval))
			return -1;
	}
	return optind == argc && options->bundle ? 0 : -1;
}

int cmd_run(int argc, char **argv) {
	struct ef_options options = {
	    .etc = EF_DEFAULT_ETC,
	    .run = EF_DEFAULT_RUN,
	    .state = EF_DEFAULT_STATE,
	    .log = EF_DEFAULT_LOG,
	    .interval = 5,
	};

	if (parse_options(argc, argv, &options)) {
		ef_err("usage: ebpf-loader run " EF_USAGE_RUN);
		return EF_EXIT_USAGE;
	}
	return ef_service_run(&options);
}
