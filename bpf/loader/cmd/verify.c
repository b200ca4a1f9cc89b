/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <getopt.h>
#include <stdio.h>

#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"
#include "bundle/bundle.h"
#include "bundle/open.h"
#include "cmd/commands.h"

struct verify_options {
	const char *dir;
	struct ef_trust_paths trust;
	bool self;
};

static int parse_options(int argc, char **argv, struct verify_options *options) {
	static const struct option known[] = {
	    {"trust", required_argument, NULL, 't'},
	    {"revoked", required_argument, NULL, 'r'},
	    {"self", no_argument, NULL, 's'},
	    {0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 't':
			options->trust.allowed_signers = optarg;
			break;
		case 'r':
			options->trust.revoked_keys = optarg;
			options->trust.revoked_required = true;
			break;
		case 's':
			options->self = true;
			break;
		default:
			return -1;
		}
	}
	if (optind + 1 != argc)
		return -1;
	options->dir = argv[optind];
	return 0;
}

static json_t *feature_names(const struct ef_bundle *bundle) {
	json_t *names = json_array();

	for (size_t i = 0; i < ef_bundle_count(bundle); i++)
		if (json_array_append_new(
			names, json_string(ef_feature_name(ef_bundle_feature(bundle, i))))) {
			json_decref(names);
			return NULL;
		}
	return names;
}

static json_t *describe(const struct ef_bundle *bundle) {
	return json_pack("{s:b, s:o, s:s, s:s, s:o}", "ok", 1, "bundle", ef_bundle_json(bundle),
			 "digest", ef_bundle_digest(bundle), "signer", ef_bundle_signer(bundle),
			 "features", feature_names(bundle));
}

int cmd_verify(int argc, char **argv) {
	struct verify_options options = {
	    .trust = {.allowed_signers = EF_DEFAULT_ETC "/" EF_TRUST_SIGNERS,
		      .revoked_keys = EF_DEFAULT_ETC "/" EF_TRUST_REVOKED},
	};
	struct ef_bundle_options how = {0};
	struct ef_bundle *bundle;
	struct ef_refusal why;
	_cleanup_json_ json_t *answer = NULL;
	int refused;

	if (parse_options(argc, argv, &options)) {
		ef_err("usage: ebpf-loader verify " EF_USAGE_VERIFY);
		return EF_EXIT_USAGE;
	}
	how.self_arch = options.self ? ef_bundle_machine() : NULL;
	refused = ef_bundle_open(options.dir, &options.trust, &how, &bundle, &why);
	answer = refused ? ef_refusal_json(&why) : describe(bundle);
	ef_bundle_free(bundle);
	if (ef_json_print(stdout, answer)) {
		ef_err("the answer cannot be written to stdout");
		return EF_EXIT_FAILED;
	}
	return refused ? EF_EXIT_REFUSED : EF_EXIT_OK;
}
