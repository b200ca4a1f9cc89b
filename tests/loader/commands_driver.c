/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * The commands `left` and `probe` on answers of a kernel that are made up here:
 *   left PROGRAM... -- left OPTION...   ID:NAME:TAG each; "gone:ID", "denied:ID", "unlisted" as they say; the
 *                                       command's own output, and its exit
 *   probe STATS                         0: the kernel counts runs, else the error
 */
/* clang-format on */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/commands.h"

enum { THERE, GONE, DENIED };

static struct {
	__u32 id;
	int how;
	char name[BPF_OBJ_NAME_LEN];
	__u8 tag[BPF_TAG_SIZE];
} programs[64];
static int n_programs, stats_error;
static bool unlisted;

int bpf_prog_get_next_id(__u32 id, __u32 *next) {
	for (int i = 0; i < n_programs; i++)
		if (programs[i].id > id) {
			*next = programs[i].id;
			return 0;
		}
	errno = unlisted ? EPERM : ENOENT;
	return -errno;
}

/* A descriptor tells which: its number less a thousand. */
int bpf_prog_get_fd_by_id(__u32 id) {
	for (int i = 0; i < n_programs; i++)
		if (programs[i].id == id) {
			if (programs[i].how == THERE)
				return dup2(STDERR_FILENO, 1000 + i);
			errno = programs[i].how == GONE ? ENOENT : EPERM;
			return -1;
		}
	abort();
}

int bpf_obj_get_info_by_fd(int fd, void *info, __u32 *size) {
	struct bpf_prog_info *told = info;

	(void)size;
	told->id = programs[fd - 1000].id;
	memcpy(told->name, programs[fd - 1000].name, sizeof(told->name));
	memcpy(told->tag, programs[fd - 1000].tag, sizeof(told->tag));
	return 0;
}

int bpf_enable_stats(enum bpf_stats_type type) {
	(void)type;
	errno = stats_error;
	return stats_error ? -1 : dup(STDERR_FILENO);
}

int bpf_map_create(enum bpf_map_type type, const char *name, __u32 key_size, __u32 value_size,
		   __u32 max_entries, const struct bpf_map_create_opts *opts) {
	(void)type, (void)name, (void)key_size, (void)value_size, (void)max_entries, (void)opts;
	return dup(STDERR_FILENO);
}

int bpf_prog_load(enum bpf_prog_type type, const char *name, const char *licence,
		  const struct bpf_insn *insns, size_t n, const struct bpf_prog_load_opts *opts) {
	(void)type, (void)name, (void)licence, (void)insns, (void)n, (void)opts;
	return dup(STDERR_FILENO);
}

int libbpf_find_vmlinux_btf_id(const char *name, enum bpf_attach_type type) {
	(void)name, (void)type;
	return 5;
}

/* Odd ones are there, even ones not. */
int libbpf_probe_bpf_prog_type(enum bpf_prog_type type, const void *opts) {
	(void)opts;
	return type % 2;
}

int libbpf_probe_bpf_map_type(enum bpf_map_type type, const void *opts) {
	(void)opts;
	return type == BPF_MAP_TYPE_HASH ? -EPERM : (int)type % 2;
}

int libbpf_probe_bpf_helper(enum bpf_prog_type type, enum bpf_func_id helper, const void *opts) {
	(void)type, (void)opts;
	return helper == BPF_FUNC_ktime_get_ns;
}

static void add_program(char *text) {
	char hex[2 * BPF_TAG_SIZE + 1] = "";
	int i = n_programs++;

	if (sscanf(text, "gone:%u", &programs[i].id) == 1)
		programs[i].how = GONE;
	else if (sscanf(text, "denied:%u", &programs[i].id) == 1)
		programs[i].how = DENIED;
	else
		sscanf(text, "%u:%15[^:]:%16s", &programs[i].id, programs[i].name, hex);
	for (size_t j = 0; j < strlen(hex) / 2; j++)
		sscanf(hex + 2 * j, "%2hhx", &programs[i].tag[j]);
}

int main(int argc, char **argv) {
	int at = 2, code;

	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "probe")) {
		char *words[] = {(char *)"probe", NULL};

		stats_error = atoi(argv[2]);
		code = cmd_probe(1, words);
	} else {
		for (; at < argc && strcmp(argv[at], "--"); at++) {
			if (!strcmp(argv[at], "unlisted"))
				unlisted = true;
			else
				add_program(argv[at]);
		}
		code = cmd_left(argc - at - 1, argv + at + 1);
	}
	printf("exit %d\n", code);
	return 0;
}
