/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "feature/object.h"

#include <errno.h>
#include <string.h>

#include "kernel/bpflog.h"
#include "kernel/format.h"
#include "kernel/hook.h"
#include "kernel/proof.h"
#include "kernel/require.h"

static bool names_program(const struct ef_contract_variant *contract, const char *name) {
	json_t *item;
	size_t i;

	json_array_foreach (contract->programs, i, item)
		if (!strcmp(json_string_value(item), name))
			return true;
	return false;
}

/*
 * NULL for what we do not attach. What we attach ends with a link that dies with its descriptor:
 * XDP, tc and cgroup programs need an interface or a cgroup, and may outlive us.
 */
static const struct ef_attach *kind_of(const struct bpf_program *program, const char **target) {
	return ef_attach_of_section(bpf_program__section_name(program), target);
}

/* 0 for a program that this loader attaches and that only looks on. */
static int check_kind(const struct bpf_object *object, const struct bpf_program *program,
		      struct ef_reason *why) {
	const char *name = bpf_program__name(program), *target;

	if (bpf_program__expected_attach_type(program) == BPF_MODIFY_RETURN) {
		ef_reason_set(
		    why, "EF_CONTRACT_MALFORMED",
		    "program '%s' would change what a kernel function returns; use fentry "
		    "or fexit",
		    name);
		return -1;
	}
	if (!kind_of(program, &target)) {
		ef_reason_set(why, "EF_ATTACH_FAILED",
			      "program '%s' is in section '%s', which this loader does not attach; "
			      "use tp_btf, raw_tp, tracepoint, kprobe, kretprobe, fentry, fexit or "
			      "lsm",
			      name, bpf_program__section_name(program));
		return -1;
	}
	if (bpf_program__type(program) == BPF_PROG_TYPE_LSM &&
	    !ef_proof_returns_zero(object, program)) {
		ef_reason_set(
		    why, "EF_CONTRACT_MALFORMED",
		    "LSM program '%s' is not proven to return 0 always, so it might deny; "
		    "end every path of it with `return 0`",
		    name);
		return -1;
	}
	return 0;
}

static int check_kinds(const struct bpf_object *object, struct ef_reason *why) {
	struct bpf_program *program;

	bpf_object__for_each_program (program, object)
		if (check_kind(object, program, why))
			return -1;
	return 0;
}

/* Two programs of one kind are not alternatives: no kernel takes only one of them. */
static bool alternatives(const struct bpf_program *one, const struct bpf_program *other) {
	const char *target, *other_target;
	const struct ef_attach *kind = kind_of(one, &target);
	const struct ef_attach *other_kind = kind_of(other, &other_target);

	return kind && other_kind && kind != other_kind &&
	       ef_attach_same(kind, target, other_kind, other_target);
}

/* Every program is attached: alternatives for one hook would count each event twice. */
static int check_hooks(const struct bpf_object *object, struct ef_reason *why) {
	struct bpf_program *program, *earlier;

	bpf_object__for_each_program (program, object) {
		earlier = program;
		while ((earlier = bpf_object__prev_program(object, earlier)))
			if (alternatives(program, earlier))
				break;
		if (!earlier)
			continue;
		ef_reason_set(why, "EF_CONTRACT_MALFORMED",
			      "programs '%s' (%s) and '%s' (%s) are for one hook, and both would "
			      "attach; make variants of them",
			      bpf_program__name(earlier), bpf_program__section_name(earlier),
			      bpf_program__name(program), bpf_program__section_name(program));
		return -1;
	}
	return 0;
}

static int check_programs(const struct bpf_object *object,
			  const struct ef_contract_variant *contract, struct ef_reason *why) {
	struct bpf_program *program;
	size_t n = 0;

	bpf_object__for_each_program (program, object) {
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
				  const struct ef_kernel *kernel, struct ef_reason *why) {
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "ef_",
		    .btf_custom_path = ef_kernel_bundled_btf_path(kernel));
	struct bpf_object *object;

	ef_bpflog_reset();
	object = bpf_object__open_mem(variant->object->data, variant->object->size, &opts);
	if (!object) {
		ef_reason_set(why, "EF_LOAD_REJECTED", "%s is not a BPF object: %s (%s)",
			      variant->object->path, strerror(errno), ef_bpflog_first());
		return NULL;
	}
	if (!check_programs(object, contract, why) && !check_kinds(object, why) &&
	    !check_hooks(object, why))
		return object;
	bpf_object__close(object);
	return NULL;
}

/* The bytes of the events' struct as the ring counts them; 0: there is no such struct. */
static uint32_t record_bytes(const struct bpf_object *object, const struct ef_signal *signal) {
	const struct btf *btf = bpf_object__btf(object);
	__s32 id = btf ? btf__find_by_name_kind(btf, signal->event, BTF_KIND_STRUCT) : -ENOENT;

	return id > 0 ? (btf__type_by_id(btf, (__u32)id)->size + 7) / 8 * 8 : 0;
}

