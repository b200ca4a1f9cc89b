/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SINK_POLICY_H
#define EF_SINK_POLICY_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum ef_sink_kind { EF_SINK_JSONL, EF_SINK_JOURNAL, EF_SINK_DATAGRAM, EF_SINK_COUNT };

#define EF_SINK_FILES_MAX 16
#define EF_SINK_PATH_BYTES 108

/* Where this host wants its events. */
struct ef_sink_policy {
	enum ef_sink_kind kind;
	char path[EF_SINK_PATH_BYTES];	 /* datagram: the socket */
	char cursor[EF_SINK_PATH_BYTES]; /* jsonl: the log shipper's file; "": none */
	uint64_t file_bytes;		 /* jsonl: of a file before it is rotated */
	unsigned files;			 /* jsonl: all of them, the one that is written included */
};

/*
 * Read policy.json's `sink`; NULL: the defaults, two files of 16 MiB. 0, or -1
 * with error[0..size) naming the field and what it must be; *policy holds the
 * defaults then.
 */
int ef_sink_policy_read(const json_t *sink, struct ef_sink_policy *policy, char *error,
			size_t size);

#endif
