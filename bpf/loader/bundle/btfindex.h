/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_BTFINDEX_H
#define EF_BTFINDEX_H

#include "bundle/bundle.h"
#include "kernel/kernel.h"

/*
 * Where the kernel does not give its types (EF_BTF_MISSING): look in the
 * bundle's btf/index.json for the minimal BTF of exactly this kernel. With one,
 * kernel->btf becomes EF_BTF_BUNDLED, and btf_path names a sealed copy of the
 * verified bytes in memory; without, btf_why says why. Afterwards the bundle's
 * BTF files have no data any more.
 */
void ef_btf_choose(struct ef_bundle *bundle, struct ef_kernel *kernel);

#endif
