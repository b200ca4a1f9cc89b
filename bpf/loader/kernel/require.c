/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/require.h"

#include <stdbool.h>
#include <string.h>

#include "kernel/bpfnames.h"
#include "kernel/hook.h"

static enum ef_answer no(const struct ef_requirement *asked, const char *what,
			 struct ef_reason *why) {
	ef_reason_set(why, asked->kind->code, "this kernel has no %s '%s'", what, asked->key);
	return EF_ANSWER_NO;
}

static enum ef_answer require_btf(const struct ef_kernel *kernel,
				  const struct ef_requirement *asked, struct ef_reason *why) {
	bool any = !strcmp(asked->key, "any");

	if (kernel->btf == EF_BTF_VMLINUX || (any && kernel->btf == EF_BTF_BUNDLED))
		return EF_ANSWER_YES;
	*why = any ? kernel->btf_why : kernel->own_btf_why;
	return EF_ANSWER_NO;
}

static enum ef_answer require_prog_type(const struct ef_requirement *asked, struct ef_reason *why) {
	int err;
	enum ef_answer told = ef_probe_prog_type(asked->type, &err);

	return told == EF_ANSWER_NO ? no(asked, "program type", why) : told;
}

static enum ef_answer require_map_type(const struct ef_requirement *asked, struct ef_reason *why) {
	int err;
	enum ef_answer told = ef_probe_map_type(asked->type, &err);

	return told == EF_ANSWER_NO ? no(asked, "map type", why) : told;
}

static enum ef_answer require_helper(const struct ef_requirement *asked, struct ef_reason *why) {
	int err;
	enum ef_answer told = ef_probe_helper(asked->type, asked->helper, &err);

	if (told == EF_ANSWER_NO && ef_helper_reads_kernel(asked->helper) &&
	    ef_kernel_is_confidential()) {
		ef_reason_set(
		    why, "EF_LOCKDOWN",
		    "lockdown is in confidentiality mode and forbids the helper '%s'; boot "
		    "without it, or do without this feature",
		    asked->key);
		return EF_ANSWER_NO;
	}
	return told == EF_ANSWER_NO ? no(asked, "helper", why) : told;
}

static enum ef_answer require_kernel(const struct ef_kernel *kernel,
				     const struct ef_requirement *asked, struct ef_reason *why) {
	if (!kernel->family[0])
		return EF_ANSWER_UNKNOWN;
	if (kernel->major > asked->major ||
	    (kernel->major == asked->major && kernel->minor >= asked->minor))
		return EF_ANSWER_YES;
	ef_reason_set(why, asked->kind->code, "it needs kernel %s or newer, this is %s", asked->key,
		      kernel->release);
	return EF_ANSWER_NO;
}

enum ef_answer ef_require(const struct ef_kernel *kernel, const struct ef_requirement *asked,
			  struct ef_reason *why) {
	switch (asked->id) {
	case EF_REQUIREMENT_BTF:
		return require_btf(kernel, asked, why);
	case EF_REQUIREMENT_KERNEL:
		return require_kernel(kernel, asked, why);
	case EF_REQUIREMENT_PROG_TYPE:
		return require_prog_type(asked, why);
	case EF_REQUIREMENT_MAP_TYPE:
		return require_map_type(asked, why);
	case EF_REQUIREMENT_HELPER:
		return require_helper(asked, why);
	case EF_REQUIREMENT_ATTACH:
		return ef_hook_ask(kernel, asked, why);
	case EF_N_REQUIREMENT:
		break;
	}
	return EF_ANSWER_UNKNOWN;
}
