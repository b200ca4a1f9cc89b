/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_HOOK_H
#define EF_HOOK_H

#include "base/reason.h"
#include "kernel/kernel.h"
#include "kernel/probe.h"
#include "kernel/requirement.h"

/*
 * Can a program be attached there? hook is of the kind EF_REQUIREMENT_ATTACH. Asked of the kernel
 * itself, by the least program or event for that very place where it takes one, which is gone on
 * return. The rules are those of docs/formats/requirements.md. On EF_ANSWER_NO *why is set.
 */
enum ef_answer ef_hook_ask(const struct ef_kernel *kernel, const struct ef_requirement *hook,
			   struct ef_reason *why);

/* Lets go of the kernel's types, some megabytes, which one question leaves for the next. */
void ef_hook_forget(void);

/*
 * The kernel refused what (a phrase) with EPERM or EACCES: EF_LOCKDOWN where
 * lockdown explains it, else EF_PERMISSION.
 */
void ef_hook_refused(const char *what, int err, struct ef_reason *why);

#endif
