/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/util.h"
#include "cmd/commands.h"
#include "feature/account.h"
#include "kernel/kernel.h"
#include "kernel/process.h"

#define MAX_BYTES (16 * 1024 * 1024)

static int read_status(const char *path, uint8_t **data, size_t *size) {
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > MAX_BYTES)
		return -EINVAL;
	*size = (size_t)st.st_size;
	return ef_read_whole(fd, *size, data);
}

/* The very process that wrote it, not another one with its number. */
static bool is_alive(const json_t *status) {
	json_int_t pid = json_integer_value(json_object_get(status, "pid"));
	json_int_t started = json_integer_value(json_object_get(status, "started_boottime_ns"));
	const char *boot = json_string_value(json_object_get(status, "boot_id"));
	char now[40];

	ef_boot_id(now, sizeof(now));
	return pid > 0 && boot && !strcmp(boot, now) && ef_process_start_ns((int)pid) == started;
}

static int parse_options(int argc, char **argv, const char **dir) {
	static const struct option known[] = {{"state", required_argument, NULL, 's'}, {0}};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option != 's')
			return -1;
		*dir = optarg;
	}
	return optind == argc ? 0 : -1;
}

static int show(const char *path) {
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_json_ json_t *status = NULL;
	char why[256];
	size_t size = 0;
	int err = read_status(path, &data, &size);

	if (err) {
		ef_err("%s: %s; is the service running?", path, strerror(-err));
		return EF_EXIT_FAILED;
	}
	status = ef_json_parse(data, size, why, sizeof(why));
	if (!status) {
		ef_err("%s: %s; restart the service", path, why);
		return EF_EXIT_FAILED;
	}
	if (ef_json_print(stdout, status))
		return EF_EXIT_FAILED;
	if (is_alive(status))
		return EF_EXIT_OK;
	ef_err("%s: the process that wrote it is gone; start the service", path);
	return EF_EXIT_FAILED;
}

int cmd_status(int argc, char **argv) {
	const char *dir = EF_DEFAULT_STATE;
	_cleanup_free_ char *path = NULL;

	if (parse_options(argc, argv, &dir)) {
		ef_err("usage: ebpf-loader status " EF_USAGE_STATUS);
		return EF_EXIT_USAGE;
	}
	path = ef_path_join(dir, "status.json");
	return path ? show(path) : EF_EXIT_FAILED;
}
