/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PRIVILEGE_H
#define EF_PRIVILEGE_H

/*
 * Have the kernel count runs and run time of BPF programs while the descriptor
 * is open. It needs CAP_SYS_ADMIN, so this comes before ef_privilege_drop().
 * -errno: not permitted, nothing is counted.
 */
int ef_privilege_stats(void);

/*
 * Keep CAP_BPF and CAP_PERFMON, as far as we have them, and give up every other
 * capability for good. 0 or -errno.
 */
int ef_privilege_drop(void);

#endif
