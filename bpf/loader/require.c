/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "require.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/*
 * libbpf 1.1 tells tracing, ext and lsm by the wording of a verifier message
 * that newer kernels changed. This loads the least program of type tracing.
 */
static enum ef_answer probe_tracing(int *err) {
	struct bpf_insn insns[] = {
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_RAW_TP);
	int id = libbpf_find_vmlinux_btf_id("sched_switch", BPF_TRACE_RAW_TP);
	int fd;

	if (id <= 0) {
		*err = id ? -id : ENOENT;
		return EF_ANSWER_UNKNOWN;
	}
	opts.attach_btf_id = id;
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "ef_probe", "GPL", insns, EF_ARRAY_SIZE(insns),
			   &opts);
	*err = fd < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	if (fd >= 0)
		return EF_ANSWER_YES;
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

enum ef_answer ef_probe_helper(int prog_type, int helper, int *err) {
	if (!may_probe(err))
		return EF_ANSWER_UNKNOWN;
	return answer(libbpf_probe_bpf_helper(prog_type, helper, NULL), err);
}

static enum ef_answer no(struct ef_reason *why, const char *code, const char *what,
			 const char *name) {
	ef_reason_set(why, code, "this kernel has no %s '%s'", what, name);
	return EF_ANSWER_NO;
}

static enum ef_answer require_btf(const struct ef_kernel *kernel, const char *name,
				  struct ef_reason *why) {
	if (strcmp(name, "vmlinux"))
		return EF_ANSWER_UNKNOWN;
	if (kernel->btf)
		return EF_ANSWER_YES;
	ef_reason_set(why, "EF_NO_BTF",
		      "the kernel's types are not at /sys/kernel/btf/vmlinux; "
		      "it needs a kernel built with CONFIG_DEBUG_INFO_BTF");
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
	return said == EF_ANSWER_NO ? no(why, "EF_NO_HELPER", "helper", spec) : said;
}

/* Is there a type or function of that name and kind in the kernel's BTF? */
static enum ef_answer in_btf(const char *prefix, const char *name, unsigned kind) {
	struct btf *btf = btf__load_vmlinux_btf();
	char full[128];
	int id;

	if (!btf)
		return EF_ANSWER_UNKNOWN;
	snprintf(full, sizeof(full), "%s%s", prefix, name);
	id = btf__find_by_name_kind(btf, full, kind);
	btf__free(btf);
	return id > 0 ? EF_ANSWER_YES : EF_ANSWER_NO;
}

/* A tracepoint by tracefs; without a tracefs that we may read it is unknown. */
static enum ef_answer in_tracefs(const char *name) {
	static const char *const roots[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};
	char path[256];

	for (size_t i = 0; i < EF_ARRAY_SIZE(roots); i++) {
		snprintf(path, sizeof(path), "%s/events", roots[i]);
		if (access(path, R_OK | X_OK))
			continue;
		snprintf(path, sizeof(path), "%s/events/%s", roots[i], name);
		return access(path, F_OK) ? EF_ANSWER_NO : EF_ANSWER_YES;
	}
	return EF_ANSWER_UNKNOWN;
}

/* KIND:NAME; kprobes stay unknown: a symbol in kallsyms may still be refused. */
static enum ef_answer require_attach(const char *spec, struct ef_reason *why) {
	const char *name = strchr(spec, ':');
	enum ef_answer said = EF_ANSWER_UNKNOWN;

	if (!name)
		return said;
	name++;
	if (!strncmp(spec, "tp_btf:", 7) || !strncmp(spec, "raw_tp:", 7))
		said = in_btf("btf_trace_", name, BTF_KIND_TYPEDEF);
	else if (!strncmp(spec, "fentry:", 7))
		said = in_btf("", name, BTF_KIND_FUNC);
	else if (!strncmp(spec, "lsm:", 4))
		said = in_btf("bpf_lsm_", name, BTF_KIND_FUNC);
	else if (!strncmp(spec, "tracepoint:", 11))
		said = in_tracefs(name);
	return said == EF_ANSWER_NO ? no(why, "EF_NO_ATTACH_POINT", "attach point", spec) : said;
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
		return require_attach(requirement + 7, why);
	if (!strncmp(requirement, "kernel:", 7))
		return require_kernel(kernel, requirement + 7, why);
	return EF_ANSWER_UNKNOWN;
}
