/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/series.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/must.h"
#include "base/util.h"
#include "kernel/labels.h"
#include "kernel/mapread.h"

/* One read of a map; what it holds now becomes series->last. */
struct round {
	struct ef_series *series;
	struct ef_dict now;
};

static int read_key_format(struct ef_series *series, const struct btf *btf,
			   const char *key_struct) {
	int err;

	memset(&series->format, 0, sizeof(series->format));
	if (!key_struct)
		return bpf_map__type(series->map) == BPF_MAP_TYPE_ARRAY ||
			       bpf_map__type(series->map) == BPF_MAP_TYPE_PERCPU_ARRAY
			   ? 0
			   : -EPROTOTYPE;
	err = ef_format_read(btf, key_struct, &series->format);
	if (!err && series->format.size != bpf_map__key_size(series->map)) {
		ef_format_free(&series->format);
		return -EMSGSIZE;
	}
	return err;
}

int ef_series_begin(struct ef_series *series, const struct bpf_map *map, const struct btf *btf,
		    const char *key_struct) {
	size_t max = bpf_map__max_entries(map);
	int err;

	if (!ef_mapread_can(map))
		return -EPROTOTYPE;
	series->map = map;
	err = read_key_format(series, btf, key_struct);
	if (err) {
		series->map = NULL;
		return err;
	}
	/* Entries that change while they are read may be more than fit at one time. */
	ef_dict_init(&series->last, 2 * max);
	if (!series->totals.max)
		ef_dict_init(&series->totals, max < EF_SERIES_MAX ? max : EF_SERIES_MAX);
	return 0;
}

/* The labels of a key, malloc'ed. */
static char *labels_of(const struct ef_series *series, const void *key, size_t *size) {
	char *text = NULL;
	FILE *out = ef_must(open_memstream(&text, size));
	uint32_t index;

	if (series->format.fields) {
		ef_labels_print(out, &series->format, key);
	} else {
		memcpy(&index, key, sizeof(index));
		fprintf(out, "index=\"%" PRIu32 "\"", index);
	}
	fclose(out);
	return ef_must(text);
}

static void add_to_total(struct ef_series *series, const void *key, const struct ef_sum *delta) {
	size_t size;
	_cleanup_free_ char *labels = labels_of(series, key, &size);
	struct ef_sum *total = ef_dict_need(&series->totals, labels, size);

	ef_sum_add(total ? total : &series->unkept, delta);
}

/* A value below the last one is that of an entry that went and came again. */
static struct ef_sum grown(const struct ef_sum *value, const struct ef_sum *last) {
	if (!last || value->raw < last->raw || value->weighted < last->weighted)
		return *value;
	return (struct ef_sum){value->raw - last->raw, value->weighted - last->weighted};
}

static void on_entry(void *ctx, const void *key, const struct ef_sum *value) {
	struct round *round = ctx;
	struct ef_series *series = round->series;
	size_t size = bpf_map__key_size(series->map);
	const struct ef_sum *last = ef_dict_find(&round->now, key, size); /* it may come twice */
	struct ef_sum delta, *now;

	if (!last)
		last = ef_dict_find(&series->last, key, size);
	delta = grown(value, last);
	if (!last || delta.raw)
		add_to_total(series, key, &delta);
	now = ef_dict_need(&round->now, key, size);
	if (now)
		*now = *value;
}

/* After a reading that may have missed some: what it missed is as it was. */
static void carry_over(struct round *round) {
	const struct ef_dict *last = &round->series->last;

	for (size_t i = 0; i < last->n; i++) {
		const struct ef_dict_item *item = &last->items[i];
		struct ef_sum *now;

		if (ef_dict_find(&round->now, item->key, item->size))
			continue;
		now = ef_dict_need(&round->now, item->key, item->size);
		if (now)
			*now = item->value;
	}
}

/* Each once, and its end. */
static void report(struct ef_series *series, const char *feature, int err) {
	if (err && !series->failing_logged)
		ef_err("feature %s: map %s cannot be read: %s; its series stay as they are until "
		       "it can",
		       feature, bpf_map__name(series->map), strerror(-err));
	series->failing_logged = err != 0;
	if (series->unkept.raw && !series->unkept_logged)
		ef_warn("feature %s: there are more than %zu series; what has no series is counted "
			"together as not kept; make the map's key coarser",
			feature, series->totals.max);
	series->unkept_logged |= series->unkept.raw != 0;
}

int ef_series_read(struct ef_series *series, const char *feature) {
	struct round round = {.series = series};
	int err;

	if (!series->map)
		return 0;
	ef_dict_init(&round.now, series->last.max);
	err = ef_mapread(series->map, on_entry, &round);
	if (err)
		carry_over(&round);
	ef_dict_clear(&series->last);
	series->last = round.now;
	report(series, feature, err == -EAGAIN ? 0 : err);
	return err == -EAGAIN ? 0 : err;
}

void ef_series_end(struct ef_series *series, const char *feature) {
	if (!series->map)
		return;
	ef_series_read(series, feature);
	ef_dict_clear(&series->last);
	ef_format_free(&series->format);
	series->map = NULL;
}

void ef_series_free(struct ef_series *series) {
	ef_dict_clear(&series->last);
	ef_dict_clear(&series->totals);
	ef_format_free(&series->format);
}

uint64_t ef_series_weighted(const struct ef_series *series) {
	uint64_t sum = series->unkept.weighted;

	for (size_t i = 0; i < series->totals.n; i++)
		sum += series->totals.items[i].value.weighted;
	return sum;
}

void ef_series_print(const struct ef_series *series, FILE *out, const char *name, bool weighted) {
	for (size_t i = 0; i < series->totals.n; i++) {
		const struct ef_dict_item *item = &series->totals.items[i];

		fprintf(out, "ebpf_fleet_%s%s%.*s%s %" PRIu64 "\n", name, item->size ? "{" : "",
			(int)item->size, (const char *)item->key, item->size ? "}" : "",
			weighted ? item->value.weighted : item->value.raw);
	}
}
