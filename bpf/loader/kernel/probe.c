/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/probe.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

/* libbpf's probes say 1, 0 or -errno; a refused permission is not an answer. */
static enum ef_answer answer(int result, int *err) {
	*err = result < 0 ? -result : 0;
	if (result > 0)
		return EF_ANSWER_YES;
	return result == 0 ? EF_ANSWER_NO : EF_ANSWER_UNKNOWN;
}

/* May we create and load at all? Without that a probe's "no" says nothing. */
static bool may_probe(int *err) {
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ef_probe", 4, 8, 1, NULL);

	if (fd < 0) {
		*err = errno;
		return false;
	}
	close(fd);
	*err = 0;
	return true;
}

/* What the least program of a type must say of itself to be taken. */
static int load_options(int type, struct bpf_prog_load_opts *opts) {
	int id = 0;

	/* These need another program, or a map, to be of. */
	if (type == BPF_PROG_TYPE_EXT || type == BPF_PROG_TYPE_STRUCT_OPS)
		return -EOPNOTSUPP;
	if (type == BPF_PROG_TYPE_TRACING) {
		opts->expected_attach_type = BPF_TRACE_RAW_TP;
		id = libbpf_find_vmlinux_btf_id("sched_switch", BPF_TRACE_RAW_TP);
	} else if (type == BPF_PROG_TYPE_LSM) {
		opts->expected_attach_type = BPF_LSM_MAC;
		id = libbpf_find_vmlinux_btf_id("bprm_check_security", BPF_LSM_MAC);
	}
	if (id < 0)
		return id;
	opts->attach_btf_id = (__u32)id;
	return 0;
}

/*
 * libbpf 1.1 tells tracing, ext and lsm by the wording of a verifier message
 * that newer kernels changed. This loads the least program of type tracing.
 */
static enum ef_answer probe_tracing(int *err) {
	struct bpf_insn insns[] = {
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	_cleanup_close_ int fd = -1;

	*err = -load_options(BPF_PROG_TYPE_TRACING, &opts);
	if (*err)
		return EF_ANSWER_UNKNOWN;
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "ef_probe", "GPL", insns, EF_ARRAY_SIZE(insns),
			   &opts);
	if (fd >= 0)
		return EF_ANSWER_YES;
	*err = errno;
	return *err == EINVAL ? EF_ANSWER_NO : EF_ANSWER_UNKNOWN;
}

enum ef_answer ef_probe_prog_type(int type, int *err) {
	if (!may_probe(err))
		return EF_ANSWER_UNKNOWN;
	if (type == BPF_PROG_TYPE_TRACING)
		return probe_tracing(err);
	if (type == BPF_PROG_TYPE_EXT || type == BPF_PROG_TYPE_LSM ||
	    type == BPF_PROG_TYPE_STRUCT_OPS) {
		/* Only what depends on wording: a no is not to be believed. */
		enum ef_answer told = answer(libbpf_probe_bpf_prog_type(type, NULL), err);

		return told == EF_ANSWER_YES ? told : EF_ANSWER_UNKNOWN;
	}
	return answer(libbpf_probe_bpf_prog_type(type, NULL), err);
}

enum ef_answer ef_probe_map_type(int type, int *err) {
	if (!may_probe(err))
		return EF_ANSWER_UNKNOWN;
	return answer(libbpf_probe_bpf_map_type(type, NULL), err);
}

/* The verifier's words for a helper that the program may not call, older and newer kernels'. */
static bool says_no_helper(const char *log) {
	return strstr(log, "unknown func ") || strstr(log, "invalid func ") ||
	       strstr(log, "cannot use helper ");
}

/*
 * Not by libbpf: 1.1 does not know the newer words, and has no answer for
 * tracing and LSM. A call with no arguments is refused for them wherever the
 * helper may be called; a log without any verdict tells nothing.
 */
enum ef_answer ef_probe_helper(int prog_type, int helper, int *err) {
	const struct bpf_insn insns[] = {
	    {.code = BPF_JMP | BPF_CALL, .imm = helper},
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	char log[4096] = "";
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .log_buf = log, .log_size = sizeof(log),
		    .log_level = 1);
	_cleanup_close_ int fd = -1;

	*err = -load_options(prog_type, &opts);
	if (*err || !may_probe(err))
		return EF_ANSWER_UNKNOWN;
	fd = bpf_prog_load(prog_type, "ef_probe", "GPL", insns, EF_ARRAY_SIZE(insns), &opts);
	if (fd >= 0)
		return EF_ANSWER_YES;
	*err = errno;
	if (says_no_helper(log))
		return EF_ANSWER_NO;
	return *err == EPERM || !log[0] ? EF_ANSWER_UNKNOWN : EF_ANSWER_YES;
}
