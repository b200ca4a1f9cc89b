/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <bpf/libbpf.h>
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/must.h"
#include "base/paths.h"
#include "bundle/btfindex.h"
#include "bundle/bundle.h"
#include "bundle/contract.h"
#include "bundle/open.h"
#include "cmd/commands.h"
#include "feature/object.h"
#include "feature/seen.h"
#include "kernel/bpflog.h"
#include "kernel/kernel.h"
#include "kernel/privilege.h"

/* Statistics only, which the verifier writes for a program that it accepts (since 5.2). */
#define LOG_STATS 4
#define LOG_BYTES 16384

/* What is asked and with what. */
struct check {
	struct ef_kernel kernel;
	bool attach;
};

/* One variant, tried. */
struct trial {
	struct bpf_object *object; /* NULL: not an object that we take */
	char *logs;		   /* LOG_BYTES for each program; NULL: not asked for */
	int err;		   /* 0, or -errno: of opening, loading or attaching */
	bool loads;
	bool attached;
	struct ef_reason why;
};

/* The number behind the text, where the log has it; -1: it has not. */
static int64_t number_after(const char *log, const char *text) {
	const char *at = strstr(log, text);
	unsigned long value;
	char *end;

	if (!at)
		return -1;
	errno = 0;
	value = strtoul(at + strlen(text), &end, 10);
	return end == at + strlen(text) || errno || value > INT32_MAX ? -1 : (int64_t)value;
}

/* "stack depth 16+0+8", a number for each function of the program: their sum, -1 without. */
static int64_t stack_bytes(const char *log) {
	static const char text[] = "stack depth ";
	const char *at = strstr(log, text);
	int64_t sum = number_after(log, text);

	if (sum < 0)
		return -1;
	for (at += strlen(text) + strspn(at + strlen(text), "0123456789"); *at == '+';
	     at += 1 + strspn(at + 1, "0123456789"))
		sum += atoi(at + 1);
	return sum;
}

static json_t *program_json(const struct bpf_program *program, bool loaded, const char *log) {
	struct ef_program_seen seen = {.verified_insns = -1};

	if (loaded)
		ef_program_see(program, false, &seen);
	return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "name", bpf_program__name(program),
			 "insns", (json_int_t)bpf_program__insn_cnt(program), "verified_insns",
			 ef_json_measured(seen.verified_insns), "processed_insns",
			 ef_json_measured(number_after(log, "processed ")), "stack_bytes",
			 ef_json_measured(stack_bytes(log)), "tag",
			 seen.known ? json_string(seen.tag) : json_null());
}

static json_t *programs_json(const struct trial *trial) {
	json_t *list = json_array();
	struct bpf_program *program;
	size_t i = 0;

	if (!trial->object)
		return list;
	bpf_object__for_each_program (program, trial->object) {
		const char *log = trial->logs ? trial->logs + LOG_BYTES * i++ : "";

		json_array_append_new(list, program_json(program, trial->loads, log));
	}
	return list;
}

/* errno's name for the document; strerrorname_np is glibc 2.32. */
static const char *errno_name(int err) {
	return err ? strerrorname_np(err) : NULL;
}

/* Before the load: a buffer for each program, into which the verifier tells its statistics. */
static void ask_statistics(struct trial *trial) {
	struct bpf_program *program;
	size_t n = 0, i = 0;

	bpf_object__for_each_program (program, trial->object)
		n++;
	trial->logs = ef_must(calloc(n + 1, LOG_BYTES));
	bpf_object__for_each_program (program, trial->object) {
		bpf_program__set_log_buf(program, trial->logs + LOG_BYTES * i++, LOG_BYTES);
		bpf_program__set_log_level(program, LOG_STATS);
	}
}

static void end_trial(struct trial *trial) {
	bpf_object__close(trial->object);
	free(trial->logs);
	memset(trial, 0, sizeof(*trial));
}

/* One variant of a feature: its object and its part of the contract. */
struct candidate {
	const struct ef_contract *feature;
	const struct ef_variant *variant;
	const struct ef_contract_variant *contract;
};

