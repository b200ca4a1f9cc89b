/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "object.h"

#include <errno.h>
#include <string.h>

#include "bpflog.h"
#include "require.h"

static bool names_program(const struct ef_contract_variant *contract, const char *name) {
	json_t *item;
	size_t i;

	json_array_foreach(contract->programs, i,
			   item) if (!strcmp(json_string_value(item), name)) return true;
	return false;
}

static int check_programs(const struct bpf_object *object,
			  const struct ef_contract_variant *contract, struct ef_reason *why) {
	struct bpf_program *program;
	size_t n = 0;

	bpf_object__for_each_program(program, object) {
		n++;
		if (names_program(contract, bpf_program__name(program)))
			continue;
		ef_reason_set(
		    why, "EF_CONTRACT_MALFORMED",
		    "the object of variant '%s' has program '%s', which its contract does "
		    "not name; build the release again",
		    contract->name, bpf_program__name(program));
		return -1;
	}
	if (n == json_array_size(contract->programs))
		return 0;
	ef_reason_set(
	    why, "EF_CONTRACT_MALFORMED",
	    "the object of variant '%s' lacks a program that its contract names; build the "
	    "release again",
	    contract->name);
	return -1;
}

struct bpf_object *ef_object_open(const struct ef_variant *variant,
				  const struct ef_contract_variant *contract,
				  struct ef_reason *why) {
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "ef");
	struct bpf_object *object;

	ef_bpflog_reset();
	object = bpf_object__open_mem(variant->object->data, variant->object->size, &opts);
	if (!object) {
		ef_reason_set(why, "EF_LOAD_REJECTED", "%s is no BPF object: %s (%s)",
			      variant->object->path, strerror(errno), ef_bpflog_first());
		return NULL;
	}
	if (!check_programs(object, contract, why))
		return object;
	bpf_object__close(object);
	return NULL;
}

/* Requirements that hold without loading anything. */
static bool asked_first(const char *requirement) {
	return !strncmp(requirement, "kernel:", 7) || !strncmp(requirement, "btf:", 4) ||
	       !strncmp(requirement, "attach:", 7);
}

bool ef_object_possible(const struct ef_contract_variant *contract, const struct ef_kernel *kernel,
			struct ef_reason *why) {
	json_t *item;
	size_t i;

	json_array_foreach(contract->requires_, i, item) {
		const char *requirement = json_string_value(item);

		if (asked_first(requirement) &&
		    ef_require(kernel, requirement, why) == EF_ANSWER_NO)
			return false;
	}
	return true;
}

/*
 * The kernel refused: which requirement explains it? Asked only now, because
 * probes err and a load does not.
 */
static bool explain(const struct ef_contract_variant *contract, const struct ef_kernel *kernel,
		    struct ef_reason *why) {
	json_t *item;
	size_t i;

	json_array_foreach(contract->requires_, i,
			   item) if (ef_require(kernel, json_string_value(item), why) ==
				     EF_ANSWER_NO) return true;
	return false;
}

static void rejected(const struct ef_contract_variant *contract, int err, const char *first,
		     struct ef_reason *why) {
	if (err == -EPERM)
		ef_reason_set(why, "EF_PERMISSION",
			      "the kernel does not let this process load BPF (%s); give it CAP_BPF "
			      "and CAP_PERFMON, and see whether lockdown forbids it: %s",
			      strerror(-err), first);
	else
		ef_reason_set(why, "EF_LOAD_REJECTED",
			      "variant '%s' does not load: %s (%d); run ebpf-loader check for the "
			      "verifier's log: %s",
			      contract->name, strerror(-err), -err, first);
}

int ef_object_load(struct bpf_object *object, const struct ef_contract_variant *contract,
		   const struct ef_kernel *kernel, struct ef_reason *why) {
	char first[256];
	int err;

	if (!ef_object_possible(contract, kernel, why))
		return -EOPNOTSUPP;
	ef_bpflog_reset();
	err = bpf_object__load(object);
	if (!err)
		return 0;
	snprintf(first, sizeof(first), "%s", ef_bpflog_first());
	/* Without permission no probe can tell; the load said all there is. */
	if (err == -EPERM || !explain(contract, kernel, why))
		rejected(contract, err, first, why);
	return err;
}

void ef_object_attach_reason(const char *program, int err, struct ef_reason *why) {
	if (err == -ENOENT)
		ef_reason_set(why, "EF_NO_ATTACH_POINT",
			      "this kernel has nothing to attach program %s to: %s", program,
			      ef_bpflog_first());
	else if (err == -EPERM || err == -EACCES)
		ef_reason_set(why, "EF_PERMISSION",
			      "the kernel does not let this process attach program %s; give it "
			      "CAP_BPF and CAP_PERFMON",
			      program);
	else
		ef_reason_set(why, "EF_ATTACH_FAILED", "program %s does not attach: %s (%d): %s",
			      program, strerror(-err), -err, ef_bpflog_first());
}
