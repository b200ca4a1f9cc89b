/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "service.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "bpflog.h"
#include "btfindex.h"
#include "commands.h"
#include "expiry.h"
#include "guard.h"
#include "hook.h"
#include "log.h"
#include "mark.h"
#include "must.h"
#include "notify.h"
#include "paths.h"
#include "pressure.h"
#include "privilege.h"
#include "seccomp.h"
#include "status.h"
#include "trail.h"
#include "util.h"
#include "watch.h"

#define FAIR_FLOOR 100 /* events a second; as a fair contract allows at least */
#define UNSHIPPED_CALM_NS 600000000000LL
#define TRIM_TICKS 12  /* a minute at the usual interval */
#define POLL_MS 100    /* how long an event may wait in its ring */
#define QUIET_POLLS 50 /* in a row that found nothing, before they are fewer */
#define QUIET_POLL_MS 300
#define READ_LIMIT 4096 /* records of one feature before the loop looks at its orders again */

enum source { SOURCE_SIGNAL, SOURCE_WATCH, SOURCE_TICK, SOURCE_POLL, SOURCE_RING, SOURCE_EXPIRY };

/*
 * A ring tells of each wake-up once: as long as it is not empty it would be
 * ready, and under load the loop would read it record by record.
 */
static int watch_fd_for_epoll(struct ef_service *service, int fd, enum source source) {
	struct epoll_event event = {.events = EPOLLIN | (source == SOURCE_RING ? EPOLLET : 0),
				    .data.u32 = source};

	return epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static int set_timer(int fd, uint64_t period_ns) {
	struct itimerspec spec = {
	    .it_interval = {(time_t)(period_ns / 1000000000), (long)(period_ns % 1000000000)}};

	spec.it_value = spec.it_interval;
	return timerfd_settime(fd, 0, &spec, NULL) ? -errno : 0;
}

static void clear_timer(int fd) {
	uint64_t expirations;

	if (read(fd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
		ef_err("a timer cannot be read: %s", strerror(errno));
}

/* ---- what should be ---- */

/* A fresh watch, before anything is read; without one the poll timer does it. */
static void renew_watch(struct ef_service *service) {
	_cleanup_free_ char *etc = ef_must(ef_path_join(service->options.etc, "kill.d"));
	_cleanup_free_ char *run = ef_must(ef_path_join(service->options.run, "kill.d"));
	const char *folders[] = {etc, run};
	const char *files[] = {service->desired_path, service->lease_path, service->policy_path,
			       service->trust.allowed_signers, service->trust.revoked_keys};
	int fd = ef_watch_open(folders, 2, files, EF_ARRAY_SIZE(files));
	int err = fd < 0 ? fd : watch_fd_for_epoll(service, fd, SOURCE_WATCH);

	if (err && fd >= 0)
		close(fd);
	if (err && !service->watch_failing)
		ef_err("orders cannot be watched for: %s; they are looked for every %d ms; raise "
		       "fs.inotify.max_user_instances and max_user_watches",
		       strerror(-err), POLL_MS);
	service->watch_failing = err != 0;
	if (service->watch_fd >= 0)
		close(service->watch_fd);
	service->watch_fd = err ? -1 : fd;
}

/* True when the orders are not what they were; *before is the caller's to free. */
static bool read_orders(struct ef_service *service, struct ef_orders *before) {
	*before = service->orders;
	ef_orders_read(service->options.etc, service->options.run, &service->kernel,
		       service->bundle, &service->orders);
	return !ef_orders_equal(&service->orders, before);
}

/* Off is always allowed; that strangers can say it must be known. */
static void say_folder(const char *order) {
	_cleanup_free_ char *folder = ef_must(strdup(order));
	char why[400];

	*strrchr(folder, '/') = 0;
	if (ef_folder_check(folder, why, sizeof(why)) == -EPERM)
		ef_warn("kill order %s is obeyed, whoever gave it: %s", order, why);
}

static void say_orders(const struct ef_service *service) {
	const struct ef_orders *orders = &service->orders;

	for (size_t i = 0; i < orders->n; i++) {
		ef_notice("kill order %s holds", orders->orders[i].path);
		say_folder(orders->orders[i].path);
	}
	for (size_t i = 0; i < orders->n_unknown; i++)
		ef_warn(
		    "kill order %s is not understood and holds nothing: the name must be global, "
		    "feature.NAME or family.FAMILY",
		    orders->unknown[i]);
}

/* Detach what the orders forbid; returns how many features that were, the guard's too. */
static unsigned cut_killed(struct ef_service *service) {
	unsigned cut = __atomic_exchange_n(&service->cut_by_guard, 0, __ATOMIC_RELAXED);

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];

		if (ef_orders_feature(&service->orders, live->files->name))
			cut += ef_live_cut(live);
	}
	return cut;
}

/*
 * Read the orders and detach. Nothing stands between an order and its effect,
 * not even a message: a journal may block. True when the orders changed.
 */
static bool obey(struct ef_service *service) {
	struct ef_orders before;
	bool changed = read_orders(service, &before);
	unsigned cut = cut_killed(service);
	int64_t took_ns = ef_clock_ns(CLOCK_MONOTONIC) - service->woken_ns;

	if (changed) {
		say_orders(service);
		ef_trail_orders(service, &before);
	}
	ef_orders_free(&before);
	if (cut)
		ef_notice("kill: %u features detached %lld us after the order was seen", cut,
			  (long long)took_ns / 1000);
	return changed;
}

static bool same_error(struct ef_service *service, const char *error) {
	if (!strcmp(service->desired_error, error))
		return true;
	snprintf(service->desired_error, sizeof(service->desired_error), "%s", error);
	if (*error)
		ef_err("%s", error);
	return false;
}

/* What cannot be read leaves in force what was; true when a word of it is new. */
static bool read_desired(struct ef_service *service, bool at_start) {
	char error[sizeof(service->desired_error)];
	struct ef_desired desired;
	enum ef_desired_result result = ef_desired_read(
	    service->desired_path, service->bundle->digest, &desired, error, sizeof(error));
	bool changed = !same_error(service, error) || result != service->desired_result;
	struct ef_desired before = service->desired;

	if (result == EF_DESIRED_BAD && !at_start) {
		ef_trail_desired(service, &before, changed);
		return changed;
	}
	service->desired = desired;
	service->desired_result = result;
	ef_trail_desired(service, &before, changed || at_start);
	ef_desired_free(&before);
	return changed;
}

/* As desired.json: what cannot be read leaves in force what was. True when a word of it is new. */
static bool read_policy(struct ef_service *service, bool at_start) {
	char error[sizeof(service->policy_error)];
	struct ef_policy policy;
	enum ef_policy_result result =
	    ef_policy_read(service->policy_path, &policy, error, sizeof(error));
	bool changed = strcmp(error, service->policy_error) ||
		       (result != EF_POLICY_BAD && (result != service->policy_result ||
						    !ef_policy_equal(&policy, &service->policy)));

	if (*error && strcmp(error, service->policy_error))
		ef_err("%s", error);
	snprintf(service->policy_error, sizeof(service->policy_error), "%s", error);
	if (result == EF_POLICY_BAD && !at_start) {
		if (changed)
			ef_trail_policy(service);
		ef_policy_free(&policy);
		return changed;
	}
	ef_policy_free(&service->policy);
	service->policy = policy;
	service->policy_result = result;
	if (changed && !(at_start && result == EF_POLICY_ABSENT))
		ef_trail_policy(service);
	return changed;
}

static bool wants(const struct ef_service *service, const struct ef_live *live,
		  struct ef_reason *why) {
	const struct ef_wish *wish = ef_desired_find(&service->desired, live->files->name);

	if (wish && wish->enabled)
		return true;
	if (service->desired_result == EF_DESIRED_ABSENT)
		ef_reason_set(why, "EF_NO_DESIRED", "there is no %s", service->desired_path);
	else if (service->desired_result == EF_DESIRED_BAD)
		ef_reason_set(why, "EF_DESIRED_MALFORMED", "%s", service->desired_error);
	else
		ef_reason_set(why, "EF_NOT_WANTED", "desired.json does not want it");
	return false;
}

/* Bring a feature to rest in a state; true when that is a change. */
static bool rest(struct ef_service *service, struct ef_live *live, enum ef_state state,
		 const struct ef_reason *why) {
	bool was_attached = live->object != NULL;
	bool changed =
	    live->state != state || !live->reason.code || strcmp(live->reason.code, why->code);

	ef_live_detach(live, service->sink);
	live->state = state;
	live->due = false;
	live->reason = *why;
	live->retry_ns = 0;
	live->retries = 0;
	if (was_attached)
		ef_notice("feature %s: detached: %s (%s)", live->files->name, why->text, why->code);
	ef_trail_rest(service, live, why, was_attached, changed);
	return changed;
}

/* Detached, to be attached again at once. */
static void begin_anew(struct ef_service *service, struct ef_live *live, const char *why) {
	struct ef_reason reason;

	ef_reason_set(&reason, "EF_OK", "%s", why);
	ef_live_detach(live, service->sink);
	live->state = EF_STATE_OFF;
	ef_trail_rest(service, live, &reason, true, false);
}

/* Orders and wishes for one feature; true when it changed. */
static bool decide(struct ef_service *service, struct ef_live *live) {
	const struct ef_order *order = ef_orders_feature(&service->orders, live->files->name);
	struct ef_reason why = {0};
	bool wanted = wants(service, live, &why);

	live->wanted = wanted;
	if (order) {
		ef_reason_set(&why, ef_order_code(order), "kill order %s; remove it to release",
			      order->path);
		return rest(service, live, EF_STATE_KILLED, &why);
	}
	if (service->lease_expired) {
		ef_lease_reason(&service->lease, &why);
		return rest(service, live, EF_STATE_OFF, &why);
	}
	if (service->standing.lost) {
		ef_standing_reason(&service->standing, &why);
		return rest(service, live, EF_STATE_OFF, &why);
	}
	if (!wanted) {
		ef_fall_forget(&live->fall);
		return rest(service, live, EF_STATE_OFF, &why);
	}
	if (service->policy_result == EF_POLICY_BAD) {
		ef_reason_set(&why, "EF_HOST_POLICY_MALFORMED", "%s", service->policy_error);
		return rest(service, live, EF_STATE_OFF, &why);
	}
	if (ef_contract_expired_at(&live->contract, service->wall_s)) {
		ef_reason_set(&why, "EF_EXPIRED",
			      "its contract expired on %d; renew it and release again",
			      live->contract.expires);
		return rest(service, live, EF_STATE_DISABLED, &why);
	}
	if (live->contract.expires && !ef_expiry_moment(service).known) {
		ef_reason_set(&why, "EF_CLOCK_UNKNOWN",
			      "it runs until %d, and this host's clock stands before what has "
			      "happened already; set the clock",
			      live->contract.expires);
		return rest(service, live, EF_STATE_OFF, &why);
	}
	if (live->fall.shed) {
		ef_pressure_reason(live, &why);
		return rest(service, live, EF_STATE_SHED, &why);
	}
	if (live->object && live->without_full != live->fall.reduced)
		begin_anew(service, live, "its budget allows another variant than before");
	if (live->object && !ef_live_linked(live))
		begin_anew(service, live, "cut by an order or a lease that is no more");
	if (ef_live_stale(live)) {
		ef_notice("feature %s: a CPU came or went: it is attached anew with buffers for "
			  "those that are there",
			  live->files->name);
		begin_anew(service, live, "a CPU came or went: buffers for those that are there");
	}
	if (live->state == EF_STATE_ATTACHED || live->due || ef_live_tried_in_vain(live))
		return false; /* as it should be, or nothing to be done */
	ef_reason_set(&live->reason, "EF_UNKNOWN", "about to be attached");
	live->state = EF_STATE_OFF;
	live->due = true;
	return true;
}

/* The feature's limit in force, or the host's where that is smaller; -1: there is neither. */
static int64_t rate_allowed(const struct ef_service *service, const struct ef_live *live) {
	struct ef_amounts limits =
	    ef_policy_limits(&service->policy, live->files->name, &live->contract.budget);
	int64_t rate = limits.of[EF_BUDGET_EVENT_RATE];
	int64_t of_host = service->policy.host.of[EF_BUDGET_EVENT_RATE];

	return rate < 0 || (of_host >= 0 && of_host < rate) ? of_host : rate;
}

static int64_t thinned_rate(int64_t rate, uint64_t thinning, int64_t allowed) {
	int64_t thinned = rate / (int64_t)thinning;

	if (thinned < FAIR_FLOOR)
		thinned = FAIR_FLOOR;
	return allowed >= 0 && allowed < thinned ? allowed : thinned;
}

/*
 * What a budget or a reader that is behind takes from a fair feature it takes from
 * the loudest first: of the rate that there was, or that is allowed, only a part may
 * pass, and never less than FAIR_FLOOR: with fewer places there is no share for a quiet
 * source. False: neither rate is known.
 */
static bool apply_limit(struct ef_service *service, struct ef_live *live, uint64_t thinning) {
	int64_t allowed = rate_allowed(service, live), rate = allowed;
	int64_t from = live->fall.thinning > 1 ? live->thinned_from : -1;
	int err;

	if (from >= 0 && (rate < 0 || from < rate))
		rate = from;
	if (thinning > 1 && rate < 0)
		return false;
	if (thinning > 1)
		rate = thinned_rate(rate, thinning, allowed);
	err = ef_live_limit(live, rate);
	if (err)
		ef_err("feature %s: its rate cannot be limited: %s", live->files->name,
		       strerror(-err));
	return true;
}

static bool apply_sampling(struct ef_service *service, struct ef_live *live) {
	const struct ef_wish *wish = ef_desired_find(&service->desired, live->files->name);
	uint32_t asked =
	    wish && wish->sample_every ? wish->sample_every : live->contract.sample_every;
	uint64_t thinning = (uint64_t)(live->fall.thinning ? live->fall.thinning : 1) *
			    ef_backpressure_thinning(&live->backpressure);
	uint64_t thinned = asked * thinning;
	uint32_t every;
	int err;

	if (ef_live_is_fair(live) && apply_limit(service, live, thinning))
		thinned = asked;
	every = thinned > UINT32_MAX ? UINT32_MAX : (uint32_t)thinned;
	if (every == live->sample_every)
		return false;
	err = ef_live_sample(live, every);
	if (err == -EOPNOTSUPP)
		ef_warn("feature %s: its object knows no sampling: every event is taken",
			live->files->name);
	else if (err)
		ef_err("feature %s: sampling cannot be set: %s", live->files->name, strerror(-err));
	return true;
}

static void set_poll_timer(struct ef_service *service) {
	bool needed = service->watch_fd < 0;
	uint64_t period_ms = POLL_MS;

	for (size_t i = 0; i < service->n; i++)
		needed |= service->lives[i].feed != NULL;
	if (service->watch_fd >= 0 && service->quiet_polls >= QUIET_POLLS)
		period_ms = QUIET_POLL_MS;
	set_timer(service->poll_fd, needed ? period_ms * 1000000 : 0);
}

/* Read orders and wishes and act on what takes features away; true on any change. */
static bool rescan(struct ef_service *service, bool at_start) {
	bool changed = obey(service);

	renew_watch(service);
	changed |= obey(service); /* an order may have come before the new watch */
	changed |= ef_expiry_obey(service);
	changed |= read_policy(service, at_start);
	changed |= read_desired(service, at_start);
	for (size_t i = 0; i < service->n; i++) {
		changed |= decide(service, &service->lives[i]);
		changed |= apply_sampling(service, &service->lives[i]);
	}
	set_poll_timer(service);
	return changed;
}

/* ---- attaching, one at a time ---- */

static struct ef_live *next_due(struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].due)
			return &service->lives[i];
	return NULL;
}

