/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BPFLOG_H
#define EF_BPFLOG_H

#include <stddef.h>

#define EF_BPFLOG_TAIL 2048

/*
 * Take over libbpf's messages: none reaches stderr, the last EF_BPFLOG_TAIL
 * bytes are kept, the verifier's log among them. Call once, before libbpf.
 */
void ef_bpflog_start(void);

/* Forget what was kept; before each thing that may fail. */
void ef_bpflog_reset(void);

/* What was kept, printable ASCII and line feeds; valid until the next message. */
const char *ef_bpflog_tail(void);

/* The line that best says why: libbpf's first warning. "" when there is none. */
const char *ef_bpflog_first(void);

#endif
