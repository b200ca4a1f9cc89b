/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_MUST_H
#define EF_MUST_H

#include <stdlib.h>

/*
 * Memory or death. A loader that runs out of memory for a few bytes cannot say
 * what it does; when it dies every program detaches and systemd starts it again.
 */
static inline void *ef_must(void *allocated) {
	if (!allocated)
		abort();
	return allocated;
}

#endif
