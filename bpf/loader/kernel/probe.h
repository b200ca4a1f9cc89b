/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_PROBE_H
#define EF_PROBE_H

/* What a probe answers; unknown is never taken for yes. */
enum ef_answer { EF_ANSWER_NO, EF_ANSWER_YES, EF_ANSWER_UNKNOWN };

/* Probes; *err is the errno that went with an answer that is not yes, or 0. */
enum ef_answer ef_probe_prog_type(int type, int *err);
enum ef_answer ef_probe_map_type(int type, int *err);
enum ef_answer ef_probe_helper(int prog_type, int helper, int *err);

#endif
