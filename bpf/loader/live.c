/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "live.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "bpflog.h"
#include "log.h"
#include "must.h"
#include "object.h"

/* As in bpf/include/ef.h. */
struct config {
	uint32_t sample_every;
	uint32_t reserved;
};

/* Links are attached by the loop and detached by the loop or the guard. */
static pthread_mutex_t links_lock = PTHREAD_MUTEX_INITIALIZER;

static int map_fd(const struct ef_live *live, const char *name) {
	return bpf_object__find_map_fd_by_name(live->object, name);
}

static int write_config(const struct ef_live *live) {
	struct config config = {.sample_every = live->sample_every};
	uint32_t zero = 0;
	int fd = map_fd(live, "ef_config");

	if (fd < 0)
		return fd;
	return bpf_map_update_elem(fd, &zero, &config, BPF_ANY) ? -errno : 0;
}

static int open_feed(struct ef_live *live, struct ef_sink *sink) {
	const struct ef_signal *signal = ef_contract_signal(&live->contract, EF_SIGNAL_EVENTS);
	int fd;

	if (!signal)
		return 0;
	fd = map_fd(live, signal->map);
	if (fd < 0)
		return fd;
	live->feed = ef_feed_new(fd, bpf_object__btf(live->object), signal->event,
				 live->files->name, signal->name, sink, &live->tally);
	return live->feed ? 0 : -errno;
}

/* What must be in place before the first program runs. */
static int prepare(struct ef_live *live, struct ef_sink *sink, struct ef_reason *why) {
	int err = write_config(live);

	if (!err && map_fd(live, "ef_counters") < 0)
		err = -ENOENT;
	if (!err)
		err = open_feed(live, sink);
	if (err)
		ef_reason_set(
		    why, "EF_LOAD_REJECTED",
		    "the maps of variant '%s' are not as its contract says: %s (%d); build "
		    "the release again",
		    live->variant->name, strerror(-err), -err);
	return err;
}

static int attach_program(struct ef_live *live, const char *name, struct bpf_link **link,
			  struct ef_reason *why) {
	struct bpf_program *program = bpf_object__find_program_by_name(live->object, name);

	ef_bpflog_reset();
	*link = bpf_program__attach(program);
	if (!*link) {
		int err = -errno;

		ef_object_attach_reason(name, err, why);
		return err;
	}
	live->ran = true;
	return 0;
}

static void destroy_links(struct bpf_link **links, size_t n) {
	for (size_t i = 0; i < n; i++)
		bpf_link__destroy(links[i]);
	free(links);
}

/* From here on the guard may detach them. */
static void hand_over_links(struct ef_live *live, struct bpf_link **links, size_t n) {
	pthread_mutex_lock(&links_lock);
	live->links = links;
	live->n_links = n;
	pthread_mutex_unlock(&links_lock);
}

static int attach_programs(struct ef_live *live, struct ef_reason *why) {
	json_t *programs = live->variant->programs, *name;
	struct bpf_link **links =
	    ef_must(calloc(json_array_size(programs), sizeof(struct bpf_link *)));
	size_t i;

	json_array_foreach(programs, i, name) {
		int err = attach_program(live, json_string_value(name), &links[i], why);

		if (err) {
			destroy_links(links, i);
			return err;
		}
	}
	hand_over_links(live, links, i);
	return 0;
}

bool ef_live_cut(struct ef_live *live) {
	bool linked;

	pthread_mutex_lock(&links_lock);
	linked = live->n_links;
	destroy_links(live->links, live->n_links);
	live->links = NULL;
	live->n_links = 0;
	pthread_mutex_unlock(&links_lock);
	return linked;
}

bool ef_live_linked(const struct ef_live *live) {
	bool linked;

	pthread_mutex_lock(&links_lock);
	linked = live->n_links;
	pthread_mutex_unlock(&links_lock);
	return linked;
}

json_t *ef_live_links_json(const struct ef_live *live) {
	json_t *list = json_array();

	pthread_mutex_lock(&links_lock);
	for (size_t i = 0; i < live->n_links; i++) {
		int64_t id = ef_link_id(bpf_link__fd(live->links[i]));

		json_array_append_new(list, ef_json_measured(id));
	}
	pthread_mutex_unlock(&links_lock);
	return list;
}

