/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Make load when told to, a line on stdin each; answers "done COUNT NANOSECONDS":
 *   calls RATE MS     getppid() at so many a second, 0: as fast as it goes
 *   execs COUNT PATH  start that program so many times, one after the other
 *   switches MS       two processes on this CPU that wake each other
 * Its pid is known before anything that traces it is compiled.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 1000000 /* calls are spread over slices of this length */

static int64_t now_ns(void) {
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void sleep_until(int64_t at_ns) {
	struct timespec at = {at_ns / 1000000000, at_ns % 1000000000};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* As many calls as are due by now, then sleep a slice: a late slice is made up for. */
static int64_t paced_calls(int64_t rate, int64_t start, int64_t end) {
	int64_t made = 0, total = (end - start) * rate / 1000000000;

	for (int64_t slice = 1; made < total && now_ns() < end + SLICE_NS; slice++) {
		int64_t due = (now_ns() - start) * rate / 1000000000;

		for (due = due < total ? due : total; made < due; made++)
			syscall(SYS_getppid);
		sleep_until(start + slice * SLICE_NS);
	}
	return made;
}

static int64_t all_calls(int64_t end) {
	int64_t made = 0;

	do
		for (int i = 0; i < 1000; i++, made++)
			syscall(SYS_getppid);
	while (now_ns() < end);
	return made;
}

static int64_t calls(int64_t rate, int64_t ms) {
	int64_t start = now_ns(), end = start + ms * 1000000;

	return rate ? paced_calls(rate, start, end) : all_calls(end);
}

static int64_t execs(int64_t count, char *path) {
	char *argv[] = {path, NULL}, *envp[] = {NULL};
	int64_t made = 0;
	pid_t child;

	for (; made < count; made++) {
		if (posix_spawn(&child, argv[0], NULL, NULL, argv, envp))
			break;
		waitpid(child, NULL, 0);
	}
	return made;
}

static void echo(int from, int to) {
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1)
		;
	_exit(0);
}

static int64_t switches(int64_t ms) {
	int there[2], back[2];
	int64_t made = 0, end = now_ns() + ms * 1000000;
	char byte = 0;
	pid_t child;

	if (pipe(there) || pipe(back))
		return -1;
	child = fork();
	if (!child) {
		close(there[1]);
		echo(there[0], back[1]);
	}
	while (child > 0 && now_ns() < end && write(there[1], &byte, 1) == 1 &&
	       read(back[0], &byte, 1) == 1)
		made += 2;
	close(there[0]);
	close(there[1]);
	close(back[0]);
	close(back[1]);
	if (child > 0)
		waitpid(child, NULL, 0);
	return made;
}

static int64_t obey(const char *line) {
	long long first, second;
	char path[256];

	if (sscanf(line, "calls %lld %lld", &first, &second) == 2)
		return calls(first, second);
	if (sscanf(line, "execs %lld %255s", &first, path) == 2)
		return execs(first, path);
	if (sscanf(line, "switches %lld", &first) == 1)
		return switches(first);
	fprintf(stderr, "generator: not understood: %s", line);
	return -1;
}

int main(void) {
	char line[320];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		int64_t start = now_ns(), made = obey(line);

		if (made < 0)
			return 1;
		printf("done %lld %lld\n", (long long)made, (long long)(now_ns() - start));
	}
	return 0;
}
