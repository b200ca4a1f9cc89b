/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A loader of a signer who means harm. It tries what it can and writes one line on stderr for
 * each attempt: "refused NAME ERRNO" or "DONE NAME". Compiled by the test with MARKER (a file to
 * make), VICTIM (a process to end), SOCKET (a Unix socket to reach) and END (how it ends).
 *
 * What would harm the machine is tried only by a process that is the first of its namespace and
 * not root: where it is confined at all. Anything else makes the marker, says so and ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void told(const char *name, long result) {
	if (result < 0)
		dprintf(2, "refused %s %d\n", name, errno);
	else
		dprintf(2, "DONE %s\n", name);
}

#define TRY(name, call) told(name, (long)(call))
#define CALL(name, ...) told(#name, syscall(SYS_##name, ##__VA_ARGS__))

static void files(void) {
	static char head[64];

	TRY("write_marker", open(MARKER, O_WRONLY | O_CREAT, 0644));
	TRY("write_root", open("/new", O_WRONLY | O_CREAT, 0644));
	TRY("write_bundle", open("/bundle/new", O_WRONLY | O_CREAT, 0644));
	TRY("write_manifest", open("/bundle/manifest.json", O_WRONLY));
	TRY("write_program", open("/program", O_WRONLY));
	TRY("read_shadow", open("/etc/shadow", O_RDONLY));
	TRY("read_up", open("/../../../../etc/passwd", O_RDONLY));
	TRY("read_proc_1", open("/proc/1/environ", O_RDONLY));
	TRY("read_proc_1_root", open("/proc/1/root/etc/shadow", O_RDONLY));
	TRY("read_proc_self", open("/proc/self/maps", O_RDONLY));
	TRY("read_sys", open("/sys/kernel/btf/vmlinux", O_RDONLY));
	TRY("open_mem", open("/dev/mem", O_RDWR));
	TRY("open_kmsg", open("/dev/kmsg", O_RDONLY));
	TRY("open_null", open("/dev/null", O_RDWR));
	TRY("write_stdin", write(0, head, 1));
	CALL(mknodat, AT_FDCWD, "/mem", S_IFCHR | 0600, 0x101);
	CALL(mkdirat, AT_FDCWD, "/d", 0755);
	CALL(symlinkat, "/etc", AT_FDCWD, "/bundle/l");
	CALL(linkat, AT_FDCWD, "/program", AT_FDCWD, "/p2", 0);
	CALL(unlinkat, AT_FDCWD, "/bundle/manifest.json", 0);
	CALL(renameat2, AT_FDCWD, "/program", AT_FDCWD, "/p3", 0);
	CALL(fchmodat, AT_FDCWD, "/program", 06755);
	CALL(fchownat, AT_FDCWD, "/program", 0, 0, 0);
	CALL(truncate, "/bundle/manifest.json", 0);
	CALL(open_by_handle_at, AT_FDCWD, head, O_RDONLY);
	CALL(memfd_create, "x", 0);
	CALL(inotify_init1, 0);
	CALL(fanotify_init, 0, 0);
	CALL(quotactl, 0, "x", 0, head);
}

