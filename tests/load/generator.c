/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Calls getppid at a rate: the offered load of the benchmarks and the soak.
 * A program that filters by this process's number and by that system call
 * meets exactly the events that are reported here, whatever else the host does.
 *
 *   generator CPU       CPU -1: wherever the scheduler likes
 *
 * Says "ready PID", then reads lines "RATE MILLISECONDS" (RATE 0: as fast as it
 * goes) and answers each with "offered COUNT NANOSECONDS". Ends with its input.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ULL
#define BURST 64	/* calls between two looks at the clock */
#define PAUSE_NS 200000 /* how long it sleeps when it is ahead */

static uint64_t now_ns(void) {
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

static void call(uint64_t times) {
	while (times--)
		syscall(SYS_getppid);
}

/* Calls that are due after so many ns; without a rate there is always another burst. */
static uint64_t due_after(uint64_t ns, uint64_t rate, uint64_t done) {
	if (!rate)
		return done + BURST;
	return ns / NS * rate + ns % NS * rate / NS;
}

static uint64_t offer(uint64_t rate, uint64_t length_ns, uint64_t *took_ns) {
	const struct timespec pause = {.tv_nsec = PAUSE_NS};
	uint64_t start = now_ns(), passed = 0, done = 0, due;

	while ((passed = now_ns() - start) < length_ns) {
		due = due_after(passed, rate, done);
		if (due <= done) {
			nanosleep(&pause, NULL);
			continue;
		}
		due = due - done > BURST ? done + BURST : due;
		call(due - done);
		done = due;
	}
	*took_ns = passed;
	return done;
}

static int pin(int cpu) {
	cpu_set_t set;

	if (cpu < 0)
		return 0;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

int main(int argc, char **argv) {
	uint64_t rate, ms, took_ns, offered;

	if (argc != 2 || pin(atoi(argv[1]))) {
		fprintf(stderr, "usage: generator CPU (of this machine, or -1): %s\n",
			strerror(errno));
		return 2;
	}
	printf("ready %d\n", getpid());
	fflush(stdout);
	while (scanf("%" SCNu64 " %" SCNu64, &rate, &ms) == 2) {
		offered = offer(rate, ms * 1000000, &took_ns);
		printf("offered %" PRIu64 " %" PRIu64 "\n", offered, took_ns);
		fflush(stdout);
	}
	return 0;
}
