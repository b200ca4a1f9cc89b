/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/report.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/paths.h"
#include "base/version.h"

static int64_t owner_of(const char *path) {
	struct stat st;

	return stat(path, &st) ? -1 : (int64_t)st.st_uid;
}

static struct ef_who by_file(const char *source, const char *path) {
	return (struct ef_who){.source = source, .path = path, .uid = owner_of(path)};
}

static struct ef_who by_order(const struct ef_service *service, const struct ef_live *live) {
	const struct ef_order *order =
	    live ? ef_orders_feature(&service->inputs.orders, ef_live_name(live))
		 : ef_orders_all(&service->inputs.orders);

	if (!order)
		return (struct ef_who){.source = "kill file", .uid = -1};
	return by_file("kill file", ef_order_path(order));
}

/* The file that took the trust away. */
static const char *trust_path(const struct ef_service *service) {
	const struct ef_refusal *why = &service->inputs.standing.why;
	const char *revoked = service->trust.revoked_keys;

	if (ef_standing_is_lost(&service->inputs.standing) &&
	    (!strcmp(why->code, "EF_SIG_REVOKED") || !strcmp(why->file, revoked)))
		return revoked;
	return service->trust.allowed_signers;
}

static bool begins(const char *code, const char *with) {
	return !strncmp(code, with, strlen(with));
}

struct ef_who ef_report_who(const struct ef_service *service, const struct ef_live *live,
			    const char *code) {
	if (service->stopping)
		return (struct ef_who){.source = "signal", .uid = -1};
	if (begins(code, "EF_KILLED_"))
		return by_order(service, live);
	if (!strcmp(code, "EF_LEASE_EXPIRED"))
		return (struct ef_who){.source = "lease",
				       .path = service->inputs.lease_path,
				       .uid = service->inputs.lease.uid};
	if (!strcmp(code, "EF_TRUST_WITHDRAWN"))
		return by_file("trust", trust_path(service));
	if (!strcmp(code, "EF_EXPIRED"))
		return (struct ef_who){.source = "contract",
				       .path = live ? ef_feature_contract_path(live->files) : NULL,
				       .uid = -1};
	if (begins(code, "EF_BUDGET_"))
		return (struct ef_who){.source = "budget", .uid = -1};
	if (!strcmp(code, "EF_HOST_POLICY_MALFORMED"))
		return (struct ef_who){.source = "policy", .uid = -1};
	if (!strcmp(code, "EF_NOT_WANTED") || !strcmp(code, "EF_NO_DESIRED") ||
	    !strcmp(code, "EF_DESIRED_MALFORMED"))
		return by_file("desired", service->inputs.desired_path);
	return (struct ef_who){.source = "loader", .uid = -1};
}

/* ---- the host ---- */

void ef_report_policy(struct ef_service *service) {
	const struct ef_who who = by_file("policy", service->inputs.policy_path);
	struct ef_reason why;

	if (*service->inputs.policy_error)
		ef_reason_set(&why, "EF_HOST_POLICY_MALFORMED", "%s", service->inputs.policy_error);
	else if (service->inputs.policy_result == EF_POLICY_READ)
		ef_reason_set(&why, "EF_OK", "%s holds", service->inputs.policy_path);
	else
		ef_reason_set(&why, "EF_OK",
			      "there is no %s: budgets are measured and not enforced",
			      service->inputs.policy_path);
	ef_audit_host(service->audit, "policy", &why, &who);
}

void ef_report_start(struct ef_service *service) {
	const struct ef_who who = {.source = "loader", .uid = -1};
	struct ef_reason why;

	ef_audit_bundle(service->audit, service->bundle ? ef_bundle_digest(service->bundle) : NULL);
	ef_reason_set(&why, "EF_OK", "loader " EF_LOADER_VERSION " starts on %s%s%s",
		      ef_kernel_release(&service->kernel), service->mark_sentence,
		      service->broad ? "; it keeps CAP_SYS_ADMIN: the kernel has no CAP_BPF" : "");
	ef_audit_host(service->audit, "start", &why, &who);
	if (service->bundle)
		return;
	ef_reason_set(&why, service->refusal.code, "%s", service->refusal.reason);
	ef_audit_host(service->audit, "refuse", &why, &who);
}

void ef_report_stop(struct ef_service *service, int err) {
	const struct ef_who who = {.source = service->stopping ? "signal" : "loader", .uid = -1};
	struct ef_reason why;

	if (err)
		ef_reason_set(&why, "EF_UNKNOWN", "the loader stops: %s", strerror(-err));
	else if (service->bundle)
		ef_reason_set(&why, "EF_OK", "the loader was stopped");
	else
		ef_reason_set(&why, service->refusal.code, "the loader ends: refused");
	ef_audit_host(service->audit, "stop", &why, &who);
}

