// SPDX-License-Identifier: GPL-3.0-or-later
/* A compromised loader, for tests/host: it runs where the real unit starts the loader, with the
 * loader's user, capabilities and sandbox, and holds a program "ef_evil" attached by a link.
 * Every trick ignores SIGTERM and every order. It never has more than TASKS_MAX tasks, as
 * TasksMax= of the unit demands, also where no pids controller enforces that.
 *
 *   ebpf-loader run TRICK [ARGUMENT]       in the unit
 *   ebpf-loader collude|blind SOCKET       another user: takes and keeps what is passed; or never
 * receives ebpf-loader bomb PROCESSES DESCRIPTORS another user: processes with our name and one
 * table ebpf-loader innocent                   another user: only named like ours ebpf-loader flood
 * PROCESSES            another user: messages to systemd without end
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TASKS_MAX 8
#define FOLDER "/run/ebpf-fleet-loader"
#define PROGRAMS FOLDER "/programs"
#define STATUS FOLDER "/status.json"
#define WAS_HERE "/var/log/ebpf-fleet/evil-was-here"
#define CURRENT "/var/lib/ebpf-fleet/current"
#define NOTIFY "/run/systemd/notify"

static const char *argument;

static void fail(const char *what) {
	fprintf(stderr, "evil: %s: %s\n", what, strerror(errno));
	exit(9);
}

static int bpf(int command, union bpf_attr *attr) {
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* --- what it holds ------------------------------------------------------------------------- */

static int load(int type, int expected, int answer, const char *name) {
	struct bpf_insn code[] = {
	    {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = answer},
	    {.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr = {
	    .prog_type = type,
	    .expected_attach_type = expected,
	    .insns = (uintptr_t)code,
	    .insn_cnt = 2,
	    .license = (uintptr_t) "GPL",
	};
	strncpy(attr.prog_name, name, sizeof(attr.prog_name) - 1);
	return bpf(BPF_PROG_LOAD, &attr);
}

static int attach(void) {
	int program = load(BPF_PROG_TYPE_RAW_TRACEPOINT, 0, 0, "ef_evil");
	if (program < 0)
		fail("load");
	union bpf_attr attr = {
	    .raw_tracepoint = {.name = (uintptr_t) "task_newtask", .prog_fd = program},
	};
	int link = bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
	if (link < 0)
		fail("attach");
	close(program);
	return link;
}

/* --- sockets ------------------------------------------------------------------------------- */

static struct sockaddr_un address(const char *path) {
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	strncpy(to.sun_path, path, sizeof(to.sun_path) - 1);
	return to;
}

/* Sends text, and a descriptor if it is not -1. */
static int pass(int socket, const struct sockaddr_un *to, const char *text, int descriptor) {
	char room[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
	struct msghdr message = {
	    .msg_name = (void *)to,
	    .msg_namelen = to ? sizeof(*to) : 0,
	    .msg_iov = &part,
	    .msg_iovlen = 1,
	};
	if (descriptor >= 0) {
		message.msg_control = room;
		message.msg_controllen = sizeof(room);
		struct cmsghdr *head = CMSG_FIRSTHDR(&message);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(head), &descriptor, sizeof(int));
	}
	return (int)sendmsg(socket, &message, MSG_NOSIGNAL);
}

static void notify_with(const char *text, int descriptor) {
	int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = address(NOTIFY);
	if (out < 0 || pass(out, &to, text, descriptor) < 0)
		fprintf(stderr, "evil: notify: %s\n", strerror(errno));
	close(out);
}

static void notify(const char *text) {
	notify_with(text, -1);
}

/* --- ways to live on ----------------------------------------------------------------------- */

static void idle(void) {
	for (;;)
		pause();
}

static void ready(void) {
	notify("READY=1\nSTATUS=evil");
}

static void ready_and_idle(void) {
	ready();
	idle();
}

static void put(const char *path, const char *text) {
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (file < 0 || write(file, text, strlen(text)) < 0)
		fail(path);
	close(file);
}

static void deaf(void) {
	attach();
	ready_and_idle();
}

static void list_fifo(void) {
	if (mkfifo(PROGRAMS, 0644))
		fail(PROGRAMS);
	deaf();
}

static void list_zero(void) {
	if (symlink("/dev/zero", PROGRAMS))
		fail(PROGRAMS);
	deaf();
}

static void list_giant(void) {
	put(PROGRAMS, "");
	if (truncate(PROGRAMS, 1L << 36))
		fail(PROGRAMS);
	deaf();
}

static void list_odd(void) {
	static const char *lines[] = {
	    "$(touch /run/evil-was-root) `touch /run/evil-was-root` ;touch,/run/evil-was-root "
	    "global",
	    "1 ' \" global ../../../etc/shadow",
	    "\033[2J\033[H\033]0;All 500 hosts confirmed\007 x global *",
	    "-e -n -9 $$ ef_ $(id)",
	    "99999999999999999999 0 runqlat ef_x\\",
	    "0;reboot * runqlat ef_%s%n",
	};
	FILE *file = fopen(PROGRAMS, "w");
	if (!file)
		fail(PROGRAMS);
	for (int i = 0; i < 1000000; i++)
		fprintf(file, "%s\n", lines[i % 6]);
	fclose(file);
	deaf();
}

/* Every small number is one of our programs, says the list: systemd's own are among them. */
static void list_frames(void) {
	FILE *file = fopen(PROGRAMS, "w");
	if (!file)
		fail(PROGRAMS);
	for (int id = 1; id < 3000; id++)
		fprintf(file, "%d 0123456789abcdef runqlat %s\n", id,
			id % 2 ? "ef_rql_switch" : "sd_devices");
	fclose(file);
	deaf();
}

static void status_fifo(void) {
	if (mkfifo(STATUS, 0644) || mkfifo(FOLDER "/metrics.prom", 0644))
		fail(STATUS);
	deaf();
}

static void status_zero(void) {
	if (symlink("/dev/zero", STATUS))
		fail(STATUS);
	deaf();
}

static void extend(void) {
	attach();
	ready();
	for (;;) {
		notify("STOPPING=1\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=3600000000");
		usleep(200000);
	}
}

static void frozen(void) {
	attach();
	ready();
	raise(SIGSTOP);
	idle();
}

/* Runs on from a memfd with the name of a kernel thread, so that name, path and arguments are not
 * ours. */
static void renamed(void) {
	char buffer[65536];
	ssize_t got;
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to = memfd_create("kworker", MFD_CLOEXEC);
	if (from < 0 || to < 0)
		fail("memfd");
	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, got) != got)
			fail("memfd");
	char *arguments[] = {"[kworker/u4:1]", NULL}, *none[] = {NULL};
	fexecve(to, arguments, none);
	fail("fexecve");
}

