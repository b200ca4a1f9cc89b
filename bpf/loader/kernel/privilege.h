/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PRIVILEGE_H
#define EF_PRIVILEGE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Have the kernel count runs and run time of BPF programs while the descriptor
 * is open. It needs CAP_SYS_ADMIN, so this comes before ef_privilege_drop().
 * -errno: not permitted, nothing is counted.
 */
int ef_privilege_stats(void);

/* The greatest capability that this kernel knows; where it does not say, that of our headers. */
int ef_privilege_last_cap(void);

/*
 * The capabilities that the service keeps, as bits: what any program that a
 * contract may ask for needs to be loaded, attached and read on a kernel that
 * knows capabilities up to last_cap. Pure.
 */
uint64_t ef_privilege_kept(int last_cap);

/* Does such a set hold CAP_SYS_ADMIN, for want of CAP_BPF? */
bool ef_privilege_is_broad(uint64_t capabilities);

/*
 * Keep these capabilities, as far as we have them, and give up every other one
 * for good. 0 or -errno.
 */
int ef_privilege_drop(uint64_t keep);

/*
 * What we hold now, asked of the kernel: status.json's "privileges", a new
 * reference. What the kernel does not say is null.
 */
json_t *ef_privilege_json(void);

#endif
