// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * A load of executions: "execs MILLISECONDS PROCESSES INTERVAL_US COUNT UID [UID...]".
 * So many processes each start this very file again and again as the users named,
 * in turn, until their time or count is over (0: no such end), with a pause of
 * INTERVAL_US between two (0: none). Prints "executed N": how many executions
 * succeeded. Run as root. With "--owner UID SUBUIDS" before that the users are of a
 * user namespace that this user owns: 0 is he, N is SUBUIDS + N outside. Under another name and
 * without arguments it only ends: that is what is executed.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_UIDS 4096

struct load {
	long milliseconds, processes, interval_us, count;
	int n_uids;
	uid_t uids[MOST_UIDS];
};

static long now_ms(void) {
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1: it was executed. The child shares our memory until then: system calls only. */
static int execute(const char *path, uid_t uid) {
	char *const argv[] = {(char *)path, NULL}, *const envp[] = {NULL};
	int status;
	pid_t child = vfork();

	if (!child) {
		if (syscall(SYS_setresgid, uid, uid, uid) || syscall(SYS_setresuid, uid, uid, uid))
			_exit(2);
		execve(path, argv, envp);
		_exit(3);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 0;
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static long work(const struct load *load, const char *path, long worker) {
	long end = now_ms() + load->milliseconds, done = 0;

	for (long i = 0; !load->count || i < load->count; i++) {
		if (load->milliseconds && now_ms() >= end)
			break;
		done += execute(path, load->uids[(size_t)(worker + i) % (size_t)load->n_uids]);
		if (load->interval_us)
			usleep((useconds_t)load->interval_us);
	}
	return done;
}

static int write_file(const char *path, const char *text) {
	FILE *file = fopen(path, "w");

	return !file || fputs(text, file) < 0 || fclose(file) ? -1 : 0;
}

/*
 * What newuidmap does for a user: a child that stays root outside writes the maps of
 * the namespace that the user made.
 */
static int enter_namespace(uid_t owner, uid_t subuids) {
	char path[64], maps[128];
	int made[2];
	pid_t helper, self = getpid();
	char byte;
	int status;

	if (pipe(made))
		return -1;
	helper = fork();
	if (!helper) {
		snprintf(maps, sizeof(maps), "0 %u 1\n1 %u 4000\n", owner, subuids + 1);
		if (read(made[0], &byte, 1) != 1)
			_exit(1);
		snprintf(path, sizeof(path), "/proc/%d/uid_map", self);
		if (write_file(path, maps))
			_exit(2);
		snprintf(path, sizeof(path), "/proc/%d/gid_map", self);
		_exit(write_file(path, maps) ? 3 : 0);
	}
	if (setresgid(owner, owner, owner) || setresuid(owner, owner, owner) ||
	    prctl(PR_SET_DUMPABLE, 1) || unshare(CLONE_NEWUSER) || write(made[1], "", 1) != 1)
		return -1;
	if (waitpid(helper, &status, 0) != helper || status)
		return -1;
	return setresgid(0, 0, 0) || setresuid(0, 0, 0) ? -1 : 0;
}

int main(int argc, char **argv) {
	struct load load;
	long *done, sum = 0;

	if (argc > 4 && !strcmp(argv[1], "--owner")) {
		if (enter_namespace((uid_t)atol(argv[2]), (uid_t)atol(argv[3]))) {
			perror("user namespace");
			return 1;
		}
		argv[3] = argv[0];
		argv += 3;
		argc -= 3;
	}

	if (argc == 1)
		return 0;
	if (argc < 6 || argc - 5 > MOST_UIDS)
		return 2;
	load = (struct load){atol(argv[1]), atol(argv[2]), atol(argv[3]),
			     atol(argv[4]), argc - 5,	   {0}};
	for (int i = 0; i < load.n_uids; i++)
		load.uids[i] = (uid_t)atol(argv[5 + i]);
	done = mmap(NULL, (size_t)load.processes * sizeof(*done), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (done == MAP_FAILED)
		return 1;
	for (long i = 0; i < load.processes; i++)
		if (!fork()) {
			done[i] = work(&load, argv[0], i);
			_exit(0);
		}
	while (wait(NULL) > 0)
		;
	for (long i = 0; i < load.processes; i++)
		sum += done[i];
	printf("executed %ld\n", sum);
	return 0;
}