/* A cost of once, which no running budget is charged with. */
static bool attach(struct ef_service *service, struct ef_live *live) {
	int64_t before_ns = ef_self_cpu_ns();
	bool attached = ef_live_attach(live, &service->kernel, service->sink);

	service->attaching_ns += ef_self_cpu_ns() - before_ns;
	return attached;
}

static void attach_next(struct ef_service *service, struct ef_live *live) {
	live->due = false;
	if (!attach(service, live)) {
		ef_warn("feature %s: disabled: %s (%s)", live->files->name, live->reason.text,
			live->reason.code);
		return;
	}
	if (live->feed && watch_fd_for_epoll(service, ef_feed_fd(live->feed), SOURCE_RING))
		ef_err("feature %s: its ring cannot be waited on: %s; it is read every %d ms",
		       live->files->name, strerror(errno), POLL_MS);
	set_poll_timer(service);
	ef_status_publish(service); /* before it is announced */
	ef_trail_attached(service, live);
	ef_notice("feature %s: attached: variant %s, %zu programs", live->files->name,
		  live->variant->name, json_array_size(live->variant->programs));
}

static void say_compatibility(struct ef_service *service) {
	json_t *now = ef_status_compatibility(service);
	_cleanup_free_ char *line = NULL;

	if (service->compatibility &&
	    json_equal(json_object_get(now, "features"),
		       json_object_get(service->compatibility, "features"))) {
		json_decref(now);
		return;
	}
	json_decref(service->compatibility);
	service->compatibility = now;
	line = ef_must(json_dumps(now, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII));
	ef_log_line(EF_LOG_INFO, "", line);
}

