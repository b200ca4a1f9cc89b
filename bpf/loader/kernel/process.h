/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PROCESS_H
#define EF_PROCESS_H

#include <stdint.h>

/* This process's CPU time (user and system) and resident memory; -1: not known. */
int64_t ef_self_cpu_ns(void);
int64_t ef_self_rss_bytes(void);

/* When a process started, in ns since boot (to the clock tick); -1: there is no such process. */
int64_t ef_process_start_ns(int pid);

#endif
