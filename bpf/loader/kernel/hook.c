/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/hook.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/bpfnames.h"

#define KPROBE_PMU "/sys/bus/event_source/devices/kprobe"
#define LSM_LIST "/sys/kernel/security/lsm"

static struct btf *types;

void ef_hook_forget(void) {
	btf__free(types);
	types = NULL;
}

static const struct btf *kernel_types(void) {
	if (!types)
		types = btf__parse_raw(EF_KERNEL_BTF);
	return types;
}

static enum ef_answer absent(const struct ef_requirement *hook, const char *how,
			     struct ef_reason *why) {
	ef_reason_set(why, hook->kind->code, "this kernel has no attach point '%s' (%s)", hook->key,
		      how);
	return EF_ANSWER_NO;
}

void ef_hook_refused(const char *what, int err, struct ef_reason *why) {
	if (ef_kernel_is_confidential())
		ef_reason_set(
		    why, "EF_LOCKDOWN",
		    "lockdown is in confidentiality mode and forbids %s (%s); boot without "
		    "it, or do without this feature",
		    what, strerror(err));
	else
		ef_reason_set(why, "EF_PERMISSION",
			      "the kernel refuses %s (%s); give this process CAP_BPF and "
			      "CAP_PERFMON, and where it has them this kernel is hardened against "
			      "it",
			      what, strerror(err));
}

/* An error of the attempt itself. Permission is an answer; anything else says nothing. */
static enum ef_answer judge_error(const struct ef_requirement *hook, int err,
				  struct ef_reason *why) {
	char what[160];

	if (err != EPERM && err != EACCES)
		return EF_ANSWER_UNKNOWN;
	snprintf(what, sizeof(what), "a program at '%s'", hook->key);
	ef_hook_refused(what, err, why);
	return EF_ANSWER_NO;
}

/*
 * The type that stands for the hook's target in the kernel's own BTF; YES with its *id. Kinds that
 * are found by nothing else get a no where the kernel has none.
 */
static enum ef_answer find_type(const struct ef_kernel *kernel, const struct ef_requirement *hook,
				int *id, struct ef_reason *why) {
	const struct btf *btf;
	char name[EF_TARGET_MAX + 32], how[sizeof(name) + 64];

	if (hook->attach->own_btf && kernel->btf != EF_BTF_VMLINUX) {
		ef_reason_set(why, ef_reason_code(&kernel->own_btf_why),
			      "'%s' needs the kernel's own types, and no other BTF can stand in "
			      "for them: %s",
			      hook->key, ef_reason_text(&kernel->own_btf_why));
		return EF_ANSWER_NO;
	}
	btf = kernel_types();
	if (!btf)
		return EF_ANSWER_UNKNOWN;
	snprintf(name, sizeof(name), "%s%s", hook->attach->prefix, hook->target);
	*id = btf__find_by_name_kind(btf, name, hook->attach->btf_kind);
	if (*id > 0)
		return EF_ANSWER_YES;
	snprintf(how, sizeof(how), "%s is not in " EF_KERNEL_BTF, name);
	return absent(hook, how, why);
}

/* The least program of a kind: it returns 0. A descriptor, or -errno. */
static int load_least(const struct ef_attach *kind, int btf_id) {
	const struct bpf_insn insns[] = {
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = (enum bpf_attach_type)kind->attach_type,
		    .attach_btf_id = (__u32)btf_id);
	int type = ef_name_number(EF_NAMES_PROG_TYPE, kind->prog_type, strlen(kind->prog_type));
	int fd = bpf_prog_load((enum bpf_prog_type)type, "ef_probe", "GPL", insns,
			       EF_ARRAY_SIZE(insns), &opts);

	return fd < 0 ? -errno : fd;
}

static enum ef_answer ask_tp_btf(const struct ef_kernel *kernel, const struct ef_requirement *hook,
				 struct ef_reason *why) {
	int id;

	return find_type(kernel, hook, &id, why);
}