static bool has(const struct ef_orders *orders, const struct ef_order *order) {
	for (size_t i = 0; i < orders->n; i++)
		if (!strcmp(ef_order_path(&orders->orders[i]), ef_order_path(order)))
			return true;
	return false;
}

/* Orders of one that the other lacks. */
static void tell_orders(struct ef_service *service, const char *event, const struct ef_orders *of,
			const struct ef_orders *lacking) {
	struct ef_reason why;

	for (size_t i = 0; i < of->n; i++) {
		const struct ef_order *order = &of->orders[i];
		struct ef_who who = by_file("kill file", ef_order_path(order));

		if (has(lacking, order))
			continue;
		ef_reason_set(&why, ef_order_code(order), "kill order %s %s", ef_order_scope(order),
			      strcmp(event, "kill") ? "was removed" : "holds");
		ef_audit_host(service->audit, event, &why, &who);
	}
}

void ef_report_orders(struct ef_service *service, const struct ef_orders *before) {
	tell_orders(service, "kill", &service->inputs.orders, before);
	tell_orders(service, "unkill", before, &service->inputs.orders);
}

void ef_report_lease(struct ef_service *service, const struct ef_lease *before) {
	const struct ef_lease *now = &service->inputs.lease;
	const struct ef_who who = {
	    .source = "lease", .path = service->inputs.lease_path, .uid = now->uid};
	struct ef_reason why;

	if (now->unusable)
		ef_lease_reason(now, &why);
	else if (now->there)
		ef_reason_set(&why, "EF_OK", "%s by '%s' until %lld ns of the boot's clock",
			      before->there ? "renewed" : "granted", now->holder,
			      (long long)now->expires_ns);
	else
		ef_reason_set(&why, "EF_OK", "removed: the probation is over");
	ef_audit_host(service->audit, "lease", &why, &who);
}

void ef_report_expiry(struct ef_service *service) {
	struct ef_reason why;
	struct ef_who who;

	ef_lease_reason(&service->inputs.lease, &why);
	who = ef_report_who(service, NULL, ef_reason_code(&why));
	ef_audit_host(service->audit, "expire", &why, &who);
}

void ef_report_standing(struct ef_service *service) {
	struct ef_reason why;
	struct ef_who who;

	if (ef_standing_is_lost(&service->inputs.standing))
		ef_standing_reason(&service->inputs.standing, &why);
	else
		ef_reason_set(&why, "EF_OK",
			      "the signer of the release that runs is trusted again");
	who = by_file("trust", trust_path(service));
	ef_audit_host(service->audit, "trust", &why, &who);
}

static bool same_wishes(const struct ef_desired *a, const struct ef_desired *b) {
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->wishes[i].feature, b->wishes[i].feature) ||
		    a->wishes[i].enabled != b->wishes[i].enabled ||
		    a->wishes[i].sample_every != b->wishes[i].sample_every)
			return false;
	return true;
}

/* "runqlat exec_events/10": what is wanted, with its sampling where one was asked for. */
static void list_wishes(const struct ef_desired *desired, char *text, size_t size) {
	size_t used = 0;

	text[0] = 0;
	for (size_t i = 0; i < desired->n && used < size; i++) {
		const struct ef_wish *wish = &desired->wishes[i];

		if (wish->enabled)
			used += (size_t)snprintf(text + used, size - used, " %s/%u", wish->feature,
						 wish->sample_every);
	}
}

void ef_report_desired(struct ef_service *service, const struct ef_desired *before, bool changed) {
	struct ef_who who = by_file("desired", service->inputs.desired_path);
	struct ef_reason why;
	char wanted[400];

	if (!changed && same_wishes(before, &service->inputs.desired))
		return;
	list_wishes(&service->inputs.desired, wanted, sizeof(wanted));
	if (*service->inputs.desired_error)
		ef_reason_set(&why, "EF_DESIRED_MALFORMED", "%s", service->inputs.desired_error);
	else if (service->inputs.desired_result == EF_DESIRED_ABSENT)
		ef_reason_set(&why, "EF_NO_DESIRED", "there is no %s",
			      service->inputs.desired_path);
	else
		ef_reason_set(&why, "EF_OK", "wanted (feature/sampling, 0: the contract's):%s",
			      *wanted ? wanted : " nothing");
	ef_audit_host(service->audit, "desired", &why, &who);
}

/* ---- features ---- */

static const struct ef_who by_loader = {.source = "loader", .uid = -1};

void ef_report_loaded(void *data, const struct ef_live *live) {
	struct ef_service *service = data;
	struct ef_reason why;

	ef_reason_set(&why, "EF_OK", "the kernel took variant %s",
		      ef_contract_variant_name(live->attached.variant));
	ef_audit_feature(service->audit, "load", ef_live_name(live), ef_live_what(live), &why,
			 &by_loader);
}

