/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/open.h"

#include "bundle/open.h"

#include <errno.h>
#include <stdio.h>

#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"
#include "bundle/btfindex.h"
#include "bundle/mark.h"

static int open_features(struct ef_service *service) {
	const struct ef_bundle *bundle = service->bundle;

	service->lives = ef_must(calloc(ef_bundle_count(bundle) + 1, sizeof(*service->lives)));
	for (size_t i = 0; i < ef_bundle_count(bundle); i++) {
		struct ef_live *live = &service->lives[i];

		if (ef_contract_read(ef_bundle_feature(bundle, i), &live->contract,
				     &service->refusal))
			return -1;
		live->files = ef_bundle_feature(bundle, i);
		live->asked.sample_every = live->contract.sample_every;
		live->asked.rate = live->decided.thinned_from = -1;
		service->n++;
	}
	return 0;
}

void ef_close_features(struct ef_service *service) {
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
	int64_t created = ef_bundle_created(service->bundle);

	service->inputs.floor_s = mark->seen > created ? mark->seen : created;
	return ef_mark_check(mark, service->bundle, &service->refusal);
}

int ef_open_bundle(struct ef_service *service) {
	struct ef_bundle_options how = {.clock_later = true};
	struct ef_mark mark;

	if (check_bundle_folder(service) || read_mark(service, &mark))
		return -1;
	ef_mark_sentence(&mark, service->mark_sentence, sizeof(service->mark_sentence));
	how.seen_s = mark.seen;
	if (ef_bundle_open(service->options.bundle, &service->trust, &how, &service->bundle,
			   &service->refusal))
		return -1;
	ef_btf_choose(service->bundle, &service->kernel);
	if (!hold_to_mark(service, &mark) && !open_features(service))
		return 0;
	ef_close_features(service);
	ef_bundle_free(service->bundle);
	service->bundle = NULL;
	return -1;
}
