/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Real attempts, to judge what others say of a kernel.
 *
 * attempt load: a line "TYPE ATTACH_TYPE FLAGS HELPER BTF_NAME" on stdin (BTF_NAME "-" for none)
 * is one load of a program that calls the helper (0: none) and returns 0; the answer is a line
 * "ERRNO WORDS". attempt attach: programs are really attached, of every kind, at quiet places
 * (the kernel's own test function, a network namespace and a cgroup of our own), and taken off
 * again; a line "NAME ERRNO" for each, 0 where it was attached.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUIET "bpf_fentry_test1"
/* Attach types newer than the headers of Debian 12. */
#define TCX_INGRESS 46
#define KPROBE_MULTI 42
#define UPROBE_MULTI 48
#define NETFILTER 45

struct load {
	int type, attach, flags, helper;
	const char *btf;
	int returns;
	int log_size;
	char *log;
};

static int load(const struct load *ask) {
	struct bpf_insn insns[] = {
	    {.code = BPF_JMP | BPF_CALL, .imm = ask->helper},
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = ask->returns},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	int skip = ask->helper ? 0 : 1, id = 0, fd;
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = ask->attach,
		    .prog_flags = ask->flags, .log_buf = ask->log, .log_size = ask->log_size,
		    .log_level = ask->log ? 1 : 0);

	if (ask->btf && strcmp(ask->btf, "-")) {
		id = libbpf_find_vmlinux_btf_id(ask->btf, ask->attach);
		if (id < 0)
			return id;
	}
	opts.attach_btf_id = id;
	fd = bpf_prog_load(ask->type, "oracle", "GPL", insns + skip, 3 - skip, &opts);
	return fd < 0 ? -errno : fd;
}

static void load_lines(void) {
	static char log[16384], name[128];
	struct load ask = {.log = log, .log_size = sizeof(log), .btf = name};

	while (scanf("%d %d %d %d %127s", &ask.type, &ask.attach, &ask.flags, &ask.helper, name) ==
	       5) {
		int fd;

		log[0] = 0;
		fd = load(&ask);
		for (char *c = log; *c; c++)
			if (*c == '\n')
				*c = ' ';
		printf("%d %s\n", fd < 0 ? -fd : 0, log);
		if (fd >= 0)
			close(fd);
	}
}

static int sys_bpf(int command, void *attr, unsigned size) {
	int fd = (int)syscall(SYS_bpf, command, attr, size);

	return fd < 0 ? -errno : fd;
}

/* BPF_LINK_CREATE with the union's bytes behind the four first words given as they are. */
static int link_create(int prog, int target, int attach, const void *more, size_t size) {
	char attr[64] = {0};
	__u32 head[4] = {(__u32)prog, (__u32)target, (__u32)attach, 0};

	memcpy(attr, head, sizeof(head));
	if (more)
		memcpy(attr + 16, more, size);
	return sys_bpf(BPF_LINK_CREATE, attr, sizeof(attr));
}

static void say(const char *name, int fd) {
	printf("%s %d\n", name, fd < 0 ? -fd : 0);
	if (fd >= 0)
		close(fd);
}

/* Load, then link; both descriptors are closed. */
static void try_link(const char *name, struct load ask, int target, int attach, const void *more,
		     size_t size) {
	int prog = load(&ask);

	if (prog < 0) {
		say(name, prog);
		return;
	}
	say(name, link_create(prog, target, attach, more, size));
	close(prog);
}

static void try_raw(const char *name, struct load ask, const char *tracepoint) {
	int prog = load(&ask), fd;

	if (prog < 0) {
		say(name, prog);
		return;
	}
	fd = bpf_raw_tracepoint_open(tracepoint, prog);
	say(name, fd < 0 ? -errno : fd);
	close(prog);
}

static int number_in(const char *path) {
	FILE *file = fopen(path, "re");
	int number = -1;

	if (!file)
		return -errno;
	if (fscanf(file, "%d", &number) != 1)
		number = -EIO;
	fclose(file);
	return number;
}