/* Everything that was due has been tried: say how things stand. */
static void settle(struct ef_service *service) {
	struct ef_reason why;
	char message[700];

	service->settled = true;
	ef_hook_forget();
	say_compatibility(service);
	ef_status_publish(service);
	snprintf(message, sizeof(message), "READY=1\nSTATUS=%s: %s", ef_status_state(service, &why),
		 why.text);
	ef_notify(message);
}

/* ---- the loop ---- */

/* Before its records are read: so full is the ring that the reader found. */
static void look_at_strain(struct ef_service *service, struct ef_live *live) {
	enum ef_backpressure_change change = ef_live_look(live, ef_clock_ns(CLOCK_MONOTONIC));

	if (change == EF_BACKPRESSURE_SAME)
		return;
	apply_sampling(service, live);
	ef_trail_backpressure(service, live, change);
}

/* What its records cost is the feature's. True: there may be more. */
static bool read_ring(struct ef_service *service, struct ef_live *live) {
	int64_t before;
	bool more;

	look_at_strain(service, live);
	if (!ef_feed_lag(live->feed))
		return false; /* mostly so: not worth a look at the clock */
	service->any_read = true;
	before = ef_clock_ns(CLOCK_THREAD_CPUTIME_ID);
	more = ef_feed_read(live->feed, READ_LIMIT);
	live->consumer_ns += ef_clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
	return more;
}

