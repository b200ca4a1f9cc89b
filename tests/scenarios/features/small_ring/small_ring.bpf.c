// SPDX-License-Identifier: GPL-2.0
/*
 * small_ring: one record for each system call of the program ef-load, through a
 * ring of one page. Its budgets for CPU and rate are kept, and the one for
 * drops cannot be. It is syscall_firehose, of one program.
 */
#define EF_IS_WANTED() is_of_the_load()

static int is_of_the_load(void);

#include "../../../fixtures/features/syscall_firehose/syscall_firehose.bpf.c"

static __always_inline int is_of_the_load(void) {
	char comm[16] = {0};

	bpf_get_current_comm(comm, sizeof(comm));
	return comm[0] == 'e' && comm[1] == 'f' && comm[2] == '-' && comm[3] == 'l' &&
	       comm[4] == 'o' && comm[5] == 'a';
}