static void net(void) {
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
	int pair[2], fd = socket(AF_UNIX, SOCK_STREAM, 0);

	told("socket_unix", fd);
	TRY("connect_unix", connect(fd < 0 ? 2 : fd, (void *)&address, sizeof(address)));
	TRY("socket_inet", socket(AF_INET, SOCK_DGRAM, 0));
	TRY("socket_netlink", socket(AF_NETLINK, SOCK_RAW, 0));
	TRY("socket_packet", socket(AF_PACKET, SOCK_RAW, 0));
	TRY("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CALL(io_uring_setup, 8, pair);
}

static void kernel(void) {
	static unsigned attr[36];

	attr[0] =
	    2; /* an array of one integer: what anybody may make where bpf(2) is open to all */
	attr[1] = attr[2] = 4, attr[3] = 1;
	CALL(bpf, 0, attr, sizeof(attr));
	CALL(bpf, 5, attr, sizeof(attr));
	CALL(perf_event_open, attr, 0, -1, -1, 0);
	CALL(userfaultfd, 0);
	CALL(init_module, attr, 0, "");
	CALL(kexec_load, 0, 0, 0, 0);
	CALL(reboot, 0, 0, 0, 0);
	CALL(swapon, "/program", 0);
	CALL(syslog, 3, attr, 16);
	CALL(keyctl, 0, -3, 0); /* the session's keyring, which it inherited */
	CALL(keyctl, 1, 0);
	CALL(add_key, "user", "x", "y", 1, -3);
	CALL(request_key, "user", "x", "y", -3);
	CALL(clock_settime, CLOCK_REALTIME, attr);
	CALL(sethostname, "x", 1);
	CALL(shmget, 0, 4096, 01600);
	CALL(msgget, 0, 01600);
	CALL(semget, 0, 1, 01600);
	CALL(mq_open, "x", O_CREAT | O_RDWR, 0600, 0);
}

static void privileges(void) {
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct all[2] = {{~0U, ~0U, ~0U}, {~0U, ~0U, ~0U}};
	struct rlimit more = {1000, 1000};

	CALL(setuid, 0);
	CALL(setresuid, 0, 0, 0);
	CALL(setgid, 0);
	CALL(setgroups, 0, 0);
	CALL(capset, &head, all);
	CALL(prctl, PR_SET_SECUREBITS, 0);
	CALL(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0);
	CALL(prctl, PR_SET_PDEATHSIG, 0);
	CALL(mount, "none", "/bundle", "tmpfs", 0, "");
	CALL(mount, 0, "/bundle", 0, MS_REMOUNT | MS_BIND, 0);
	CALL(umount2, "/bundle", MNT_DETACH);
	CALL(open_tree, AT_FDCWD, "/", 1);
	CALL(fsopen, "tmpfs", 0);
	CALL(chroot, "/bundle");
	CALL(pivot_root, "/bundle", "/bundle");
	CALL(unshare, CLONE_NEWUSER);
	CALL(unshare, CLONE_NEWNS);
	CALL(setns, 0, 0);
	CALL(personality, 0x0400000);
	CALL(sched_setscheduler, 0, SCHED_FIFO, &more);
	CALL(setpriority, PRIO_PROCESS, 0, -20);
	TRY("raise_open_files", setrlimit(RLIMIT_NOFILE, &more));
	TRY("raise_file_size", setrlimit(RLIMIT_FSIZE, &more));
	TRY("raise_processes", setrlimit(RLIMIT_NPROC, &more));
	TRY("high_descriptor", fcntl(1, F_DUPFD, 200));
	CALL(dup3, 1, 200, 0);
}

static void processes(void) {
	static char *const argv[] = {"x", NULL}, *const envp[] = {NULL};
	struct {
		unsigned long a[11];
	} with = {{CLONE_NEWUSER}};
	int own = open("/program", O_RDONLY);

	CALL(kill, 1, SIGKILL);
	CALL(kill, -1, SIGKILL);
	CALL(kill, VICTIM, SIGKILL);
	CALL(tgkill, VICTIM, VICTIM, SIGKILL);
	CALL(pidfd_open, VICTIM, 0);
	CALL(ptrace, PTRACE_ATTACH, VICTIM, 0, 0);
	CALL(ptrace, PTRACE_TRACEME, 0, 0, 0);
	CALL(process_vm_readv, VICTIM, &with, 1, &with, 1, 0);
	CALL(prlimit64, VICTIM, RLIMIT_CORE, 0, &with);
	CALL(clone, SIGCHLD, 0, 0, 0, 0);
	CALL(clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
	CALL(clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	CALL(clone3, &with, sizeof(with));
	for (int i = 0; i < 100; i++)
		if (fork() >= 0)
			dprintf(2, "DONE fork_bomb\n");
	CALL(execve, "/bin/sh", argv, envp);
	CALL(execve, "/program", argv, envp);
	CALL(execveat, AT_FDCWD, "/program", argv, envp, 0);
	CALL(execveat, own, "", argv, envp, AT_EMPTY_PATH);
	CALL(execveat, 200, "", argv, envp, AT_EMPTY_PATH);
	CALL(execveat, 200, "/program", argv, envp, 0);
	CALL(execveat, 200, "/proc/self/exe", argv, envp, 0);
	close(own);
}

static void open_descriptors(void) {
	for (int fd = 3; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			dprintf(2, "DONE inherited_descriptor_%d\n", fd);
}

enum { QUIET, SPINS, WAITS, FLOODS, EATS, DIES, INT80, X32, SAYS, WHO };

static int end(void) {
	static const char word[4096] = {1};

	switch (END) {
	case SPINS:
		for (;;)
			;
	case WAITS:
		for (;;)
			syscall(SYS_futex, word, 0, 1, NULL, NULL, 0);
	case FLOODS:
		for (;;)
			if (write(1, word, sizeof(word)) < 0)
				return 1;
	case EATS:
		for (size_t all = 0;; all += 1 << 20) {
			void *piece = malloc(1 << 20);

			if (!piece || all > 1UL << 32) {
				dprintf(2, "ate %zu\n", all);
				return 1;
			}
			memset(piece, 1, 1 << 20);
		}
	case DIES:
		*(volatile int *)0 = 0;
		return 1;
#ifdef __x86_64__
	case INT80: { /* getpid in the numbers of i386 */
		long number = 20;

		__asm__ volatile("int $0x80" : "+a"(number));
		dprintf(2, "DONE int80 %ld\n", number);
		return 1;
	}
	case X32:
		CALL(getpid); /* allowed; the same with the bit of x32 is not */
		told("x32", syscall(SYS_getpid | 0x40000000));
		return 1;
#endif
	case SAYS:
		fputs(WORDS, stdout);
		fflush(stdout);
		return STATUS;
	case WHO:
		dprintf(2, "user %u\n", getuid());
		return STATUS;
	default:
		return STATUS;
	}
}

int main(void) {
	if (getpid() != 1 || getuid() == 0) {
		TRY("write_marker", open(MARKER, O_WRONLY | O_CREAT, 0644));
		TRY("read_shadow", open("/etc/shadow", O_RDONLY));
		TRY("socket_unix", socket(AF_UNIX, SOCK_STREAM, 0));
		dprintf(2, "unconfined\n");
		return 1;
	}
	if (END == QUIET) {
		open_descriptors();
		files();
		net();
		kernel();
		privileges();
		processes();
		open_descriptors();
	}
	return end();
}