static void read_rings(struct ef_service *service) {
	service->more = false;
	for (size_t i = 0; i < service->n; i++)
		if (service->lives[i].feed)
			service->more |= read_ring(service, &service->lives[i]);
}

static void on_signal(struct ef_service *service) {
	struct signalfd_siginfo info;

	while (read(service->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			service->settled &= !rescan(service, false);
		else
			service->stopping = true;
	}
}

/* Each status is a thousand small pieces that come and go; what they leave behind is given back. */
static void trim_memory(struct ef_service *service) {
	if (++service->ticks % TRIM_TICKS == 0)
		malloc_trim(0);
}

/* Who was thinned is read as often as it is told. */
static void look_at_fairness(struct ef_service *service) {
	int64_t now_ns = ef_clock_ns(CLOCK_MONOTONIC);

	for (size_t i = 0; i < service->n; i++) {
		struct ef_live *live = &service->lives[i];
		enum ef_fairness_change change = ef_live_look_fair(live, now_ns);

		if (change != EF_FAIRNESS_SAME)
			ef_trail_fairness(service, live, change);
	}
}

/* Records that are gone before a shipper took them: said once, until it was well for a while. */
static void look_at_shipping(struct ef_service *service) {
	int64_t now_ns = ef_clock_ns(CLOCK_MONOTONIC);
	struct ef_sink_state state;
	bool grew;

	ef_sink_tell(service->sink, &state);
	grew = state.unshipped_deleted_bytes > service->unshipped_deleted;
	if (grew && !service->unshipped_ns)
		ef_trail_unshipped(service, &state);
	if (grew)
		service->unshipped_ns = now_ns;
	else if (now_ns - service->unshipped_ns > UNSHIPPED_CALM_NS)
		service->unshipped_ns = 0;
	service->unshipped_deleted = state.unshipped_deleted_bytes;
}

static void on_tick(struct ef_service *service) {
	clear_timer(service->tick_fd);
	trim_memory(service);
	if (rescan(service, false))
		service->settled = false;
	look_at_fairness(service);
	look_at_shipping(service);
	ef_status_publish_interval(service);
	if (ef_pressure_act(service) && rescan(service, false))
		service->settled = false;
	ef_notify("WATCHDOG=1");
}

/* Did no ring have anything since the poll before, and is no reader behind? */
static bool is_quiet(struct ef_service *service) {
	bool quiet = !service->any_read;

	service->any_read = false;
	for (size_t i = 0; i < service->n; i++)
		quiet &= !service->lives[i].backpressure.level;
	return quiet;
}

/* Rings that stay empty are looked at less often: most of what idling costs is waking up. */
static void pace_polls(struct ef_service *service) {
	bool was_slow = service->quiet_polls >= QUIET_POLLS;

	if (!is_quiet(service))
		service->quiet_polls = 0;
	else if (!was_slow)
		service->quiet_polls++;
	if (was_slow != (service->quiet_polls >= QUIET_POLLS))
		set_poll_timer(service);
}

static void on_poll(struct ef_service *service) {
	clear_timer(service->poll_fd);
	read_rings(service);
	ef_sink_flush(service->sink); /* nothing waits longer than to the next */
	pace_polls(service);
	if (service->watch_fd < 0 && rescan(service, false))
		service->settled = false;
}

/* Read or not, a timer that was set anew is no longer ready; one of a clock that was set says
 * ECANCELED. */
static void on_expiry(struct ef_service *service) {
	if (rescan(service, false))
		service->settled = false;
}

/* The rings that are ready are read together, after all else. */
static void on_event(struct ef_service *service, enum source source) {
	if (source == SOURCE_SIGNAL)
		on_signal(service);
	else if (source == SOURCE_WATCH && rescan(service, false))
		service->settled = false;
	else if (source == SOURCE_TICK)
		on_tick(service);
	else if (source == SOURCE_POLL)
		on_poll(service);
	else if (source == SOURCE_EXPIRY)
		on_expiry(service);
	else if (source == SOURCE_RING)
		service->more = true;
}

/* Orders before all else that became ready in the same moment. */
static void dispatch(struct ef_service *service, const struct epoll_event *events, int n) {
	service->woken_ns = ef_clock_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < n; i++)
		if (events[i].data.u32 == SOURCE_WATCH)
			on_event(service, SOURCE_WATCH);
	for (int i = 0; i < n; i++)
		if (events[i].data.u32 != SOURCE_WATCH)
			on_event(service, events[i].data.u32);
}

