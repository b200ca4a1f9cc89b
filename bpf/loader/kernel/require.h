/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_REQUIRE_H
#define EF_REQUIRE_H

#include "base/reason.h"
#include "kernel/kernel.h"
#include "kernel/probe.h"
#include "kernel/requirement.h"

/*
 * Does this kernel meet a requirement of a contract ("prog_type:tracing")?
 * On EF_ANSWER_NO *why has the reason code and sentence. What the loader does
 * not know how to ask is EF_ANSWER_UNKNOWN: then loading is the proof.
 */
enum ef_answer ef_require(const struct ef_kernel *kernel, const struct ef_requirement *asked,
			  struct ef_reason *why);

#endif
