/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PROOF_H
#define EF_PROOF_H

#include <bpf/libbpf.h>
#include <stdbool.h>

/*
 * Is it proven that the program, not loaded yet, returns 0 whatever happens?
 * Only where each of its exits directly follows r0 = 0, no jump lands on an
 * exit, and it neither calls another program in its place (bpf_tail_call) nor
 * throws. False says that there is no such proof, not that it returns anything
 * else.
 */
bool ef_proof_returns_zero(const struct bpf_object *object, const struct bpf_program *program);

/*
 * Does any of the object's programs call a helper that reads kernel memory by
 * address (probe_read, probe_read_kernel and their _str)?
 */
bool ef_proof_reads_kernel(const struct bpf_object *object);

#endif