/* Returns the number of events, 0 when a signal came between; -errno. */
static int wait_for_events(struct ef_service *service, struct epoll_event *events, int room,
			   bool busy) {
	int n;

	__atomic_store_n(&service->waiting, !busy, __ATOMIC_RELAXED);
	n = epoll_wait(service->epoll_fd, events, room, busy ? 0 : -1);
	__atomic_store_n(&service->waiting, false, __ATOMIC_RELAXED);
	__atomic_add_fetch(&service->round, 1, __ATOMIC_RELAXED);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	return n;
}

static int loop(struct ef_service *service) {
	struct epoll_event events[16];

	while (!service->stopping) {
		struct ef_live *due = next_due(service);
		bool busy = due || !service->settled || service->more;
		int n = wait_for_events(service, events, EF_ARRAY_SIZE(events), busy);

		if (n < 0)
			return n;
		dispatch(service, events, n);
		if (service->stopping)
			break;
		due = next_due(service);
		if (due)
			attach_next(service, due);
		else if (!service->settled)
			settle(service);
		if (service->more)
			read_rings(service);
	}
	return 0;
}

/* ---- start and end ---- */

static int make_fds(struct ef_service *service) {
	sigset_t signals;
	uint64_t watchdog_ns = ef_notify_watchdog_us() * 1000;
	uint64_t tick_ns = service->options.interval * 1000000000ULL;

	if (watchdog_ns && tick_ns > watchdog_ns / 3)
		tick_ns = watchdog_ns / 3;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	service->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	service->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	service->poll_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	service->lease_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	service->midnight_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (service->epoll_fd < 0 || service->signal_fd < 0 || service->tick_fd < 0 ||
	    service->poll_fd < 0 || service->lease_fd < 0 || service->midnight_fd < 0)
		return -errno;
	if (set_timer(service->tick_fd, tick_ns) ||
	    watch_fd_for_epoll(service, service->signal_fd, SOURCE_SIGNAL) ||
	    watch_fd_for_epoll(service, service->tick_fd, SOURCE_TICK) ||
	    watch_fd_for_epoll(service, service->poll_fd, SOURCE_POLL) ||
	    watch_fd_for_epoll(service, service->lease_fd, SOURCE_EXPIRY) ||
	    watch_fd_for_epoll(service, service->midnight_fd, SOURCE_EXPIRY))
		return -errno;
	return 0;
}