static int open_event(int type, __u64 config, const char *target, __u64 offset) {
	struct perf_event_attr attr = {.type = type, .size = sizeof(attr), .config = config};
	int fd;

	attr.config1 = (__u64)(unsigned long)target;
	attr.config2 = offset;
	attr.disabled = 1;
	attr.sample_period = 1;
	if (!target)
		attr.config1 = attr.config2 = 0;
	fd = (int)syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Bind a program to an event: by ioctl, and by a link for `link_name`. */
static void try_event(const char *name, const char *link_name, int prog_type, int event) {
	struct load ask = {.type = prog_type};
	int prog;

	if (event < 0) {
		say(name, event);
		return;
	}
	prog = load(&ask);
	if (prog < 0)
		say(name, prog);
	else {
		if (link_name)
			say(link_name, link_create(prog, event, BPF_PERF_EVENT, NULL, 0));
		say(name, ioctl(event, PERF_EVENT_IOC_SET_BPF, prog) ? -errno : dup(prog));
		close(prog);
	}
	close(event);
}

static void try_tracepoint(void) {
	int id = number_in("/sys/kernel/tracing/events/sched/sched_process_hang/id");

	if (id < 0)
		say("tracepoint", id);
	else
		try_event("tracepoint", NULL, BPF_PROG_TYPE_TRACEPOINT,
			  open_event(PERF_TYPE_TRACEPOINT, (__u64)id, NULL, 0));
}

/* Lower or raise CAP_SYS_ADMIN among the effective capabilities; who never had it keeps going
 * without. */
static void set_sys_admin(int on) {
	struct __user_cap_header_struct who = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
	const __u32 bit = 1u << CAP_SYS_ADMIN;

	if (syscall(SYS_capget, &who, sets))
		return;
	sets[0].effective =
	    on ? sets[0].effective | (sets[0].permitted & bit) : sets[0].effective & ~bit;
	if (syscall(SYS_capset, &who, sets))
		perror("capset");
}

static void try_probes(void) {
	int kprobe = number_in("/sys/bus/event_source/devices/kprobe/type");
	int uprobe = number_in("/sys/bus/event_source/devices/uprobe/type");

	/* The loader keeps no CAP_SYS_ADMIN, which Debian asks for at perf_event_paranoid 3. */
	set_sys_admin(0);
	try_event("kprobe", NULL, BPF_PROG_TYPE_KPROBE,
		  kprobe < 0 ? kprobe : open_event(kprobe, 0, QUIET, 0));
	try_event("kretprobe", NULL, BPF_PROG_TYPE_KPROBE,
		  kprobe < 0 ? kprobe : open_event(kprobe, 1, QUIET, 0));
	set_sys_admin(1);
	/* The start of our own ELF image is mapped and never run. */
	try_event("uprobe", NULL, BPF_PROG_TYPE_KPROBE,
		  uprobe < 0 ? uprobe : open_event(uprobe, 0, "/proc/self/exe", 64));
	try_event("perf_event_kind", "link:perf_event", BPF_PROG_TYPE_PERF_EVENT,
		  open_event(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, NULL, 0));
}

/* An LSM program counts only if it is called: it writes 1 into a map when a file is opened. */
static void try_lsm(void) {
	int map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "oracle", 4, 8, 1, NULL), prog, link, key = 0;
	struct bpf_insn insns[] = {
	    {.code = BPF_LD | BPF_DW | BPF_IMM,
	     .dst_reg = 1,
	     .src_reg = BPF_PSEUDO_MAP_VALUE,
	     .imm = map},
	    {0},
	    {.code = BPF_ST | BPF_MEM | BPF_DW, .dst_reg = 1, .imm = 1},
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_LSM_MAC);
	int id = libbpf_find_vmlinux_btf_id("file_open", BPF_LSM_MAC);
	__u64 called = 0;

	if (id < 0) {
		say("lsm", id);
		return;
	}
	opts.attach_btf_id = (__u32)id;
	prog = bpf_prog_load(BPF_PROG_TYPE_LSM, "oracle", "GPL", insns, 5, &opts);
	if (prog < 0) {
		say("lsm", -errno);
		return;
	}
	link = bpf_raw_tracepoint_open(NULL, prog);
	if (link < 0) {
		say("lsm", -errno);
		return;
	}
	close(open("/dev/null", O_RDONLY | O_CLOEXEC));
	bpf_map_lookup_elem(map, &key, &called);
	close(link);
	close(prog);
	close(map);
	/* Attached and not called is what an inactive LSM looks like. */
	say("lsm", called ? dup(0) : -ENXIO);
}

