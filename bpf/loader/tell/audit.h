/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_AUDIT_H
#define EF_AUDIT_H

#include <jansson.h>
#include <stdint.h>

#include "base/reason.h"

#define EF_AUDIT_FILE_LIMIT (4u << 20) /* bytes of audit.jsonl before it is rotated */
#define EF_AUDIT_FILES 4	       /* audit.jsonl, audit.jsonl.1 … */

struct ef_audit;

/* On whose word something happened. Texts are borrowed for the call. */
struct ef_who {
	const char *source; /* "kill file", "desired", "policy", "lease", "budget", "backpressure",
			     * "fairness", "sink", "contract", "trust", "loader" or
			     * "signal" */
	const char *path;   /* of the file that said so; NULL: none */
	int64_t uid;	    /* its owner; -1: not known */
};

/* dir and boot_id are borrowed. Nothing is opened yet: a folder that is missing is not a reason
 * not to start. */
struct ef_audit *ef_audit_new(const char *dir, const char *boot_id);
void ef_audit_free(struct ef_audit *audit);

/* Of the records from here on; borrowed. NULL: no bundle. */
void ef_audit_bundle(struct ef_audit *audit, const char *digest);

/*
 * One record: to the journal, and to DIR/audit.jsonl, whole or not at all.
 * Never fails: a record that the file did not take is counted. NULL as audit
 * records nothing. The event is one of docs/formats/audit.md.
 */
void ef_audit_host(struct ef_audit *audit, const char *event, const struct ef_reason *why,
		   const struct ef_who *who);

/*
 * The same of a feature. what: its variant, programs and links, as the record has
 * them; NULL: none. Takes the reference.
 */
void ef_audit_feature(struct ef_audit *audit, const char *event, const char *feature, json_t *what,
		      const struct ef_reason *why, const struct ef_who *who);

/* Records that reached no file. */
uint64_t ef_audit_lost(const struct ef_audit *audit);

#endif