static int open_features(struct ef_service *service) {
	const struct ef_bundle *bundle = service->bundle;

	service->lives = ef_must(calloc(bundle->n_features + 1, sizeof(*service->lives)));
	for (size_t i = 0; i < bundle->n_features; i++) {
		struct ef_live *live = &service->lives[i];

		if (ef_contract_read(&bundle->features[i], &live->contract, &service->refusal))
			return -1;
		live->files = &bundle->features[i];
		live->audit = service->audit;
		live->sample_every = live->contract.sample_every;
		live->rate = live->thinned_from = -1;
		service->n++;
	}
	return 0;
}

static void close_features(struct ef_service *service) {
	for (size_t i = 0; i < service->n; i++) {
		ef_live_detach(&service->lives[i], service->sink);
		ef_live_free(&service->lives[i]);
	}
	free(service->lives);
	service->lives = NULL;
	service->n = 0;
}

/* What is in it is signed; who can write to it can still take it away or wear the host out. */
static int check_bundle_folder(struct ef_service *service) {
	const char *folder = service->options.bundle;
	char why[400];

	if (ef_folder_check(folder, why, sizeof(why)) != -EPERM)
		return 0; /* one that is not there is refused where it is opened */
	return ef_refuse(&service->refusal, "EF_PATH_UNSAFE", folder, "%s", why);
}

