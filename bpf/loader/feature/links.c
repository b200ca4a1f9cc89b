/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/live.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/must.h"
#include "feature/object.h"
#include "feature/parts.h"
#include "kernel/bpflog.h"
#include "kernel/mapread.h"

/* Links are attached by the loop and detached by the loop or the guard. */
static pthread_mutex_t links_lock = PTHREAD_MUTEX_INITIALIZER;

static int attach_program(struct ef_live *live, const char *name, struct bpf_link **link,
			  struct ef_reason *why) {
	struct bpf_program *program = bpf_object__find_program_by_name(live->attached.object, name);

	ef_bpflog_reset();
	*link = bpf_program__attach(program);
	if (!*link) {
		int err = -errno;

		ef_object_attach_reason(name, err, why);
		return err;
	}
	live->attached.ran = true;
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
	live->attached.links = links;
	live->attached.n_links = n;
	pthread_mutex_unlock(&links_lock);
}

int ef_live_attach_programs(struct ef_live *live, struct ef_reason *why) {
	json_t *programs = live->attached.variant->programs, *name;
	struct bpf_link **links =
	    ef_must(calloc(json_array_size(programs), sizeof(struct bpf_link *)));
	size_t i;

	json_array_foreach (programs, i, name) {
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
	linked = live->attached.n_links;
	if (linked)
		live->attached.cut_ns = ef_clock_ns(CLOCK_BOOTTIME);
	destroy_links(live->attached.links, live->attached.n_links);
	live->attached.links = NULL;
	live->attached.n_links = 0;
	pthread_mutex_unlock(&links_lock);
	return linked;
}

bool ef_live_linked(const struct ef_live *live) {
	bool linked;

	pthread_mutex_lock(&links_lock);
	linked = live->attached.n_links;
	pthread_mutex_unlock(&links_lock);
	return linked;
}

size_t ef_live_links(const struct ef_live *live, int64_t **ids) {
	size_t n;

	pthread_mutex_lock(&links_lock);
	n = live->attached.n_links;
	*ids = ef_must(calloc(n + 1, sizeof(**ids)));
	for (size_t i = 0; i < n; i++)
		(*ids)[i] = ef_link_id(bpf_link__fd(live->attached.links[i]));
	pthread_mutex_unlock(&links_lock);
	return n;
}
