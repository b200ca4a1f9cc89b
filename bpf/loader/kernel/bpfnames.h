/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BPFNAMES_H
#define EF_BPFNAMES_H

#include <stdbool.h>

/*
 * Names of the kernel's BPF interface and their numbers, which the kernel never changes. They are
 * not libbpf's or linux/bpf.h's: what a contract may say must not hang on the machine that a loader
 * was built on. plugins/module_utils/kernel/bpfnames.py has the same;
 * tests/loader/test_requirements.py compares.
 */
enum ef_names { EF_NAMES_PROG_TYPE, EF_NAMES_MAP_TYPE, EF_NAMES_HELPER, EF_N_NAMES };

/* The number of the name, which has so many characters; 0 where there is none such. */
int ef_name_number(enum ef_names names, const char *name, unsigned length);

/* The name of a number from 1 on, or NULL. */
const char *ef_number_name(enum ef_names names, unsigned number);

/* Does the helper read the kernel's memory, which lockdown `confidentiality` forbids? */
bool ef_helper_reads_kernel(int helper);

#endif
