/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the loader's own functions decide, for tests.
 *
 * privilege_driver keeps LAST_CAP: the capabilities that are kept on a kernel that knows
 * that many, one number a line. privilege_driver filter: installs the filter, then tries what
 * is named below; a line "NAME ERRNO" for each, 0 where it went through.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/privilege.h"
#include "kernel/seccomp.h"

#define TRY(name, call) report(name, (errno = 0, (long)(call)) < 0)

static char child_stack[65536] __attribute__((aligned(16)));

static void report(const char *name, int failed) {
	printf("%s %d\n", name, failed ? errno : 0);
}

static int nothing(void *arg) {
	(void)arg;
	return 0;
}

static void *refused_too(void *arg) {
	int *err = arg;

	*err = socket(AF_INET, SOCK_DGRAM, 0) < 0 ? errno : 0;
	return NULL;
}

static void *map(int protection) {
	return mmap(NULL, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void try_a_thread(void) {
	pthread_t thread;
	int err = -1;

	errno = pthread_create(&thread, NULL, refused_too, &err);
	report("thread", errno != 0);
	pthread_join(thread, NULL);
	printf("socket_inet_in_thread %d\n", err);
}

static void try_refused(char **argv, void *page) {
	char *const environment[] = {NULL};
	union bpf_attr attr = {0};

	TRY("execve", execve("/bin/true", argv, environment));
	TRY("execveat", syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, environment, 0));
	TRY("ptrace", syscall(SYS_ptrace, 0, 0, 0, 0));
	TRY("mount", syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL));
	TRY("umount2", syscall(SYS_umount2, "/mnt", 0));
	TRY("init_module", syscall(SYS_init_module, "", 0, ""));
	TRY("finit_module", syscall(SYS_finit_module, 0, "", 0));
	TRY("delete_module", syscall(SYS_delete_module, "nothing_of_this_name", 0));
	TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
	TRY("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
	TRY("setns", syscall(SYS_setns, 0, 0));
	TRY("unshare", syscall(SYS_unshare, CLONE_NEWNS));
	TRY("chroot", syscall(SYS_chroot, "/"));
	TRY("fork", clone(nothing, child_stack + sizeof(child_stack), SIGCHLD, NULL));
	TRY("kill", kill(getppid(), 0));
	TRY("setuid", syscall(SYS_setuid, 0));
	TRY("capset", syscall(SYS_capset, NULL, NULL));
	TRY("prctl", syscall(SYS_prctl, 0, 0, 0, 0, 0));
	TRY("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
	TRY("process_vm_readv", syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
	TRY("socket_inet", socket(AF_INET, SOCK_STREAM, 0));
	TRY("socket_inet6", socket(AF_INET6, SOCK_DGRAM, 0));
	TRY("socket_netlink", socket(AF_NETLINK, SOCK_RAW, 0));
	TRY("socket_packet", socket(AF_PACKET, SOCK_RAW, 0));
	TRY("mmap_exec", map(PROT_READ | PROT_EXEC));
	TRY("mprotect_exec", mprotect(page, 4096, PROT_READ | PROT_EXEC));
	TRY("ioctl_terminal", ioctl(STDIN_FILENO, TIOCSTI, ""));
	TRY("bpf_pin", syscall(SYS_bpf, BPF_OBJ_PIN, &attr, sizeof(attr)));
	TRY("bpf_attach", syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)));
	TRY("bpf_others", syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr)));
}

static void try_allowed(void) {
	union bpf_attr attr = {0};
	FILE *file;

	TRY("open", open("/proc/self/status", O_RDONLY | O_CLOEXEC));
	TRY("socket_unix", socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	TRY("mmap", map(PROT_READ | PROT_WRITE) == MAP_FAILED ? -1 : 0);
	file = tmpfile();
	report("write", !file || fputs("text", file) < 0 || fflush(file));
	errno = 0; /* EINVAL or the like is the kernel's word on no arguments, not the filter's */
	report("bpf_load", syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)) && errno == EPERM);
	try_a_thread();
}

static int keeps(const char *last_cap) {
	uint64_t kept = ef_privilege_kept(atoi(last_cap));

	for (int cap = 0; cap < 64; cap++)
		if (kept >> cap & 1)
			printf("%d\n", cap);
	return 0;
}

static int filter(char **argv) {
	void *page = map(PROT_READ);
	int err = ef_seccomp_install();

	setvbuf(stdout, NULL, _IONBF, 0);
	printf("install %d\n", -err);
	if (err)
		return 1;
	try_refused(argv, page);
	try_allowed();
	return 0;
}

int main(int argc, char **argv) {
	if (argc == 3 && !strcmp(argv[1], "keeps"))
		return keeps(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "filter"))
		return filter(argv);
	return 2;
}
