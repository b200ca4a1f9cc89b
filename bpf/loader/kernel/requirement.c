/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/requirement.h"

#include <linux/bpf.h>
#include <linux/btf.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "kernel/bpfnames.h"

#define DIGITS "0123456789"
#define WORD "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_" DIGITS

/* Is text, from 1 to 127 characters, made of these only? */
static bool is_of(const char *text, const char *characters) {
	size_t length = strlen(text);

	return length && length <= EF_TARGET_MAX && strspn(text, characters) == length;
}

/* The kernel appends it to a prefix of its own, so that it may begin with a digit: 9p_client_req.
 */
static bool is_name(const char *text) {
	return is_of(text, WORD);
}

/* Compilers put a dot into the names of copies of a function: do_unlinkat.isra.0. */
static bool is_symbol(const char *text) {
	return is_of(text, WORD ".") && !strchr(DIGITS ".", text[0]);
}

/* A group is free text of its subsystem (xhci-hcd, 9p), an event is a part of C names. */
static bool is_group_and_name(const char *text) {
	size_t group = strspn(text, WORD "-");

	return group && text[group] == '/' && is_name(text + group + 1) && is_of(text, WORD "-/");
}

/* clang-format off */
const struct ef_attach ef_attach_kinds[EF_N_ATTACH] = {
    {EF_ATTACH_TP_BTF, "tp_btf", "NAME", is_name, {"tp_btf"},
     "tracing", BPF_TRACE_RAW_TP, "tracepoint", BTF_KIND_TYPEDEF, "btf_trace_", true},
    {EF_ATTACH_FENTRY, "fentry", "SYMBOL", is_symbol, {"fentry", "fentry.s"},
     "tracing", BPF_TRACE_FENTRY, "entry", BTF_KIND_FUNC, "", true},
    {EF_ATTACH_FEXIT, "fexit", "SYMBOL", is_symbol, {"fexit", "fexit.s"},
     "tracing", BPF_TRACE_FEXIT, "exit", BTF_KIND_FUNC, "", true},
    {EF_ATTACH_LSM, "lsm", "NAME", is_name, {"lsm", "lsm.s"},
     "lsm", BPF_LSM_MAC, "lsm", BTF_KIND_FUNC, "bpf_lsm_", true},
    {EF_ATTACH_RAW_TP, "raw_tp", "NAME", is_name, {"raw_tp", "raw_tracepoint"},
     "raw_tracepoint", 0, "tracepoint", BTF_KIND_TYPEDEF, "btf_trace_", false},
    {EF_ATTACH_TRACEPOINT, "tracepoint", "GROUP/NAME", is_group_and_name, {"tracepoint", "tp"},
     "tracepoint", 0, "tracepoint", BTF_KIND_TYPEDEF, "btf_trace_", false},
    {EF_ATTACH_KPROBE, "kprobe", "SYMBOL", is_symbol, {"kprobe"},
     "kprobe", 0, "entry", BTF_KIND_FUNC, "", false},
    {EF_ATTACH_KRETPROBE, "kretprobe", "SYMBOL", is_symbol, {"kretprobe"},
     "kprobe", 0, "exit", BTF_KIND_FUNC, "", false},
};
/* clang-format on */

static bool read_btf(const char *key, struct ef_requirement *requirement) {
	(void)requirement;
	return !strcmp(key, "vmlinux") || !strcmp(key, "any");
}

/* The number in at most so many digits that *text begins with, which is moved behind them. */
static bool read_number(const char **text, size_t most, unsigned *number) {
	size_t digits = strspn(*text, DIGITS);

	*number = 0;
	for (size_t i = 0; i < digits && i < most; i++)
		*number = *number * 10 + (unsigned)((*text)[i] - '0');
	*text += digits;
	return digits && digits <= most;
}

static bool read_kernel(const char *key, struct ef_requirement *requirement) {
	return read_number(&key, 3, &requirement->major) && *key++ == '.' &&
	       read_number(&key, 4, &requirement->minor) && !*key;
}

static bool read_prog_type(const char *key, struct ef_requirement *requirement) {
	requirement->type = ef_name_number(EF_NAMES_PROG_TYPE, key, strlen(key));
	return requirement->type;
}

