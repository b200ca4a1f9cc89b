/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SECCOMP_H
#define EF_SECCOMP_H

/*
 * From now on this thread, and every one that it starts, has only the system
 * calls of the table in seccomp.c: any other fails with EPERM, in the error path
 * of who called it, and kills nothing. For good. Call it while there is one
 * thread. 0; -EOPNOTSUPP: this binary was built without it (sanitizers and
 * valgrind need calls of their own); other -errno: the kernel refuses.
 */
int ef_seccomp_install(void);

#endif