void ef_report_refused(void *data, const struct ef_live *live, const char *variant,
		       const struct ef_reason *why) {
	struct ef_service *service = data;

	ef_audit_feature(service->audit, "refuse", ef_live_name(live),
			 json_pack("{s:s}", "variant", variant), why, &by_loader);
}

void ef_report_attached(struct ef_service *service, struct ef_live *live) {
	struct ef_who who = by_file("desired", service->inputs.desired_path);

	ef_live_remember(live);
	ef_audit_feature(service->audit, "attach", ef_live_name(live), ef_live_what(live),
			 &live->decided.reason, &who);
}

static const char *backpressure_code(const struct ef_live *live) {
	return live->counted.backpressure.kind == EF_BACKPRESSURE_SAMPLE
		   ? "EF_BACKPRESSURE_SAMPLE"
		   : "EF_BACKPRESSURE_AGGREGATE";
}

void ef_report_backpressure(struct ef_service *service, struct ef_live *live,
			    enum ef_backpressure_change change) {
	const struct ef_who who = {.source = "backpressure", .uid = -1};
	const struct ef_strain *at = &live->counted.backpressure.at;
	bool begun = change == EF_BACKPRESSURE_BEGUN;
	struct ef_reason why;

	if (change == EF_BACKPRESSURE_CHANGED)
		return; /* the status tells how far; a record for each level would be a flood */
	if (begun)
		ef_reason_set(&why, backpressure_code(live),
			      "its reader is behind: %" PRIu64 " of %" PRIu64
			      " bytes of its ring were full, %" PRIu64
			      " events were dropped since the check before; its contract says %s",
			      at->lag_bytes, at->ring_bytes, at->dropped,
			      ef_backpressure_name(live->counted.backpressure.kind));
	else
		ef_reason_set(&why, "EF_OK", "its reader keeps up again");
	ef_notice("feature %s: backpressure %s: %s (%s)", ef_live_name(live),
		  begun ? "begins" : "ends", ef_reason_text(&why), ef_reason_code(&why));
	ef_audit_feature(service->audit, begun ? "degrade" : "recover", ef_live_name(live),
			 ef_live_what(live), &why, &who);
}

void ef_report_unshipped(struct ef_service *service, const struct ef_sink_state *state) {
	const struct ef_who who = {.source = "sink", .uid = -1};
	struct ef_reason why;

	ef_reason_set(&why, "EF_RECORDS_UNSHIPPED",
		      "%" PRId64
		      " bytes of events were removed before the log shipper took them: it "
		      "is at segment %" PRId64 ", segment %" PRId64
		      " is written; start it, or allow more with sink.files and sink.file_bytes",
		      state->unshipped_deleted_bytes, state->cursor_segment, state->segment);
	ef_warn("%s (%s)", ef_reason_text(&why), ef_reason_code(&why));
	ef_audit_host(service->audit, "degrade", &why, &who);
}

void ef_report_fairness(struct ef_service *service, struct ef_live *live,
			enum ef_fairness_change change) {
	const struct ef_who who = {.source = "fairness", .uid = -1};
	bool begun = change == EF_FAIRNESS_BEGUN;
	struct ef_reason why;
	char loudest[256];

	ef_fairness_sentence(&live->counted.fairness, loudest, sizeof(loudest));
	if (begun)
		ef_reason_set(&why, "EF_FAIRNESS_THINNED",
			      "more than the %" PRId64
			      " events a second that may pass; the loudest sources are thinned: %s",
			      live->asked.rate, loudest);
	else
		ef_reason_set(&why, "EF_OK", "no source was thinned for %d s", EF_FAIRNESS_CALM_S);
	if (begun)
		ef_warn("feature %s: fairness begins: %s (%s)", ef_live_name(live),
			ef_reason_text(&why), ef_reason_code(&why));
	else
		ef_notice("feature %s: fairness ends: %s (%s)", ef_live_name(live),
			  ef_reason_text(&why), ef_reason_code(&why));
	ef_audit_feature(service->audit, begun ? "degrade" : "recover", ef_live_name(live),
			 ef_live_what(live), &why, &who);
}

void ef_report_off(struct ef_service *service, struct ef_live *live, const struct ef_reason *why,
		   bool was_attached, bool changed) {
	struct ef_who who = ef_report_who(service, live, ef_reason_code(why));

	if (changed && !strcmp(ef_reason_code(why), "EF_EXPIRED"))
		ef_audit_feature(service->audit, "expire", ef_live_name(live), ef_live_what(live),
				 why, &who);
	if (was_attached)
		ef_audit_feature(service->audit, "detach", ef_live_name(live), ef_live_what(live),
				 why, &who);
	ef_live_forget(live);
}
