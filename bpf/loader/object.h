/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_OBJECT_H
#define EF_OBJECT_H

#include <bpf/libbpf.h>

#include "bundle.h"
#include "contract.h"
#include "kernel.h"
#include "reason.h"

/*
 * Open a variant's object from its verified bytes and hold it against the
 * contract: the same programs. No kernel is asked. NULL with *why on failure.
 */
struct bpf_object *ef_object_open(const struct ef_variant *variant,
				  const struct ef_contract_variant *contract,
				  struct ef_reason *why);

/*
 * Load it into the kernel. 0, or -errno with *why: the kernel's answer, with
 * the requirement that is not met as the reason where one is known.
 */
int ef_object_load(struct bpf_object *object, const struct ef_contract_variant *contract,
		   const struct ef_kernel *kernel, struct ef_reason *why);

/* The sentence and code for a failed attach of program. */
void ef_object_attach_reason(const char *program, int err, struct ef_reason *why);

/*
 * A requirement that is certainly not met ("kernel:", "btf:", "attach:"),
 * which a load does not always show. EF_ANSWER_NO with *why, else YES.
 */
bool ef_object_possible(const struct ef_contract_variant *contract, const struct ef_kernel *kernel,
			struct ef_reason *why);

#endif
