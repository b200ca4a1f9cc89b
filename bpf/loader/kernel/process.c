/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/process.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

int64_t ef_self_cpu_ns(void) {
	return ef_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

int64_t ef_self_rss_bytes(void) {
	_cleanup_fclose_ FILE *file = fopen("/proc/self/statm", "re");
	long pages;

	if (!file || fscanf(file, "%*d %ld", &pages) != 1)
		return -1;
	return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

int64_t ef_process_start_ns(int pid) {
	_cleanup_fclose_ FILE *file = NULL;
	char path[64], text[1024];
	const char *after_name;
	uint64_t ticks;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file || !fgets(text, sizeof(text), file))
		return -1;
	after_name = strrchr(text, ')'); /* the name may hold anything */
	if (!after_name || sscanf(after_name,
				  ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u "
				  "%*u %*d %*d %*d %*d %*d %*d %" SCNu64,
				  &ticks) != 1)
		return -1;
	return (int64_t)(ticks * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK)));
}