int ef_object_check_record(const struct bpf_object *object, const struct ef_contract *contract,
			   const char *variant, struct ef_reason *why) {
	const struct ef_signal *signal = ef_contract_signal(contract, EF_SIGNAL_EVENTS);
	uint32_t bytes = signal ? record_bytes(object, signal) : 0;
	const struct bpf_map *map =
	    signal ? bpf_object__find_map_by_name(object, signal->map) : NULL;

	if (bytes > EF_RECORD_BYTES) {
		ef_reason_set(
		    why, "EF_CONTRACT_MALFORMED",
		    "struct '%s' of variant '%s' has %u bytes; this loader carries records "
		    "of at most %d: make the record smaller",
		    signal->event, variant, bytes, EF_RECORD_BYTES);
		return -1;
	}
	if (map && bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF &&
	    bytes + EF_RING_HEADER_BYTES > bpf_map__max_entries(map)) {
		ef_reason_set(
		    why, "EF_CONTRACT_MALFORMED",
		    "map '%s' of variant '%s' has %u bytes, fewer than one record and its "
		    "header (%u): make the ring larger, or the record smaller",
		    signal->map, variant, bpf_map__max_entries(map), bytes + EF_RING_HEADER_BYTES);
		return -1;
	}
	return 0;
}

/* Is one of those that are asked before a load, or of the others, answered no? The first is *why.
 */
static bool lacks(const struct ef_contract_variant *contract, const struct ef_kernel *kernel,
		  bool before_load, struct ef_reason *why) {
	json_t *item;
	size_t i;

	json_array_foreach (contract->requires_, i, item) {
		struct ef_requirement asked;

		/* The contract was read: all of them are good. */
		if (!ef_requirement_read(json_string_value(item), &asked) &&
		    asked.kind->before_load == before_load &&
		    ef_require(kernel, &asked, why) == EF_ANSWER_NO)
			return true;
	}
	return false;
}

bool ef_object_possible(const struct ef_contract_variant *contract, const struct ef_kernel *kernel,
			struct ef_reason *why) {
	bool possible = !lacks(contract, kernel, true, why);

	ef_hook_forget();
	return possible;
}

/* The kernel refused, and none of the requirements explains it. first is libbpf's own word. */
static void rejected(const struct ef_contract_variant *contract, int err, const char *first,
		     struct ef_reason *why) {
	char what[384];

	snprintf(what, sizeof(what), "to load variant '%s': %s", contract->name, first);
	if (err == -EPERM)
		ef_hook_refused(what, -err, why);
	else
		ef_reason_set(why, "EF_LOAD_REJECTED",
			      "variant '%s' does not load: %s (%d); run ebpf-loader check for the "
			      "verifier's log: %s",
			      contract->name, strerror(-err), -err, first);
}

/* Under lockdown the helpers that read the kernel are gone: to the verifier, unknown. */
static bool locked_down(int err, bool reads_kernel, struct ef_reason *why) {
	if (err != -EINVAL || !reads_kernel || !ef_kernel_is_confidential())
		return false;
	ef_reason_set(why, "EF_LOCKDOWN",
		      "lockdown is in confidentiality mode and forbids programs that read kernel "
		      "memory; boot without it, or do without this feature");
	return true;
}

int ef_object_load(struct bpf_object *object, const struct ef_contract_variant *contract,
		   const struct ef_kernel *kernel, struct ef_reason *why) {
	bool reads_kernel = ef_proof_reads_kernel(object);
	char first[256];
	int err;

	if (!ef_object_possible(contract, kernel, why))
		return -EOPNOTSUPP;
	ef_bpflog_reset();
	err = bpf_object__load(object);
	if (!err)
		return 0;
	snprintf(first, sizeof(first), "%s", ef_bpflog_first());
	/* Without permission no probe can tell; the load told all there is. */
	if (err != -EPERM &&
	    (locked_down(err, reads_kernel, why) || lacks(contract, kernel, false, why)))
		return err;
	rejected(contract, err, first, why);
	return err;
}

void ef_object_attach_reason(const char *program, int err, struct ef_reason *why) {
	char what[128];

	snprintf(what, sizeof(what), "to attach program %s", program);
	if (err == -ENOENT)
		ef_reason_set(why, "EF_NO_ATTACH_POINT",
			      "this kernel has nothing to attach program %s to: %s", program,
			      ef_bpflog_first());
	else if (err == -EPERM || err == -EACCES)
		ef_hook_refused(what, -err, why);
	else
		ef_reason_set(why, "EF_ATTACH_FAILED", "program %s does not attach: %s (%d): %s",
			      program, strerror(-err), -err, ef_bpflog_first());
}

const char *ef_object_map_name(const struct bpf_map *map) {
	const char *name = bpf_map__name(map);
	const char *dot = bpf_map__is_internal(map) ? strchr(name, '.') : NULL;

	/* libbpf puts the object's name in front, which holds no dot. */
	return dot ? dot : name;
}