static void close_object(struct ef_live *live) {
	ef_feed_free(live->feed);
	bpf_object__close(live->object);
	live->feed = NULL;
	live->object = NULL;
	live->variant = NULL;
}

/* Everything of one variant, or nothing of it. */
static int attach_variant(struct ef_live *live, size_t index, const struct ef_kernel *kernel,
			  struct ef_sink *sink, struct ef_reason *why) {
	const struct ef_contract_variant *variant = &live->contract.variants[index];
	int err;

	live->object = ef_object_open(&live->files->variants[index], variant, why);
	if (!live->object)
		return -EINVAL;
	live->variant = variant;
	err = ef_object_load(live->object, variant, kernel, why);
	if (!err)
		err = prepare(live, sink, why);
	if (!err)
		err = attach_programs(live, why);
	if (!err)
		return 0;
	ef_live_detach(live, sink);
	return err;
}

bool ef_live_attach(struct ef_live *live, const struct ef_kernel *kernel, struct ef_sink *sink) {
	struct ef_reason why = {0}, better = {0};

	for (size_t i = 0; i < live->contract.n_variants; i++) {
		if (!attach_variant(live, i, kernel, sink, &why)) {
			live->state = EF_STATE_ATTACHED;
			ef_reason_set(&live->reason, better.code ? better.code : "EF_OK", "%s",
				      better.code ? better.text : "attached");
			return true;
		}
		ef_reason_set(&better, why.code, "variant %s: %s", live->contract.variants[i].name,
			      why.text);
		ef_warn("feature %s: %s (%s)", live->files->name, better.text, better.code);
	}
	live->state = EF_STATE_DISABLED;
	live->reason = better;
	return false;
}

/* What the programs still left in the ring; they run no more. */
static void drain(struct ef_live *live, struct ef_sink *sink) {
	while (live->feed && ef_feed_read(live->feed, 1024))
		;
	ef_sink_flush(sink);
}

static void keep_counters(struct ef_live *live) {
	struct ef_counters total;
	int fd = map_fd(live, "ef_hist");

	ef_live_counters(live, &total);
	/* What began and has no outcome by now will have none: the maps go. */
	total.dropped += ef_counters_in_flight(&total);
	live->past = total;
	memset(&live->tally, 0, sizeof(live->tally));
	if (fd >= 0 && ef_hist_add(fd, live->past_hist))
		ef_err("feature %s: its histogram could not be read before it was detached",
		       live->files->name);
}

void ef_live_detach(struct ef_live *live, struct ef_sink *sink) {
	if (!live->object)
		return;
	ef_live_cut(live);
	if (live->ran) {
		drain(live, sink);
		keep_counters(live);
	}
	live->ran = false;
	close_object(live);
}

int ef_live_sample(struct ef_live *live, uint32_t sample_every) {
	if (live->sample_every == sample_every)
		return 0;
	live->sample_every = sample_every;
	return live->object ? write_config(live) : 0;
}

/* The kernel counts what went into the ring; delivered is what reached the file. */
static void count_the_way(const struct ef_live *live, struct ef_counters *now) {
	if (!live->feed)
		return;
	now->delivered = live->tally.written;
	now->dropped += live->tally.dropped;
}

void ef_live_counters(const struct ef_live *live, struct ef_counters *counters) {
	struct ef_counters now = {0};

	*counters = live->past;
	if (!live->object || ef_counters_read(map_fd(live, "ef_counters"), &now))
		return;
	count_the_way(live, &now);
	counters->produced += now.produced;
	counters->delivered += now.delivered;
	counters->dropped += now.dropped;
	counters->sampled_out += now.sampled_out;
}

int ef_live_hist(const struct ef_live *live, uint64_t *hist) {
	int fd = live->object ? map_fd(live, "ef_hist") : -1;

	memcpy(hist, live->past_hist, sizeof(live->past_hist));
	return fd < 0 ? 0 : ef_hist_add(fd, hist);
}

const char *ef_live_profile(const struct ef_live *live) {
	if (live->state != EF_STATE_ATTACHED)
		return "disabled";
	return strcmp(live->variant->name, "full") ? "reduced" : "full";
}
