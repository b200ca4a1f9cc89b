/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_REPORT_H
#define EF_REPORT_H

#include "run/state.h"
#include "tell/audit.h"

/*
 * What the service did and why, as audit records. All of it is told after the
 * deed: a disk that hangs must not stand between an order and its effect.
 */

/* On whose word a feature is as this reason code says; live may be NULL. Paths are the service's.
 */
struct ef_who ef_report_who(const struct ef_service *service, const struct ef_live *live,
			    const char *code);

void ef_report_start(struct ef_service *service); /* and the refusal, where there is one */
void ef_report_stop(struct ef_service *service, int err);

/* Orders that came (kill) and went (unkill) since. */
void ef_report_orders(struct ef_service *service, const struct ef_orders *before);

/* A lease that came, was renewed or went; and its expiry. */
void ef_report_lease(struct ef_service *service, const struct ef_lease *before);
void ef_report_expiry(struct ef_service *service);

/* Trust that was withdrawn, or is there again. */
void ef_report_standing(struct ef_service *service);

/* What policy.json says now, or that it cannot be read. */
void ef_report_policy(struct ef_service *service);

/* What desired.json says, where that is not what it said before. */
void ef_report_desired(struct ef_service *service, const struct ef_desired *before, bool changed);

/* A reader that began to be too slow, or keeps up again; also to the journal. */
void ef_report_backpressure(struct ef_service *service, struct ef_live *live,
			    enum ef_backpressure_change change);

/* A signal whose loudest sources begin to be thinned, or are no more; also to the journal. */
void ef_report_fairness(struct ef_service *service, struct ef_live *live,
			enum ef_fairness_change change);

/* Records were removed before the log shipper took them; also to the journal. */
void ef_report_unshipped(struct ef_service *service, const struct ef_sink_state *state);

/* A variant that the kernel took, or that it or the loader refused; data is the service. */
void ef_report_loaded(void *data, const struct ef_live *live);
void ef_report_refused(void *data, const struct ef_live *live, const char *variant,
		       const struct ef_reason *why);

void ef_report_attached(struct ef_service *service, struct ef_live *live);

/* A feature that went off, or is about to be attached again; why may be a contract's expiry. */
void ef_report_off(struct ef_service *service, struct ef_live *live, const struct ef_reason *why,
		   bool was_attached, bool changed);

#endif