static bool read_map_type(const char *key, struct ef_requirement *requirement) {
	requirement->type = ef_name_number(EF_NAMES_MAP_TYPE, key, strlen(key));
	return requirement->type;
}

/* PROGTYPE:NAME */
static bool read_helper(const char *key, struct ef_requirement *requirement) {
	const char *name = strchr(key, ':');

	if (!name)
		return false;
	requirement->type = ef_name_number(EF_NAMES_PROG_TYPE, key, (unsigned)(name - key));
	requirement->helper = ef_name_number(EF_NAMES_HELPER, name + 1, strlen(name + 1));
	return requirement->type && requirement->helper;
}

/* KIND:TARGET */
static bool read_attach(const char *key, struct ef_requirement *requirement) {
	for (size_t i = 0; i < EF_N_ATTACH; i++) {
		const struct ef_attach *kind = &ef_attach_kinds[i];
		size_t length = strlen(kind->name);

		if (strncmp(key, kind->name, length) || (key[length] && key[length] != ':'))
			continue;
		requirement->attach = kind;
		requirement->target = key + length + (key[length] == ':');
		return kind->fits(requirement->target);
	}
	return false;
}

const struct ef_requirement_kind ef_requirement_kinds[EF_N_REQUIREMENT] = {
    [EF_REQUIREMENT_BTF] = {"btf", "EF_NO_BTF", true, "write btf:vmlinux or btf:any", read_btf},
    [EF_REQUIREMENT_KERNEL] = {"kernel", "EF_KERNEL_TOO_OLD", true, "write kernel:MAJOR.MINOR",
			       read_kernel},
    [EF_REQUIREMENT_PROG_TYPE] = {"prog_type", "EF_NO_PROG_TYPE", false,
				  "write prog_type:NAME with the kernel's name in lower case",
				  read_prog_type},
    [EF_REQUIREMENT_MAP_TYPE] = {"map_type", "EF_NO_MAP_TYPE", false,
				 "write map_type:NAME with the kernel's name in lower case",
				 read_map_type},
    [EF_REQUIREMENT_HELPER] = {"helper", "EF_NO_HELPER", false,
			       "write helper:PROGTYPE:NAME, the name without bpf_", read_helper},
    [EF_REQUIREMENT_ATTACH] = {"attach", "EF_NO_ATTACH_POINT", true,
			       "write attach:KIND:TARGET with a kind that this loader attaches",
			       read_attach},
};

const char *ef_requirement_read(const char *text, struct ef_requirement *requirement) {
	*requirement = (struct ef_requirement){0};
	for (size_t i = 0; i < EF_N_REQUIREMENT; i++) {
		const struct ef_requirement_kind *kind = &ef_requirement_kinds[i];
		size_t length = strlen(kind->name);

		if (strncmp(text, kind->name, length) || text[length] != ':')
			continue;
		*requirement =
		    (struct ef_requirement){.id = i, .kind = kind, .key = text + length + 1};
		return kind->read(requirement->key, requirement) ? NULL : kind->remedy;
	}
	return "write btf:, kernel:, prog_type:, map_type:, helper: or attach:";
}

const struct ef_attach *ef_attach_of_section(const char *section, const char **target) {
	const char *slash = strchr(section, '/');
	size_t length = slash ? (size_t)(slash - section) : 0;

	for (size_t i = 0; slash && i < EF_N_ATTACH; i++)
		for (size_t j = 0; j < EF_ARRAY_SIZE(ef_attach_kinds[i].sections); j++) {
			const char *name = ef_attach_kinds[i].sections[j];

			if (!name || strlen(name) != length || memcmp(section, name, length))
				continue;
			*target = slash + 1;
			return &ef_attach_kinds[i];
		}
	return NULL;
}

/* A target without its group: the name of a tracepoint is its own, in whatever group. */
static const char *name_of(const char *target) {
	const char *slash = strrchr(target, '/');

	return slash ? slash + 1 : target;
}

bool ef_attach_same(const struct ef_attach *one, const char *target, const struct ef_attach *other,
		    const char *other_target) {
	return !strcmp(one->moment, other->moment) &&
	       !strcmp(name_of(target), name_of(other_target));
}
