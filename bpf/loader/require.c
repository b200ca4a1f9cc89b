/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "require.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hook.h"
#include "util.h"

#define HELPER_NAME(name) #name
static const char *const helper_names[] = {__BPF_FUNC_MAPPER(HELPER_NAME)};

int ef_prog_type(const char *name) {
	for (int i = 1; libbpf_bpf_prog_type_str(i); i++)
		if (!strcmp(libbpf_bpf_prog_type_str(i), name))
			return i;
	return 0;
}

int ef_map_type(const char *name) {
	for (int i = 1; libbpf_bpf_map_type_str(i); i++)
		if (!strcmp(libbpf_bpf_map_type_str(i), name))
			return i;
	return 0;
}

static int helper_id(const char *name) {
	for (size_t i = 1; i < EF_ARRAY_SIZE(helper_names); i++)
		if (!strcmp(helper_names[i], name))
			return (int)i;
	return 0;
}

/* libbpf's probes say 1, 0 or -errno; a refused permission is no answer. */
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
		enum ef_answer said = answer(libbpf_probe_bpf_prog_type(type, NULL), err);

		return said == EF_ANSWER_YES ? said : EF_ANSWER_UNKNOWN;
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

static enum ef_answer no(struct ef_reason *why, const char *code, const char *what,
			 const char *name) {
	ef_reason_set(why, code, "this kernel has no %s '%s'", what, name);
	return EF_ANSWER_NO;
}

static enum ef_answer require_btf(const struct ef_kernel *kernel, const char *name,
				  struct ef_reason *why) {
	bool any = !strcmp(name, "any");

	if (!any && strcmp(name, "vmlinux"))
		return EF_ANSWER_UNKNOWN;
	if (kernel->btf == EF_BTF_VMLINUX || (any && kernel->btf == EF_BTF_BUNDLED))
		return EF_ANSWER_YES;
	*why = any ? kernel->btf_why : kernel->own_btf_why;
	return EF_ANSWER_NO;
}

static enum ef_answer require_prog_type(const char *name, struct ef_reason *why) {
	int err, type = ef_prog_type(name);
	enum ef_answer said = type ? ef_probe_prog_type(type, &err) : EF_ANSWER_UNKNOWN;

	return said == EF_ANSWER_NO ? no(why, "EF_NO_PROG_TYPE", "program type", name) : said;
}

static enum ef_answer require_map_type(const char *name, struct ef_reason *why) {
	int err, type = ef_map_type(name);
	enum ef_answer said = type ? ef_probe_map_type(type, &err) : EF_ANSWER_UNKNOWN;

	return said == EF_ANSWER_NO ? no(why, "EF_NO_MAP_TYPE", "map type", name) : said;
}

static bool reads_kernel(int helper) {
	return helper == BPF_FUNC_probe_read || helper == BPF_FUNC_probe_read_str ||
	       helper == BPF_FUNC_probe_read_kernel || helper == BPF_FUNC_probe_read_kernel_str;
}

/* PROGTYPE:NAME */
static enum ef_answer require_helper(const char *spec, struct ef_reason *why) {
	const char *name = strchr(spec, ':');
	char type_name[64];
	int err, type, helper;
	enum ef_answer said;

	if (!name)
		return EF_ANSWER_UNKNOWN;
	snprintf(type_name, sizeof(type_name), "%.*s", (int)(name - spec), spec);
	type = ef_prog_type(type_name);
	helper = helper_id(name + 1);
	if (!type || !helper)
		return EF_ANSWER_UNKNOWN;
	said = ef_probe_helper(type, helper, &err);
	if (said == EF_ANSWER_NO && reads_kernel(helper) && ef_kernel_is_confidential()) {
		ef_reason_set(
		    why, "EF_LOCKDOWN",
		    "lockdown is in confidentiality mode and forbids the helper '%s'; boot "
		    "without it, or do without this feature",
		    spec);
		return EF_ANSWER_NO;
	}
	return said == EF_ANSWER_NO ? no(why, "EF_NO_HELPER", "helper", spec) : said;
}

static enum ef_answer require_kernel(const struct ef_kernel *kernel, const char *version,
				     struct ef_reason *why) {
	unsigned major, minor;

	if (sscanf(version, "%u.%u", &major, &minor) != 2 || !kernel->family[0])
		return EF_ANSWER_UNKNOWN;
	if (kernel->major > major || (kernel->major == major && kernel->minor >= minor))
		return EF_ANSWER_YES;
	ef_reason_set(why, "EF_KERNEL_TOO_OLD", "it needs kernel %s or newer, this is %s", version,
		      kernel->release);
	return EF_ANSWER_NO;
}

enum ef_answer ef_require(const struct ef_kernel *kernel, const char *requirement,
			  struct ef_reason *why) {
	if (!strncmp(requirement, "btf:", 4))
		return require_btf(kernel, requirement + 4, why);
	if (!strncmp(requirement, "prog_type:", 10))
		return require_prog_type(requirement + 10, why);
	if (!strncmp(requirement, "map_type:", 9))
		return require_map_type(requirement + 9, why);
	if (!strncmp(requirement, "helper:", 7))
		return require_helper(requirement + 7, why);
	if (!strncmp(requirement, "attach:", 7))
		return ef_hook_ask(kernel, requirement + 7, why);
	if (!strncmp(requirement, "kernel:", 7))
		return require_kernel(kernel, requirement + 7, why);
	return EF_ANSWER_UNKNOWN;
}
