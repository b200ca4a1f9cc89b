/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_REQUIREMENT_H
#define EF_REQUIREMENT_H

#include <stdbool.h>

/*
 * What a contract can require of a host: the grammar of `requires`, and the one table of attach
 * kinds. No kernel is asked. plugins/module_utils/contract/requirements.py is the same in Python;
 * tests/loader/test_requirements.py holds the tables of both equal, entry by entry, and runs both
 * over the requirements of tests/support/requirement_cases.py.
 */

/* Longest name that every kernel takes: KSYM_NAME_LEN was 128, with its zero byte, until 6.1. */
#define EF_TARGET_MAX 127

enum ef_attach_id {
	EF_ATTACH_TP_BTF,
	EF_ATTACH_FENTRY,
	EF_ATTACH_FEXIT,
	EF_ATTACH_LSM,
	EF_ATTACH_RAW_TP,
	EF_ATTACH_TRACEPOINT,
	EF_ATTACH_KPROBE,
	EF_ATTACH_KRETPROBE,
	EF_N_ATTACH,
};

/*
 * One kind of hook that programs are attached to; all that differs but how one is asked.
 *
 * attach_type   expected_attach_type of its programs; 0: they have none
 * moment        with the target what a program hangs on: two kinds of one moment see every event
 *               there twice
 * btf_kind      the kernel's own BTF names a target by a type of this kind ...
 * prefix        ... whose name is this and the target's name
 * own_btf       it is found by the kernel's own BTF only, and no other can stand in for that
 */
struct ef_attach {
	enum ef_attach_id id;
	const char *name;		  /* in a contract: attach:NAME:TARGET */
	const char *form;		  /* how a target is written */
	bool (*fits)(const char *target); /* is one written so? */
	const char *sections[2];	  /* SEC("SECTION/TARGET"), the usual one first */
	const char *prog_type;
	int attach_type;
	const char *moment;
	unsigned btf_kind;
	const char *prefix;
	bool own_btf;
};

extern const struct ef_attach ef_attach_kinds[EF_N_ATTACH];

enum ef_requirement_id {
	EF_REQUIREMENT_BTF,
	EF_REQUIREMENT_KERNEL,
	EF_REQUIREMENT_PROG_TYPE,
	EF_REQUIREMENT_MAP_TYPE,
	EF_REQUIREMENT_HELPER,
	EF_REQUIREMENT_ATTACH,
	EF_N_REQUIREMENT,
};

struct ef_requirement;

/*
 * One kind of requirement: the word before the first colon. What is before_load is asked before an
 * object is loaded; the others only explain a load that failed.
 */
struct ef_requirement_kind {
	const char *name;
	const char *code; /* reason code of a plain no */
	bool before_load;
	const char *remedy; /* what to write instead of a bad one */
	/* Is what follows the colon good? Then *requirement has what it says. */
	bool (*read)(const char *key, struct ef_requirement *requirement);
};

extern const struct ef_requirement_kind ef_requirement_kinds[EF_N_REQUIREMENT];

/* One requirement; strings point into the text that was read. */
struct ef_requirement {
	enum ef_requirement_id id;
	const struct ef_requirement_kind *kind;
	const char *key;		/* what follows KIND: */
	unsigned major, minor;		/* kernel */
	int type;			/* prog_type, map_type, helper: the kernel's number */
	int helper;			/* helper: the kernel's number */
	const struct ef_attach *attach; /* attach */
	const char *target;		/* attach: what follows attach:KIND: */
};

/*
 * Read one requirement. NULL with *requirement where it is good, else what to write instead; then
 * requirement->attach is the kind of hook where no more than the target is bad.
 */
const char *ef_requirement_read(const char *text, struct ef_requirement *requirement);

/* The kind of a program in that section ("fentry/vfs_unlink"), with its *target; or NULL. */
const struct ef_attach *ef_attach_of_section(const char *section, const char **target);

/* Do programs of these hang on one hook, whichever kind each uses? fentry:f and kprobe:f do. */
bool ef_attach_same(const struct ef_attach *one, const char *target, const struct ef_attach *other,
		    const char *other_target);

#endif