static int read_mark(struct ef_service *service, struct ef_mark *mark) {
	_cleanup_free_ char *path = ef_must(ef_path_join(service->options.etc, EF_MARK_FILE));

	return ef_mark_read(path, mark, &service->refusal);
}

/* A bundle below the mark is refused: what ran here once is not forgotten. */
static int hold_to_mark(struct ef_service *service, const struct ef_mark *mark) {
	int64_t created = service->bundle->created_s;

	service->floor_s = mark->seen > created ? mark->seen : created;
	return ef_mark_check(mark, service->bundle, &service->refusal);
}

static int open_bundle(struct ef_service *service) {
	struct ef_bundle_options how = {.clock_later = true};
	struct ef_mark mark;

	if (check_bundle_folder(service) || read_mark(service, &mark))
		return -1;
	ef_mark_sentence(&mark, service->mark_said, sizeof(service->mark_said));
	how.seen_s = mark.seen;
	if (ef_bundle_open(service->options.bundle, &service->trust, &how, &service->bundle,
			   &service->refusal))
		return -1;
	ef_btf_choose(service->bundle, &service->kernel);
	if (!hold_to_mark(service, &mark) && !open_features(service))
		return 0;
	close_features(service);
	ef_bundle_free(service->bundle);
	service->bundle = NULL;
	return -1;
}

