/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_OBJECT_H
#define EF_OBJECT_H

#include <bpf/libbpf.h>

#include "base/reason.h"
#include "bundle/bundle.h"
#include "bundle/contract.h"
#include "kernel/kernel.h"

/*
 * Open a variant's object from its verified bytes and hold it against the
 * contract: the same programs, each of a kind that is attached here and
 * that changes nothing of what the kernel does. Loaded, it will relocate
 * against the kernel's BTF, or the bundle's where kernel says so. No kernel is
 * asked. NULL with *why on failure.
 */
struct bpf_object *ef_object_open(const struct ef_variant *variant,
				  const struct ef_contract_variant *contract,
				  const struct ef_kernel *kernel, struct ef_reason *why);

/*
 * Does a record of the contract's events fit what this loader reads, and the
 * ring that it goes through? 0, also where the contract has no events or the
 * object no such struct, which is told elsewhere; -1 with *why.
 */
int ef_object_check_record(const struct bpf_object *object, const struct ef_contract *contract,
			   const char *variant, struct ef_reason *why);

/*
 * Load it into the kernel. 0, or -errno with *why: the kernel's answer, with
 * the requirement that is not met as the reason where one is known.
 */
int ef_object_load(struct bpf_object *object, const struct ef_contract_variant *contract,
		   const struct ef_kernel *kernel, struct ef_reason *why);

/* The sentence and code for a failed attach of program. */
void ef_object_attach_reason(const char *program, int err, struct ef_reason *why);

/*
 * False with *why for a requirement that is certainly not met ("kernel:",
 * "btf:", "attach:"), which a load does not always show.
 */
bool ef_object_possible(const struct ef_contract_variant *contract, const struct ef_kernel *kernel,
			struct ef_reason *why);

/* The map's name in a contract: that of maps of global variables is ".rodata" and the like. */
const char *ef_object_map_name(const struct bpf_map *map);

#endif
