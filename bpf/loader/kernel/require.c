/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/require.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/hook.h"

#define HELPER_NAME(name) #name
static const char *const helper_names[] = {__BPF_FUNC_MAPPER(HELPER_NAME)};

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

static int helper_id(const char *name) {
	for (size_t i = 1; i < EF_ARRAY_SIZE(helper_names); i++)
		if (!strcmp(helper_names[i], name))
			return (int)i;
	return 0;
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