static void renamed_goes_on(void) {
	prctl(PR_SET_NAME, "kworker/u4:1");
	deaf();
}

/* --- many processes ------------------------------------------------------------------------ */

static _Atomic pid_t *family;

static void hydra_head(int me) {
	setsid();
	attach();
	family[me] = getpid();
	for (;;) {
		for (int i = 1; i < TASKS_MAX - 1; i++) {
			pid_t pid = family[i];
			if (!pid || kill(pid, 0) == 0 || errno != ESRCH)
				continue;
			family[i] = 0;
			if (fork() == 0) {
				me = i;
				setsid();
				attach();
				family[i] = getpid();
			}
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(500);
	}
}

/* Double forks, sessions of their own; a sibling that dies is born again and attaches. */
static void hydra(void) {
	family = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	attach();
	for (int i = 1; i < TASKS_MAX - 1; i++) {
		pid_t child = fork();
		if (child == 0) {
			if (fork() == 0)
				hydra_head(i);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	ready_and_idle();
}

/* Each process lives for microseconds and hands its link on to the next: whoever reads a pid is too
 * late. */
static void storm(void) {
	attach();
	ready();
	signal(SIGCHLD, SIG_IGN);
	for (int i = 0; i < 3; i++) {
		if (fork())
			continue;
		for (;;) {
			pid_t next = fork();
			if (next > 0)
				_exit(0);
		}
	}
	idle();
}

static void *hold(void *unused) {
	(void)unused;
	attach();
	ready();
	idle();
	return NULL;
}

/* The leader is a zombie, whose descriptors are not to be seen; a thread goes on. */
static void leaderless(void) {
	pthread_t thread;
	if (pthread_create(&thread, NULL, hold, NULL))
		fail("thread");
	syscall(SYS_exit, 0);
}

/* A chain of parents that wait uninterruptibly for a child that never ends. */
static void vforks(void) {
	attach();
	ready();
	/* What vfork() is, without its promises about the stack: each child calls on and never
	 * returns. */
	for (volatile int depth = 0; depth < TASKS_MAX - 2; depth++)
		if (syscall(SYS_clone, CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, 0))
			idle();
	raise(SIGSTOP);
	idle();
}

static void *fork_for_ever(void *unused) {
	(void)unused;
	for (;;) {
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		waitpid(child, NULL, 0);
	}
	return NULL;
}

/* Whoever reads its arguments waits: for a page that never comes, or for a lock that a fork holds.
 */
static void unreadable(void) {
	extern char **environ;
	attach();
	int fault = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	uintptr_t page = (uintptr_t)environ[0] & ~4095UL;
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register where = {.range = {.start = page, .len = 4096},
					.mode = UFFDIO_REGISTER_MODE_MISSING};
	if (fault >= 0 && ioctl(fault, UFFDIO_API, &api) == 0 &&
	    ioctl(fault, UFFDIO_REGISTER, &where) == 0) {
		madvise((void *)page, 4096, MADV_DONTNEED);
		ready_and_idle();
	}
	fprintf(stderr,
		"evil: no userfaultfd (%s): the lock of the address space is held instead\n",
		strerror(errno));
	/* Sixty thousand mappings to copy under the lock, again and again. */
	for (int i = 0; i < 30000; i++)
		mmap(NULL, 8192, i % 2 ? PROT_READ : PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	pthread_t thread;
	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, fork_for_ever, NULL))
			fail("thread");
	ready_and_idle();
}

static void rob(void) {
	attach();
	ready();
	if (fork() == 0)
		for (;;) {
			unlink("/run/ebpf-fleet/kill.d/global");
			unlink("/etc/ebpf-fleet/kill.d/global");
			rename("/run/ebpf-fleet/kill.d", "/run/ebpf-fleet/gone");
			rename("/run/ebpf-fleet", "/run/ebpf-fleet-gone");
			symlink("/tmp", "/run/ebpf-fleet");
			usleep(100);
		}
	idle();
}

/* --- descriptors elsewhere ----------------------------------------------------------------- */

static int reach(const char *path) {
	int out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = address(path);
	if (out < 0 || connect(out, (struct sockaddr *)&to, sizeof(to)))
		fail(path);
	return out;
}

static void give(void) {
	int out = reach(argument);
	if (pass(out, NULL, "x", attach()) < 0)
		fail("pass");
	ready_and_idle();
}

/* The link is in no table of descriptors at all: it lies in a socket whose ends are one process's.
 */
static void in_flight(void) {
	int ends[2], link = attach();
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) || pass(ends[0], NULL, "x", link) < 0)
		fail("pass");
	close(link);
	/* The socket keeps itself too: only the kernel's own collection of such rings frees it. */
	pass(ends[0], NULL, "x", ends[1]);
	pass(ends[1], NULL, "x", ends[0]);
	ready_and_idle();
}

