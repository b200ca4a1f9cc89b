/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "account.h"
#include "bpflog.h"
#include "bundle.h"
#include "commands.h"
#include "contract.h"
#include "json.h"
#include "kernel.h"
#include "log.h"
#include "object.h"
#include "paths.h"

static json_t *program_json(const struct bpf_program *program, bool loaded) {
	json_t *info = loaded ? ef_program_json(program, false) : NULL;
	json_t *answer = json_pack("{s:s, s:I}", "name", bpf_program__name(program), "insns",
				   (json_int_t)bpf_program__insn_cnt(program));
	json_t *verified = json_object_get(info, "verified_insns");
	json_t *tag = json_object_get(info, "tag");

	json_object_set(answer, "verified_insns", verified ? verified : json_null());
	json_object_set(answer, "tag", tag ? tag : json_null());
	json_decref(info);
	return answer;
}

static json_t *programs_json(const struct bpf_object *object, bool loaded) {
	json_t *list = json_array();
	struct bpf_program *program;

	if (!object)
		return list;
	bpf_object__for_each_program(program, object)
	    json_array_append_new(list, program_json(program, loaded));
	return list;
}

/* errno's name for the document; strerrorname_np is glibc 2.32. */
static const char *errno_name(int err) {
	return err ? strerrorname_np(err) : NULL;
}

/*
 * Load one variant without attaching it. *usable: it loads, and what it
 * attaches to is there.
 */
static json_t *check_variant(const struct ef_variant *variant,
			     const struct ef_contract_variant *contract,
			     const struct ef_kernel *kernel, bool *usable) {
	struct ef_reason why = {.code = "EF_OK", .text = "it loads"};
	struct bpf_object *object = ef_object_open(variant, contract, &why);
	int err = object ? ef_object_load(object, contract, kernel, &why) : -EINVAL;
	json_t *answer;

	*usable = !err;
	answer = json_pack("{s:b, s:i, s:s?, s:s, s:s, s:o, s:s}", "loads", !err, "errno", -err,
			   "errno_name", errno_name(-err), "reason_code", why.code, "reason",
			   why.text, "programs", programs_json(object, !err), "log_tail",
			   err ? ef_bpflog_tail() : "");
	bpf_object__close(object);
	return answer;
}

static json_t *check_feature(const struct ef_feature *feature, const struct ef_contract *contract,
			     const struct ef_kernel *kernel) {
	json_t *variants = json_object();
	const char *chosen = NULL, *profile = "disabled";

	for (size_t i = 0; i < feature->n_variants; i++) {
		bool usable;

		json_object_set_new(
		    variants, feature->variants[i].name,
		    check_variant(&feature->variants[i], &contract->variants[i], kernel, &usable));
		if (usable && !chosen)
			chosen = feature->variants[i].name;
	}
	/* The service judges likewise; an expired feature it does not attach. */
	if (ef_contract_expired(contract))
		chosen = NULL;
	if (chosen)
		profile = strcmp(chosen, "full") ? "reduced" : "full";
	return json_pack("{s:s, s:s?, s:o}", "profile", profile, "variant", chosen, "variants",
			 variants);
}

/* NULL with *why when a contract is malformed: then none of the bundle is loaded. */
static json_t *check_features(const struct ef_bundle *bundle, const struct ef_kernel *kernel,
			      struct ef_refusal *why) {
	json_t *features = json_object();

	for (size_t i = 0; i < bundle->n_features; i++) {
		struct ef_contract contract;

		if (ef_contract_read(&bundle->features[i], &contract, why)) {
			json_decref(features);
			return NULL;
		}
		json_object_set_new(features, bundle->features[i].name,
				    check_feature(&bundle->features[i], &contract, kernel));
		ef_contract_free(&contract);
	}
	return features;
}

static json_t *check_bundle(const char *dir, const struct ef_trust_paths *trust,
			    struct ef_refusal *why) {
	struct ef_bundle *bundle;
	struct ef_kernel kernel;
	json_t *features, *answer = NULL;

	if (ef_bundle_open(dir, trust, NULL, &bundle, why))
		return NULL;
	ef_kernel_read(&kernel);
	features = check_features(bundle, &kernel, why);
	if (features)
		answer = json_pack("{s:s, s:o, s:o, s:o}", "schema", "ebpf.fleet/check/v1",
				   "kernel", ef_kernel_json(&kernel), "bundle",
				   ef_bundle_json(bundle), "features", features);
	ef_bundle_free(bundle);
	return answer;
}

static int parse_options(int argc, char **argv, struct ef_trust_paths *trust, const char **dir) {
	static const struct option known[] = {
	    {"trust", required_argument, NULL, 't'},
	    {"revoked", required_argument, NULL, 'r'},
	    {0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option == 't') {
			trust->allowed_signers = optarg;
		} else if (option == 'r') {
			trust->revoked_keys = optarg;
			trust->revoked_required = true;
		} else {
			return -1;
		}
	}
	if (optind + 1 != argc)
		return -1;
	*dir = argv[optind];
	return 0;
}

int cmd_check(int argc, char **argv) {
	struct ef_trust_paths trust = {
	    .allowed_signers = EF_DEFAULT_ETC "/" EF_TRUST_SIGNERS,
	    .revoked_keys = EF_DEFAULT_ETC "/" EF_TRUST_REVOKED,
	};
	struct ef_refusal why = {0};
	_cleanup_json_ json_t *answer = NULL;
	const char *dir;
	int code = EF_EXIT_OK;

	if (parse_options(argc, argv, &trust, &dir)) {
		ef_err("usage: ebpf-loader check DIR [--trust FILE] [--revoked FILE]");
		return EF_EXIT_USAGE;
	}
	ef_bpflog_start();
	answer = check_bundle(dir, &trust, &why);
	if (!answer) {
		answer = ef_refusal_json(&why);
		code = EF_EXIT_REFUSED;
	}
	return ef_json_print(stdout, answer) ? EF_EXIT_FAILED : code;
}