/* May a program be loaded for that very function? */
static enum ef_answer ask_function(const struct ef_kernel *kernel,
				   const struct ef_requirement *hook, struct ef_reason *why) {
	_cleanup_close_ int fd = -1;
	int id;
	enum ef_answer told = find_type(kernel, hook, &id, why);

	if (told != EF_ANSWER_YES)
		return told;
	fd = load_least(hook->attach, id);
	return fd < 0 ? judge_error(hook, -fd, why) : EF_ANSWER_YES;
}

/* Is "bpf" among the active security modules? Unknown where the list cannot be read. */
static enum ef_answer lsm_active(void) {
	_cleanup_fclose_ FILE *file = fopen(LSM_LIST, "re");
	char line[512], *rest = line, *name;

	if (!file || !fgets(line, sizeof(line), file))
		return EF_ANSWER_UNKNOWN;
	while ((name = strsep(&rest, ",\n")))
		if (!strcmp(name, "bpf"))
			return EF_ANSWER_YES;
	return EF_ANSWER_NO;
}

/* It loads and attaches where the BPF LSM is not active too, and then is never called. */
static enum ef_answer ask_lsm(const struct ef_kernel *kernel, const struct ef_requirement *hook,
			      struct ef_reason *why) {
	enum ef_answer active = lsm_active(), told;

	if (active == EF_ANSWER_NO) {
		ef_reason_set(why, "EF_LSM_INACTIVE",
			      "bpf is not among the active security modules (" LSM_LIST
			      "); boot with bpf in lsm=, on a kernel with CONFIG_BPF_LSM");
		return EF_ANSWER_NO;
	}
	told = ask_function(kernel, hook, why);
	if (told == EF_ANSWER_NO || active == EF_ANSWER_YES)
		return told;
	ef_reason_set(why, "EF_UNKNOWN",
		      "whether the BPF LSM is active cannot be read from " LSM_LIST
		      "; mount securityfs on /sys/kernel/security");
	return EF_ANSWER_NO;
}

/* A tracepoint of a module is not in the kernel's BTF; attaching for a moment tells. */
static enum ef_answer try_raw_tp(const struct ef_requirement *hook, struct ef_reason *why) {
	_cleanup_close_ int program = load_least(hook->attach, 0);
	_cleanup_close_ int link = -1;

	if (program < 0)
		return EF_ANSWER_UNKNOWN;
	link = bpf_raw_tracepoint_open(hook->target, program);
	if (link >= 0)
		return EF_ANSWER_YES;
	if (errno == ENOENT || errno == EINVAL)
		return absent(hook, "attaching says so", why);
	return EF_ANSWER_UNKNOWN;
}

static enum ef_answer ask_raw_tp(const struct ef_kernel *kernel, const struct ef_requirement *hook,
				 struct ef_reason *why) {
	struct ef_reason ignored;
	int id;

	if (kernel->btf == EF_BTF_VMLINUX &&
	    find_type(kernel, hook, &id, &ignored) == EF_ANSWER_YES)
		return EF_ANSWER_YES;
	return try_raw_tp(hook, why);
}

/* The number in a file of sysfs that begins with prefix, or -1. */
static int read_number(const char *path, const char *prefix) {
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	char line[64];
	int number;

	if (!file || !fgets(line, sizeof(line), file) || strncmp(line, prefix, strlen(prefix)))
		return -1;
	return sscanf(line + strlen(prefix), "%d", &number) == 1 ? number : -1;
}

