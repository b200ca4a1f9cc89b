/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/service.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/version.h"
#include "kernel/bpflog.h"
#include "kernel/privilege.h"
#include "kernel/process.h"
#include "kernel/seccomp.h"
#include "run/apply.h"
#include "run/background.h"
#include "run/guard.h"
#include "run/handover.h"
#include "run/loop.h"
#include "run/open.h"
#include "run/publish.h"
#include "run/report.h"
#include "run/seen.h"
#include "run/wake.h"
#include "tell/notify.h"

static int refused(struct ef_service *service) {
	ef_report_start(service);
	ef_err("refused: %s (%s)", service->refusal.reason, service->refusal.code);
	ef_orders_read(service->options.etc, service->options.run, &service->kernel, NULL,
		       &service->inputs.orders);
	ef_publish(service);
	ef_notify("STATUS=refused: see the journal");
	ef_report_stop(service, 0);
	return EF_EXIT_REFUSED;
}

static void drop_privileges(struct ef_service *service) {
	uint64_t keep = ef_privilege_kept(ef_privilege_last_cap());
	int err;

	service->stats_fd = ef_privilege_stats();
	if (service->stats_fd < 0)
		ef_warn(
		    "runs of programs are not counted: %s; give the unit CAP_SYS_ADMIN, which it "
		    "gives up at start",
		    strerror(-service->stats_fd));
	err = ef_privilege_drop(keep);
	if (err)
		ef_warn("capabilities cannot be given up: %s", strerror(-err));
	service->broad = ef_privilege_is_broad(keep);
	if (service->broad)
		ef_warn("CAP_SYS_ADMIN is kept: this kernel is older than 5.8 and has no CAP_BPF; "
			"a newer kernel lets it go");
}

/* Behind us stands the unit's SystemCallFilter=: a host is not left without eyes for this. */
static void filter_system_calls(void) {
	int err = ef_seccomp_install();

	if (err == -EOPNOTSUPP)
		ef_notice("this build has no system call filter of its own");
	else if (err)
		ef_warn("system calls are not filtered: %s; only the unit's SystemCallFilter= "
			"limits them; see that it allows seccomp",
			strerror(-err));
}

static int make_state_folder(const struct ef_service *service) {
	if (!mkdir(service->options.state, 0755) || errno == EEXIST)
		return 0;
	ef_err("cannot make %s: %s; make it, or give --state", service->options.state,
	       strerror(errno));
	return -1;
}

/* The sink is that of policy.json at start; a bad one lets no feature run, and is told later.
 */
static struct ef_sink *open_sink(const struct ef_service *service) {
	struct ef_policy policy;
	struct ef_sink *sink;
	char error[1024];

	ef_policy_read(service->inputs.policy_path, &policy, error, sizeof(error));
	sink = ef_sink_new(service->options.log, &policy.sink);
	ef_policy_free(&policy);
	return sink;
}

static void name_trust(struct ef_service *service) {
	const struct ef_options *options = &service->options;

	service->signers_path = ef_must(ef_path_join(options->etc, EF_TRUST_SIGNERS));
	service->revoked_path = ef_must(ef_path_join(options->etc, EF_TRUST_REVOKED));
	service->trust = (struct ef_trust_paths){
	    .allowed_signers = options->trust ? options->trust : service->signers_path,
	    .revoked_keys = options->revoked ? options->revoked : service->revoked_path,
	    .revoked_required = options->revoked != NULL,
	};
}

static void begin(struct ef_service *service) {
	ef_kernel_read(&service->kernel);
	ef_boot_id(service->boot_id, sizeof(service->boot_id));
	service->started_boottime_ns = ef_process_start_ns(getpid());
	service->began_boottime_ns = ef_clock_ns(CLOCK_BOOTTIME);
	service->began_unix_ns = ef_clock_ns(CLOCK_REALTIME);
	service->inputs.desired_path = ef_must(ef_path_join(service->options.etc, "desired.json"));
	service->inputs.lease_path = ef_must(ef_path_join(service->options.etc, EF_LEASE_FILE));
	service->inputs.policy_path = ef_must(ef_path_join(service->options.etc, EF_POLICY_FILE));
	name_trust(service);
	service->audit = ef_audit_new(service->options.log, service->boot_id);
	service->sink = open_sink(service);
}

/* Detach first; then there is time to say so. */
static void stop(struct ef_service *service) {
	bool leaves = service->handover.phase == EF_HANDOVER_LEAVING;
	bool is_next = ef_handover_is_silent(service); /* and has not taken over */
	struct ef_reason why;

	if (leaves)
		ef_seen_write(service); /* what it lacks from here on is the next one's */
	service->handover.cut_ns = ef_clock_ns(CLOCK_BOOTTIME);
	for (size_t i = 0; i < service->n; i++)
		ef_live_cut(&service->lives[i]);
	if (!leaves && !is_next)
		ef_notify("STOPPING=1");
	ef_reason_set(&why, "EF_NOT_WANTED",
		      leaves ? "the next loader has it" : "the loader was stopped");
	for (size_t i = 0; i < service->n; i++)
		ef_apply_off(service, &service->lives[i], EF_STATE_OFF, &why);
	if (leaves)
		ef_handover_leave(service);
	else
		ef_publish(service);
}

static void start_guard(struct ef_service *service) {
	int err = ef_guard_start(service);

	if (err)
		ef_warn("no thread for the guard: %s; a kill order waits while the disk or the "
			"journal holds the loader up; allow the unit more tasks",
			strerror(-err));
}

static int serve(struct ef_service *service) {
	int err;

	ef_report_start(service);
	err = ef_wake_open(service);
	if (!err) {
		service->woken_ns = ef_clock_ns(CLOCK_MONOTONIC);
		if (service->options.handover)
			ef_handover_close_gates(service);
		ef_loop_rescan(service, true);
		if (!service->options.handover)
			ef_seen_read(service, true);
		start_guard(service);
		err = ef_loop(service);
	}
	stop(service);
	ef_guard_stop(service);
	ef_report_stop(service, err);
	if (err)
		ef_err("the loader stops: %s", strerror(-err));
	return err || service->handover.failed ? EF_EXIT_FAILED : EF_EXIT_OK;
}

static void end(struct ef_service *service) {
	ef_close_features(service);
	ef_sink_free(service->sink);
	ef_audit_free(service->audit);
	ef_inputs_free(&service->inputs);
	ef_bundle_free(service->bundle);
	ef_kernel_clear(&service->kernel);
	json_decref(service->compatibility);
	free(service->signers_path);
	free(service->revoked_path);
}

/* Whatever the bundle is, reading it is under the filter. */
static int filtered(struct ef_service *service) {
	filter_system_calls();
	return ef_open_bundle(service) ? refused(service) : serve(service);
}

int ef_service_run(const struct ef_options *options) {
	struct ef_service service = {
	    .options = *options, .stats_fd = -1, .watch_fd = -1, .epoll_fd = -1, .guard_fd = -1};
	int code;

	if (options->handover && ef_background_start(&service.handover.parent_fd, &code))
		return code;
	mallopt(M_ARENA_MAX, 1); /* the guard needs next to nothing: no heap of its own */
	ef_log_never_wait();
	ef_bpflog_start();
	drop_privileges(&service);
	begin(&service);
	if (make_state_folder(&service) || (options->handover && ef_handover_call(&service)))
		code = EF_EXIT_FAILED;
	else
		code = filtered(&service);
	end(&service);
	ef_background_tell(&service.handover.parent_fd, code ? code : EF_EXIT_FAILED);
	return code;
}
