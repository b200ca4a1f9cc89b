/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/sink.h"

#include "base/must.h"

#define JOURNAL "/run/systemd/journal/socket"

static void count_add(struct ef_sink *sink, const char *feature, const char *line, size_t length,
		      struct ef_tally *tally, const struct ef_load *load) {
	(void)sink, (void)feature, (void)line, (void)length;
	ef_tally_written(tally, load);
}

static void count_flush(struct ef_sink *sink, bool all) {
	(void)sink, (void)all;
}

static void count_free(struct ef_sink *sink) {
	free(sink);
}

static const struct ef_sink_ops count_ops = {count_add, count_flush, count_free, NULL};

static struct ef_sink *count_new(void) {
	struct ef_sink *sink = ef_must(calloc(1, sizeof(*sink)));

	sink->ops = &count_ops;
	return sink;
}

struct ef_sink *ef_sink_new(const char *dir, const struct ef_sink_policy *policy) {
	switch (policy->kind) {
	case EF_SINK_JOURNAL:
		return ef_sink_socket_new(JOURNAL, true);
	case EF_SINK_DATAGRAM:
		return ef_sink_socket_new(policy->path, false);
	case EF_SINK_COUNT:
		return count_new();
	default:
		return ef_sink_jsonl_new(dir, policy);
	}
}

void ef_sink_free(struct ef_sink *sink) {
	if (!sink)
		return;
	ef_sink_settle(sink);
	sink->ops->free(sink);
}

void ef_sink_tell(const struct ef_sink *sink, struct ef_sink_state *state) {
	*state = (struct ef_sink_state){-1, -1, -1, -1, -1};
	if (sink && sink->ops->tell)
		sink->ops->tell(sink, state);
}

bool ef_sink_only_counts(const struct ef_sink *sink) {
	return sink->ops == &count_ops;
}

void ef_sink_add(struct ef_sink *sink, const char *feature, const char *line, size_t length,
		 struct ef_tally *tally, const struct ef_load *load) {
	sink->ops->add(sink, feature, line, length, tally, load);
}

void ef_sink_flush(struct ef_sink *sink) {
	sink->ops->flush(sink, false);
}

void ef_sink_settle(struct ef_sink *sink) {
	sink->ops->flush(sink, true);
}