/* The event that a program would be attached to; it counts nothing. A descriptor, or -errno. */
static int open_kprobe(int pmu, uint64_t config, const char *symbol) {
	struct perf_event_attr attr = {
	    .type = (uint32_t)pmu,
	    .size = sizeof(attr),
	    .config = config,
	    .config1 = (uint64_t)(uintptr_t)symbol,
	    .disabled = 1,
	};
	long fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

static bool means_absent(int err) {
	return err == ENOENT || err == EINVAL || err == EADDRNOTAVAIL || err == EOPNOTSUPP;
}

/*
 * Debian's kernels have a level above the kernel's own, at which CAP_PERFMON is
 * not enough. Lockdown is the stronger reason: no setting lifts it.
 */
static bool paranoid(const struct ef_requirement *hook, int err, struct ef_reason *why) {
	int level = read_number("/proc/sys/kernel/perf_event_paranoid", "");

	if (err != EACCES || level <= 2 || ef_kernel_is_confidential())
		return false;
	ef_reason_set(
	    why, "EF_PERMISSION",
	    "the kernel refuses a program at '%s' (%s): kernel.perf_event_paranoid is %d, "
	    "which asks for CAP_SYS_ADMIN; set it to 2, the kernel's own default",
	    hook->key, strerror(err), level);
	return true;
}

static enum ef_answer ask_probe(const struct ef_requirement *hook, bool at_return,
				struct ef_reason *why) {
	int pmu = read_number(KPROBE_PMU "/type", "");
	int bit = at_return ? read_number(KPROBE_PMU "/format/retprobe", "config:") : -1;
	_cleanup_close_ int fd = -1;

	if (pmu < 0)
		return absent(hook, "there is no " KPROBE_PMU, why);
	if (at_return && (bit < 0 || bit > 63))
		return EF_ANSWER_UNKNOWN;
	fd = open_kprobe(pmu, at_return ? 1ULL << bit : 0, hook->target);
	if (fd >= 0)
		return EF_ANSWER_YES;
	if (means_absent(-fd))
		return absent(hook, strerror(-fd), why);
	return paranoid(hook, -fd, why) ? EF_ANSWER_NO : judge_error(hook, -fd, why);
}

static enum ef_answer ask_kprobe(const struct ef_kernel *kernel, const struct ef_requirement *hook,
				 struct ef_reason *why) {
	(void)kernel;
	return ask_probe(hook, false, why);
}

static enum ef_answer ask_kretprobe(const struct ef_kernel *kernel,
				    const struct ef_requirement *hook, struct ef_reason *why) {
	(void)kernel;
	return ask_probe(hook, true, why);
}

/* By tracefs; without a tracefs that we may read it is unknown. */
static enum ef_answer ask_tracepoint(const struct ef_kernel *kernel,
				     const struct ef_requirement *hook, struct ef_reason *why) {
	static const char *const roots[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};
	char path[256];

	(void)kernel;
	for (size_t i = 0; i < EF_ARRAY_SIZE(roots); i++) {
		snprintf(path, sizeof(path), "%s/events", roots[i]);
		if (access(path, R_OK | X_OK))
			continue;
		snprintf(path, sizeof(path), "%s/events/%s", roots[i], hook->target);
		return access(path, F_OK) ? absent(hook, "tracefs has none", why) : EF_ANSWER_YES;
	}
	return EF_ANSWER_UNKNOWN;
}

enum ef_answer ef_hook_ask(const struct ef_kernel *kernel, const struct ef_requirement *hook,
			   struct ef_reason *why) {
	static enum ef_answer (*const asks[EF_N_ATTACH])(
	    const struct ef_kernel *, const struct ef_requirement *, struct ef_reason *) = {
	    [EF_ATTACH_TP_BTF] = ask_tp_btf,  [EF_ATTACH_FENTRY] = ask_function,
	    [EF_ATTACH_FEXIT] = ask_function, [EF_ATTACH_LSM] = ask_lsm,
	    [EF_ATTACH_RAW_TP] = ask_raw_tp,  [EF_ATTACH_TRACEPOINT] = ask_tracepoint,
	    [EF_ATTACH_KPROBE] = ask_kprobe,  [EF_ATTACH_KRETPROBE] = ask_kretprobe,
	};

	return asks[hook->attach->id] ? asks[hook->attach->id](kernel, hook, why)
				      : EF_ANSWER_UNKNOWN;
}
