/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bpflog.h"
#include "commands.h"
#include "json.h"
#include "log.h"
#include "util.h"

/* The program's entry, or NULL: not ours, or gone meanwhile. *err: it could not be asked. */
static json_t *ours(__u32 id, int *err) {
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);
	char tag[2 * sizeof(info.tag) + 1] = "";

	*err = 0;
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size)) {
		*err = errno == ENOENT ? 0 : -errno;
		return NULL;
	}
	if (strncmp(info.name, "ef_", 3))
		return NULL;
	for (size_t i = 0; i < sizeof(info.tag); i++)
		snprintf(tag + 2 * i, 3, "%02x", info.tag[i]);
	return json_pack("{s:I, s:s, s:s}", "id", (json_int_t)info.id, "name", info.name, "tag",
			 tag);
}

/* Walk the kernel's programs. 0 or -errno: then the list is not complete. */
static int walk(json_t *programs) {
	__u32 id = 0;

	while (!bpf_prog_get_next_id(id, &id)) {
		int err;
		json_t *entry = ours(id, &err);

		if (err)
			return err;
		if (entry)
			json_array_append_new(programs, entry);
	}
	return errno == ENOENT ? 0 : -errno;
}

int cmd_left(int argc, char **argv) {
	_cleanup_json_ json_t *answer = NULL;
	json_t *programs = json_array();
	int err;

	answer = json_pack("{s:o}", "programs", programs);
	if (argc != 1) {
		ef_err("usage: ebpf-loader %s", argv[0]);
		return EF_EXIT_USAGE;
	}
	ef_bpflog_start();
	err = walk(programs);
	if (err) {
		ef_err("the kernel's programs cannot be listed: %s; run it as root",
		       strerror(-err));
		return EF_EXIT_FAILED;
	}
	if (ef_json_print(stdout, answer))
		return EF_EXIT_FAILED;
	return json_array_size(programs) ? EF_EXIT_LEFT : EF_EXIT_OK;
}
