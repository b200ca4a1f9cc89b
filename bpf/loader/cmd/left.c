/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "cmd/commands.h"
#include "kernel/bpflog.h"

#define TAG_HEX (2 * BPF_TAG_SIZE)
#define MAX_LINES 4096 /* of a `programs` file; some eight a feature are many */

/* A program whose name does not tell that it is ours: others wrote it, and we loaded it. */
struct known {
	char tag[TAG_HEX + 1];
	char name[BPF_OBJ_NAME_LEN]; /* as the kernel cuts it */
};

struct also {
	size_t n;
	struct known known[MAX_LINES];
};

/* PROG_ID TAG FEATURE NAME. Ids are not asked for: another loader's life has other ids. */
static int parse_line(const char *line, struct known *known) {
	char tag[TAG_HEX + 2], name[256], end;
	unsigned id;

	if (sscanf(line, "%u %17s %*s %255s%c", &id, tag, name, &end) != 4 || end != '\n')
		return -1;
	if (strlen(tag) != TAG_HEX || strspn(tag, "0123456789abcdef") != TAG_HEX)
		return -1;
	memcpy(known->tag, tag, sizeof(known->tag));
	snprintf(known->name, sizeof(known->name), "%.*s", BPF_OBJ_NAME_LEN - 1, name);
	return 0;
}

static int parse_file(FILE *file, const char *path, struct also *also) {
	char line[512];

	while (fgets(line, sizeof(line), file)) {
		if (also->n == MAX_LINES || parse_line(line, &also->known[also->n])) {
			ef_err("%s:%zu: must be a line PROG_ID TAG FEATURE NAME, at most %d of "
			       "them; give a copy of the loader's file `programs`",
			       path, also->n + 1, MAX_LINES);
			return -1;
		}
		also->n++;
	}
	if (!ferror(file))
		return 0;
	ef_err("cannot read %s: %s; give a copy of the loader's file `programs`", path,
	       strerror(errno));
	return -1;
}

static int read_also(const char *path, struct also *also) {
	_cleanup_fclose_ FILE *file = fopen(path, "re");

	if (file)
		return parse_file(file, path, also);
	ef_err("cannot open %s: %s; give a copy of the loader's file `programs`", path,
	       strerror(errno));
	return -1;
}

static bool is_ours(const char *name, const char *tag, const struct also *also) {
	if (!strncmp(name, "ef_", 3))
		return true;
	for (size_t i = 0; i < also->n; i++)
		if (!strcmp(also->known[i].tag, tag) && !strcmp(also->known[i].name, name))
			return true;
	return false;
}

/* The program's entry, or NULL: not ours, or gone meanwhile. *err: it could not be asked. */
static json_t *ours(__u32 id, const struct also *also, int *err) {
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);
	char tag[TAG_HEX + 1] = "";

	*err = 0;
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size)) {
		*err = errno == ENOENT ? 0 : -errno;
		return NULL;
	}
	for (size_t i = 0; i < sizeof(info.tag); i++)
		snprintf(tag + 2 * i, 3, "%02x", info.tag[i]);
	if (!is_ours(info.name, tag, also))
		return NULL;
	return json_pack("{s:I, s:s, s:s}", "id", (json_int_t)info.id, "name", info.name, "tag",
			 tag);
}

/* Add what is ours of the kernel's programs. 0 or -errno: then the list is not complete. */
static int list_programs(const struct also *also, json_t *programs) {
	__u32 id = 0;

	while (!bpf_prog_get_next_id(id, &id)) {
		int err;
		json_t *entry = ours(id, also, &err);

		if (err)
			return err;
		if (entry)
			json_array_append_new(programs, entry);
	}
	return errno == ENOENT ? 0 : -errno;
}

/* Print what is left. Returns an enum ef_exit. */
static int print_programs(const struct also *also) {
	_cleanup_json_ json_t *answer = NULL;
	json_t *programs = json_array();
	int err;

	answer = json_pack("{s:o}", "programs", programs);
	ef_bpflog_start();
	err = list_programs(also, programs);
	if (err) {
		ef_err("the kernel's programs cannot be listed: %s; run it as root",
		       strerror(-err));
		return EF_EXIT_FAILED;
	}
	if (ef_json_print(stdout, answer))
		return EF_EXIT_FAILED;
	return json_array_size(programs) ? EF_EXIT_LEFT : EF_EXIT_OK;
}

int cmd_left(int argc, char **argv) {
	_cleanup_free_ struct also *also = ef_must(calloc(1, sizeof(*also)));

	if (argc == 3 && !strcmp(argv[1], "--also"))
		return read_also(argv[2], also) ? EF_EXIT_FAILED : print_programs(also);
	if (argc == 1)
		return print_programs(also);
	ef_err("usage: ebpf-loader left " EF_USAGE_LEFT);
	return EF_EXIT_USAGE;
}
