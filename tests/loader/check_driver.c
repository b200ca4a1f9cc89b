/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The command `check`, of which the kernel's part is made up here: nothing is loaded. LOADS and
 * ATTACHES are the ends of one load and one attachment after the other (0 or an errno, by comma; 0
 * when there are no more), LOG what the verifier says where it was asked for its statistics.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/commands.h"

static char *bufs[8];
static int n_bufs;

static int next_end(const char *name, int *at) {
	const char *ends = getenv(name);

	for (int i = 0; ends && i < *at; i++) {
		ends = strchr(ends, ',');
		ends = ends ? ends + 1 : NULL;
	}
	++*at;
	return ends ? atoi(ends) : 0;
}

int bpf_program__set_log_buf(struct bpf_program *program, char *buf, size_t size) {
	(void)program, (void)size;
	bufs[n_bufs++] = buf;
	return 0;
}

int bpf_program__set_log_level(struct bpf_program *program, __u32 level) {
	(void)program;
	fprintf(stderr, "level %u\n", level);
	return 0;
}

int bpf_object__load(struct bpf_object *object) {
	static int at;
	int err = next_end("LOADS", &at);

	(void)object;
	fprintf(stderr, "load %d\n", err);
	for (int i = 0; !err && i < n_bufs; i++)
		strcpy(bufs[i], getenv("LOG"));
	n_bufs = 0;
	errno = err;
	return -err;
}

struct bpf_link *bpf_program__attach(const struct bpf_program *program) {
	static int at;

	errno = next_end("ATTACHES", &at);
	fprintf(stderr, "attach %s %d\n", bpf_program__name(program), errno);
	return errno ? NULL : (struct bpf_link *)bufs;
}

int bpf_link__destroy(struct bpf_link *link) {
	if (link)
		fprintf(stderr, "detach\n");
	return 0;
}

int bpf_obj_get_info_by_fd(int fd, void *info, __u32 *size) {
	struct bpf_prog_info *program = info;

	(void)fd, (void)size;
	program->id = 7;
	program->tag[0] = 0xab;
	program->verified_insns = 10;
	return 0;
}

int main(int argc, char **argv) {
	return cmd_check(argc - 1, argv + 1) << 4; /* a sanitizer ends with 1 */
}
