/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_LEASE_H
#define EF_LEASE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

#define EF_LEASE_FILE "lease.json" /* below the etc folder */

/* What ETC/lease.json says to the bundle that runs. All zero: no lease. */
struct ef_lease {
	bool there;	    /* and it concerns this bundle */
	bool unusable;	    /* of another boot, or not to be understood: expired for good */
	int64_t expires_ns; /* CLOCK_BOOTTIME; 0 when unusable */
	int64_t uid;	    /* the file's owner; -1: not known */
	char holder[129];   /* "" when unusable */
	char why[400];	    /* unusable: the sentence */
};

/*
 * Read a lease. No file, or one of another bundle than digest: there is none.
 * Whatever else cannot be taken for a lease of this boot is an unusable one:
 * what is not understood must not keep a host on probation going. From any thread.
 */
void ef_lease_read(const char *path, const char *digest, const char *boot_id,
		   struct ef_lease *lease);

/* Is there one whose time is over? now_ns is CLOCK_BOOTTIME. */
bool ef_lease_expired(const struct ef_lease *lease, int64_t now_ns);

bool ef_lease_equal(const struct ef_lease *a, const struct ef_lease *b);

/* EF_LEASE_EXPIRED and its sentence, for a lease that is expired. */
void ef_lease_reason(const struct ef_lease *lease, struct ef_reason *why);

/* status.json's "lease": a new reference. */
json_t *ef_lease_json(const struct ef_lease *lease, int64_t now_ns);

#endif
