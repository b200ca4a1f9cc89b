/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_REQUIRE_H
#define EF_REQUIRE_H

#include "kernel.h"
#include "reason.h"

/* What a probe answers; unknown is never taken for yes. */
enum ef_answer { EF_ANSWER_NO, EF_ANSWER_YES, EF_ANSWER_UNKNOWN };

/*
 * Does this kernel meet a requirement of a contract ("prog_type:tracing")?
 * On EF_ANSWER_NO *why has the reason code and sentence. What the loader does
 * not know how to ask is EF_ANSWER_UNKNOWN: then loading is the proof.
 */
enum ef_answer ef_require(const struct ef_kernel *kernel, const char *requirement,
			  struct ef_reason *why);

/* The number behind libbpf's lower-case name, or 0. */
int ef_prog_type(const char *name);
int ef_map_type(const char *name);

/* Probes; *err is the errno that went with an answer that is not yes, or 0. */
enum ef_answer ef_probe_prog_type(int type, int *err);
enum ef_answer ef_probe_map_type(int type, int *err);
enum ef_answer ef_probe_helper(int prog_type, int helper, int *err);

#endif