static void load(struct trial *trial, const struct candidate *what, const struct ef_kernel *kernel,
		 bool statistics) {
	trial->object = ef_object_open(what->variant, what->contract, kernel, &trial->why);
	trial->err = -EINVAL;
	if (!trial->object ||
	    ef_object_check_record(trial->object, what->feature,
				   ef_contract_variant_name(what->contract), &trial->why))
		return;
	if (statistics)
		ask_statistics(trial);
	trial->err = ef_object_load(trial->object, what->contract, kernel, &trial->why);
	trial->loads = !trial->err;
}

/*
 * With the statistics' log level the kernel does not say why it refuses: then
 * it is loaded again, as the service loads it. -EOPNOTSUPP is a requirement that
 * was not met, and nothing was loaded.
 */
static void load_variant(struct trial *trial, const struct candidate *what,
			 const struct ef_kernel *kernel) {
	load(trial, what, kernel, true);
	if (!trial->object || !trial->logs || trial->loads || trial->err == -EOPNOTSUPP)
		return;
	end_trial(trial);
	load(trial, what, kernel, false);
}

/* Every program at once, as the service does; all links are closed on return. */
static void attach_variant(struct trial *trial, const struct ef_contract_variant *contract) {
	size_t n = json_array_size(ef_contract_variant_programs(contract)), done;
	struct bpf_link **links = ef_must(calloc(n, sizeof(struct bpf_link *)));

	for (done = 0; done < n && !trial->err; done++) {
		const char *name =
		    json_string_value(json_array_get(ef_contract_variant_programs(contract), done));

		ef_bpflog_reset();
		links[done] =
		    bpf_program__attach(bpf_object__find_program_by_name(trial->object, name));
		if (links[done])
			continue;
		trial->err = -errno;
		ef_object_attach_reason(name, trial->err, &trial->why);
	}
	trial->attached = !trial->err;
	for (size_t i = 0; i < done; i++)
		bpf_link__destroy(links[i]);
	free(links);
}

static json_t *trial_json(const struct trial *trial, bool attach) {
	/* What was not loaded was not attached either: nothing is known of that. */
	json_t *attaches = attach && trial->loads ? json_boolean(trial->attached) : json_null();

	return json_pack("{s:b, s:i, s:s?, s:s, s:s, s:o, s:s, s:o}", "loads", trial->loads,
			 "errno", -trial->err, "errno_name", errno_name(-trial->err), "reason_code",
			 ef_reason_code(&trial->why), "reason", ef_reason_text(&trial->why),
			 "programs", programs_json(trial), "log_tail",
			 trial->err ? ef_bpflog_tail() : "", "attaches", attaches);
}

/* *why is as the service would have it: EF_OK, or why the variant does not work. */
static json_t *check_variant(const struct candidate *what, const struct check *check,
			     struct ef_reason *why) {
	struct trial trial = {0};
	json_t *answer;

	load_variant(&trial, what, &check->kernel);
	if (trial.loads && check->attach)
		attach_variant(&trial, what->contract);
	if (!trial.err)
		ef_reason_set(&trial.why, "EF_OK",
			      check->attach ? "it loads and attaches" : "it loads");
	*why = trial.why;
	answer = trial_json(&trial, check->attach);
	end_trial(&trial);
	return answer;
}

/* The service judges likewise: what it runs, and why nothing better; an expired feature not at all.
 */