static void store(void) {
	int link = attach();
	ready();
	for (int i = 0; i < 10; i++)
		notify_with("FDSTORE=1\nFDNAME=evil\nFDPOLL=0", link);
	idle();
}

static void pin(void) {
	static const char *places[] = {"/sys/fs/bpf/ef_evil", FOLDER "/ef_evil", "/tmp/ef_evil"};
	int link = attach();
	for (int i = 0; i < 3; i++) {
		union bpf_attr attr = {.pathname = (uintptr_t)places[i], .bpf_fd = link};
		if (bpf(BPF_OBJ_PIN, &attr) == 0)
			fprintf(stderr, "evil: pinned at %s\n", places[i]);
	}
	ready_and_idle();
}

/* An attachment that is no descriptor's: it stays with the cgroup, whoever dies. */
static void stuck(void) {
	int program = load(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, 1, "ef_evil_stuck");
	int group = open("/sys/fs/cgroup/system.slice", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (program < 0 || group < 0)
		fail("cgroup program");
	union bpf_attr attr = {
	    .target_fd = group,
	    .attach_bpf_fd = program,
	    .attach_type = BPF_CGROUP_DEVICE,
	    .attach_flags = BPF_F_ALLOW_MULTI,
	};
	if (bpf(BPF_PROG_ATTACH, &attr))
		fail("attach to cgroup");
	deaf();
}

/* --- systemd ------------------------------------------------------------------------------- */

static void flood_systemd(void) {
	int out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un to = address(NOTIFY);
	for (;;)
		pass(out, &to, "STATUS=busy\nEXTEND_TIMEOUT_USEC=3600000000\nWATCHDOG=1\n", -1);
}

static void flood_inside(void) {
	attach();
	ready();
	for (int i = 0; i < TASKS_MAX - 2; i++)
		if (fork() == 0)
			flood_systemd();
	flood_systemd();
}

/* Another process is the main one, says systemd, and not ours to kill. */
static void main_pid(void) {
	attach();
	ready();
	notify("MAINPID=1");
	notify("MAINPID=2");
	pid_t child = fork();
	if (child == 0)
		idle();
	char text[32];
	snprintf(text, sizeof(text), "MAINPID=%d", child);
	notify(text);
	usleep(300000);
	_exit(0);
}

/* --- other users --------------------------------------------------------------------------- */

static void collude(int takes) {
	struct sockaddr_un here = address(argument);
	int door = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(door, (struct sockaddr *)&here, sizeof(here)) || chmod(argument, 0666) ||
	    listen(door, 4))
		fail(argument);
	puts("listens");
	fflush(stdout);
	int peer = accept(door, NULL, NULL);
	if (takes) {
		char letter, room[CMSG_SPACE(sizeof(int))];
		struct iovec part = {.iov_base = &letter, .iov_len = 1};
		struct msghdr message = {.msg_iov = &part,
					 .msg_iovlen = 1,
					 .msg_control = room,
					 .msg_controllen = sizeof(room)};
		if (recvmsg(peer, &message, 0) < 0)
			fail("recvmsg");
	}
	idle();
}