static int own_cgroup(char *path, size_t size) {
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

	for (int i = 0; i < 2; i++) {
		snprintf(path, size, "%s/cgroup.controllers", places[i]);
		if (access(path, F_OK))
			continue;
		snprintf(path, size, "%s/oracle-%d", places[i], getpid());
		if (mkdir(path, 0755))
			return -errno;
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	return -ENOENT;
}

static void try_cgroup(void) {
	struct load skb = {.type = BPF_PROG_TYPE_CGROUP_SKB, .returns = 1};
	char path[128];
	int cgroup = own_cgroup(path, sizeof(path)), prog;

	if (cgroup < 0) {
		say("cgroup", cgroup);
		return;
	}
	prog = load(&skb);
	if (prog >= 0) {
		int err = bpf_prog_attach(prog, cgroup, BPF_CGROUP_INET_INGRESS, 0);

		say("cgroup", err ? -errno : dup(0));
		bpf_prog_detach2(prog, cgroup, BPF_CGROUP_INET_INGRESS);
		close(prog);
	} else
		say("cgroup", prog);
	try_link("link:cgroup", skb, cgroup, BPF_CGROUP_INET_INGRESS, NULL, 0);
	close(cgroup);
	rmdir(path);
}

static void try_network(void) {
	struct load xdp = {.type = BPF_PROG_TYPE_XDP, .returns = 2};
	struct load tc = {.type = BPF_PROG_TYPE_SCHED_CLS};
	struct load flow = {.type = BPF_PROG_TYPE_FLOW_DISSECTOR};
	struct load filter = {.type = 32 /* netfilter */, .attach = NETFILTER, .returns = 1};
	const __u32 hook[4] = {2 /* NFPROTO_IPV4 */, 1 /* local in */, 1 /* priority */, 0};
	int space, prog, err;

	if (unshare(CLONE_NEWNET)) {
		fprintf(stderr, "no network namespace of our own: %s; run as root\n",
			strerror(errno));
		return;
	}
	space = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	prog = load(&xdp);
	err = prog < 0 ? prog : bpf_xdp_attach(1, prog, XDP_FLAGS_SKB_MODE, NULL);
	say("xdp", err < 0 ? err : dup(0));
	bpf_xdp_detach(1, XDP_FLAGS_SKB_MODE, NULL);
	if (prog >= 0)
		close(prog);
	try_link("link:xdp", xdp, 1, BPF_XDP, NULL, 0);
	try_link("link:netns", flow, space, BPF_FLOW_DISSECTOR, NULL, 0);
	try_link("netns", flow, space, BPF_FLOW_DISSECTOR, NULL, 0);
	try_link("tc", tc, 1, TCX_INGRESS, NULL, 0);
	try_link("link:tcx", tc, 1, TCX_INGRESS, NULL, 0);
	try_link("link:netfilter", filter, 0, NETFILTER, hook, sizeof(hook));
	close(space);
}

static void try_multi(void) {
	static const char *const symbols[] = {QUIET};
	const struct {
		__u32 flags, count;
		__u64 symbols, addresses, cookies;
	} kprobes = {0, 1, (__u64)(unsigned long)symbols, 0, 0};
	static const unsigned long offsets[] = {64};
	const struct {
		__u64 path, offsets, reference, cookies;
		__u32 count, flags, pid, pad;
	} uprobes = {(__u64)(unsigned long)"/proc/self/exe",
		     (__u64)(unsigned long)offsets,
		     0,
		     0,
		     1,
		     0,
		     0,
		     0};

	try_link("link:kprobe_multi",
		 (struct load){.type = BPF_PROG_TYPE_KPROBE, .attach = KPROBE_MULTI}, 0,
		 KPROBE_MULTI, &kprobes, sizeof(kprobes));
	try_link("link:uprobe_multi",
		 (struct load){.type = BPF_PROG_TYPE_KPROBE, .attach = UPROBE_MULTI}, 0,
		 UPROBE_MULTI, &uprobes, sizeof(uprobes));
}

static void try_sockmap(void) {
	int map = bpf_map_create(BPF_MAP_TYPE_SOCKMAP, "oracle", 4, 4, 1, NULL);

	try_link("link:sockmap",
		 (struct load){.type = BPF_PROG_TYPE_SK_MSG, .attach = BPF_SK_MSG_VERDICT}, map,
		 BPF_SK_MSG_VERDICT, NULL, 0);
	if (map >= 0)
		close(map);
}

static void attach_all(void) {
	struct load fentry = {
	    .type = BPF_PROG_TYPE_TRACING, .attach = BPF_TRACE_FENTRY, .btf = QUIET};
	struct load fexit = {
	    .type = BPF_PROG_TYPE_TRACING, .attach = BPF_TRACE_FEXIT, .btf = QUIET};
	struct load tp_btf = {
	    .type = BPF_PROG_TYPE_TRACING, .attach = BPF_TRACE_RAW_TP, .btf = "sched_process_hang"};
	struct load iter = {.type = BPF_PROG_TYPE_TRACING, .attach = BPF_TRACE_ITER, .btf = "task"};
	struct load raw = {.type = BPF_PROG_TYPE_RAW_TRACEPOINT};

	try_tracepoint();
	try_raw("raw_tp", raw, "sched_process_hang");
	try_raw("link:raw_tracepoint", raw, "sched_process_hang");
	try_raw("tp_btf", tp_btf, NULL);
	try_raw("fentry", fentry, NULL);
	try_raw("fexit", fexit, NULL);
	try_probes();
	try_link("iter", iter, 0, BPF_TRACE_ITER, NULL, 0);
	try_link("link:iter", iter, 0, BPF_TRACE_ITER, NULL, 0);
	/* A tracing link by the older command, which every kernel that has them takes; LINK_CREATE
	 * since 5.13. */
	try_raw("link:tracing", tp_btf, NULL);
	try_lsm();
	try_cgroup();
	try_multi();
	try_sockmap();
	try_network();
}

int main(int argc, char **argv) {
	libbpf_set_print(NULL);
	if (argc == 2 && !strcmp(argv[1], "load"))
		load_lines();
	else if (argc == 2 && !strcmp(argv[1], "attach"))
		attach_all();
	else {
		fprintf(stderr, "usage: attempt load|attach\n");
		return 2;
	}
	return 0;
}