static int refused(struct ef_service *service) {
	ef_trail_start(service);
	ef_err("refused: %s (%s)", service->refusal.reason, service->refusal.code);
	ef_orders_read(service->options.etc, service->options.run, &service->kernel, NULL,
		       &service->orders);
	ef_status_publish(service);
	ef_notify("STATUS=refused: see the journal");
	ef_trail_stop(service, 0);
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

/* The sink is the policy's at start; a policy that is bad lets no feature run, and is said later.
 */
static struct ef_sink *open_sink(const struct ef_service *service) {
	struct ef_policy policy;
	struct ef_sink *sink;
	char error[1024];

	ef_policy_read(service->policy_path, &policy, error, sizeof(error));
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
	service->desired_path = ef_must(ef_path_join(service->options.etc, "desired.json"));
	service->lease_path = ef_must(ef_path_join(service->options.etc, EF_LEASE_FILE));
	service->policy_path = ef_must(ef_path_join(service->options.etc, EF_POLICY_FILE));
	name_trust(service);
	service->audit = ef_audit_new(service->options.log, service->boot_id);
	service->sink = open_sink(service);
}

/* Detach first; then there is time to say so. */
static void stop(struct ef_service *service) {
	struct ef_reason why;

	for (size_t i = 0; i < service->n; i++)
		ef_live_cut(&service->lives[i]);
	ef_notify("STOPPING=1");
	ef_reason_set(&why, "EF_NOT_WANTED", "the loader was stopped");
	for (size_t i = 0; i < service->n; i++)
		rest(service, &service->lives[i], EF_STATE_OFF, &why);
	ef_status_publish(service);
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

	ef_trail_start(service);
	err = make_fds(service);
	if (!err) {
		service->woken_ns = ef_clock_ns(CLOCK_MONOTONIC);
		rescan(service, true);
		start_guard(service);
		err = loop(service);
	}
	stop(service);
	ef_guard_stop(service);
	ef_trail_stop(service, err);
	if (err)
		ef_err("the loader stops: %s", strerror(-err));
	return err ? EF_EXIT_FAILED : EF_EXIT_OK;
}

static void end(struct ef_service *service) {
	close_features(service);
	ef_sink_free(service->sink);
	ef_audit_free(service->audit);
	ef_orders_free(&service->orders);
	ef_desired_free(&service->desired);
	ef_bundle_free(service->bundle);
	ef_kernel_clear(&service->kernel);
	json_decref(service->compatibility);
	free(service->desired_path);
	free(service->lease_path);
	free(service->policy_path);
	free(service->signers_path);
	free(service->revoked_path);
	ef_policy_free(&service->policy);
}

/* Whatever the bundle is, reading it is under the filter. */
static int filtered(struct ef_service *service) {
	filter_system_calls();
	return open_bundle(service) ? refused(service) : serve(service);
}

int ef_service_run(const struct ef_options *options) {
	struct ef_service service = {
	    .options = *options, .stats_fd = -1, .watch_fd = -1, .epoll_fd = -1, .guard_fd = -1};
	int code;

	mallopt(M_ARENA_MAX, 1); /* the guard needs next to nothing: no heap of its own */
	ef_log_never_wait();
	ef_bpflog_start();
	drop_privileges(&service);
	begin(&service);
	if (make_state_folder(&service))
		code = EF_EXIT_FAILED;
	else
		code = filtered(&service);
	end(&service);
	return code;
}
