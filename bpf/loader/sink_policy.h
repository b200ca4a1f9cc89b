/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SINK_POLICY_H
#define EF_SINK_POLICY_H

#include <jansson.h>
#include <stddef.h>

#include "sink.h"

/*
 * Read policy.json's `sink`; NULL: the defaults, two files of 16 MiB. 0, or -1
 * with error[0..size) naming the field and what it must be; *policy holds the
 * defaults then.
 */
int ef_sink_policy_read(const json_t *sink, struct ef_sink_policy *policy, char *error,
			size_t size);

#endif