static json_t *check_feature(const struct ef_feature *feature, const struct ef_contract *contract,
			     const struct check *check) {
	const struct ef_contract_variant *chosen = NULL;
	struct ef_reason reason = {0}, why;
	json_t *variants = json_object();

	for (size_t i = 0; i < feature->n_variants; i++) {
		const struct ef_contract_variant *variant = ef_contract_variant_at(contract, i);
		const struct candidate what = {contract, &feature->variants[i], variant};
		json_t *answer = check_variant(&what, check, &why);

		json_object_set_new(variants, ef_contract_variant_name(variant), answer);
		if (!chosen && !strcmp(ef_reason_code(&why), "EF_OK"))
			chosen = variant;
		else if (!chosen)
			ef_reason_set(&reason, ef_reason_code(&why), "variant %s: %s",
				      ef_contract_variant_name(variant), ef_reason_text(&why));
	}
	if (!ef_reason_code(&reason))
		ef_reason_set(&reason, "EF_OK", "the first variant works");
	if (ef_contract_expired(contract)) {
		ef_reason_set(&reason, "EF_EXPIRED",
			      "its contract has expired; renew it or remove the feature");
		chosen = NULL;
	}
	return json_pack("{s:s, s:s?, s:s, s:s, s:o}", "profile", ef_contract_profile(chosen),
			 "variant", chosen ? ef_contract_variant_name(chosen) : NULL, "reason_code",
			 ef_reason_code(&reason), "reason", ef_reason_text(&reason), "variants",
			 variants);
}

/* NULL with *why when a contract is malformed: then none of the bundle is loaded. */
static json_t *check_features(const struct ef_bundle *bundle, const struct check *check,
			      struct ef_refusal *why) {
	json_t *features = json_object();

	for (size_t i = 0; i < ef_bundle_count(bundle); i++) {
		struct ef_contract contract;

		if (ef_contract_read(ef_bundle_feature(bundle, i), &contract, why)) {
			json_decref(features);
			return NULL;
		}
		json_object_set_new(features, ef_feature_name(ef_bundle_feature(bundle, i)),
				    check_feature(ef_bundle_feature(bundle, i), &contract, check));
		ef_contract_free(&contract);
	}
	return features;
}

static json_t *check_bundle(const char *dir, const struct ef_trust_paths *trust,
			    struct check *check, struct ef_refusal *why) {
	const struct ef_kernel *kernel = &check->kernel;
	const struct ef_bundle_options how = {0};
	struct ef_bundle *bundle;
	json_t *features, *answer = NULL;
	int err;

	if (ef_bundle_open(dir, trust, &how, &bundle, why))
		return NULL;
	/* As the service, which needs no more: else this would reach what it does not. */
	err = ef_privilege_drop(ef_privilege_kept(ef_privilege_last_cap()));
	if (err)
		ef_warn("capabilities cannot be given up: %s; the service may reach less",
			strerror(-err));
	ef_kernel_read(&check->kernel);
	ef_btf_choose(bundle, &check->kernel);
	features = check_features(bundle, check, why);
	if (features)
		answer = json_pack(
		    "{s:s, s:s, s:s?, s:o, s:o, s:o}", "schema", "ebpf.fleet/check/v1", "btf",
		    ef_kernel_btf_name(kernel), "btf_file", ef_kernel_bundled_btf(kernel), "kernel",
		    ef_kernel_json(kernel), "bundle", ef_bundle_json(bundle), "features", features);
	ef_kernel_clear(&check->kernel);
	ef_bundle_free(bundle);
	return answer;
}

static int parse_options(int argc, char **argv, struct ef_trust_paths *trust, bool *attach,
			 const char **dir) {
	static const struct option known[] = {
	    {"trust", required_argument, NULL, 't'},
	    {"revoked", required_argument, NULL, 'r'},
	    {"attach", no_argument, NULL, 'a'},
	    {0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option == 't') {
			trust->allowed_signers = optarg;
		} else if (option == 'r') {
			trust->revoked_keys = optarg;
			trust->revoked_required = true;
		} else if (option == 'a') {
			*attach = true;
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
	struct check check = {0};
	struct ef_refusal why = {0};
	_cleanup_json_ json_t *answer = NULL;
	const char *dir;
	int code = EF_EXIT_OK;

	if (parse_options(argc, argv, &trust, &check.attach, &dir)) {
		ef_err("usage: ebpf-loader check " EF_USAGE_CHECK);
		return EF_EXIT_USAGE;
	}
	ef_bpflog_start();
	answer = check_bundle(dir, &trust, &check, &why);
	if (!answer) {
		answer = ef_refusal_json(&why);
		code = EF_EXIT_REFUSED;
	}
	return ef_json_print(stdout, answer) ? EF_EXIT_FAILED : code;
}