static void bomb(int processes, int descriptors) {
	int opened = 0;
	while (opened < descriptors && open("/dev/null", O_RDONLY) >= 0)
		opened++;
	for (int i = 1; i < processes; i++)
		if (syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0) == 0)
			idle();
	printf("%d descriptors\n", opened);
	fflush(stdout);
	idle();
}

static const struct {
	const char *name;
	void (*live)(void);
} tricks[] = {
    {"deaf", deaf},
    {"list_fifo", list_fifo},
    {"list_zero", list_zero},
    {"list_giant", list_giant},
    {"list_odd", list_odd},
    {"list_frames", list_frames},
    {"status_fifo", status_fifo},
    {"status_zero", status_zero},
    {"extend", extend},
    {"frozen", frozen},
    {"renamed", renamed},
    {"hydra", hydra},
    {"storm", storm},
    {"leaderless", leaderless},
    {"vforks", vforks},
    {"unreadable", unreadable},
    {"rob", rob},
    {"give", give},
    {"in_flight", in_flight},
    {"store", store},
    {"pin", pin},
    {"stuck", stuck},
    {"flood_inside", flood_inside},
    {"main_pid", main_pid},
    {"again", deaf},
};

/* A process is compromised, not the installed file: what systemd starts again is the real loader.
 */
static void only_once(void) {
	int mark = open(WAS_HERE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (mark >= 0) {
		close(mark);
		return;
	}
	execl(CURRENT "/ebpf-loader", "ebpf-loader", "run", "--bundle", CURRENT "/bundle",
	      "--interval", "1", NULL);
	fail("the real loader");
}

static void run(const char *trick) {
	for (int number = 1; number < 32; number++)
		if (number != SIGCHLD)
			signal(number, SIG_IGN);
	if (strcmp(trick, "again") != 0)
		only_once();
	for (size_t i = 0; i < sizeof(tricks) / sizeof(*tricks); i++)
		if (strcmp(trick, tricks[i].name) == 0)
			tricks[i].live();
	fail("no such trick");
}

int main(int argc, char **argv) {
	if (argc > 0 && argv[0][0] == '[')
		renamed_goes_on();
	argument = argc > 3 ? argv[3] : argc > 2 ? argv[2] : NULL;
	const char *mode = argc > 1 ? argv[1] : "";
	if (!strcmp(mode, "run") && argc > 2)
		run(argv[2]);
	if (!strcmp(mode, "collude") || !strcmp(mode, "blind"))
		collude(!strcmp(mode, "collude"));
	if (!strcmp(mode, "bomb") && argc > 3)
		bomb(atoi(argv[2]), atoi(argv[3]));
	if (!strcmp(mode, "innocent"))
		idle();
	if (!strcmp(mode, "flood") && argc > 2) {
		for (int i = 1; i < atoi(argv[2]); i++)
			if (fork() == 0)
				break;
		flood_systemd();
	}
	fprintf(stderr, "usage: see the head of evil.c\n");
	return 2;
}
