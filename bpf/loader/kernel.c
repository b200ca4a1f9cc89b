/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

/* The value of ID= in an os-release file, without quotes. False when there is none. */
static bool os_release_id(const char *path, char *id, size_t size) {
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	char line[256];

	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "ID=", 3))
			continue;
		char *value = line + 3;
		value[strcspn(value, "\n")] = 0;
		value += strspn(value, "\"'");
		value[strcspn(value, "\"'")] = 0;
		snprintf(id, size, "%s", value);
		/* It becomes part of names and of JSON. */
		return *id && !id[strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					     "0123456789._-")];
	}
	return false;
}

static bool find_distro(char *id, size_t size) {
	return os_release_id("/etc/os-release", id, size) ||
	       os_release_id("/usr/lib/os-release", id, size);
}

void ef_kernel_read(struct ef_kernel *kernel) {
	struct utsname uts;
	char distro[32];

	memset(kernel, 0, sizeof(*kernel));
	uname(&uts); /* fails only for a bad pointer */
	snprintf(kernel->release, sizeof(kernel->release), "%s", uts.release);
	snprintf(kernel->machine, sizeof(kernel->machine), "%s", uts.machine);
	if (sscanf(uts.release, "%u.%u", &kernel->major, &kernel->minor) == 2)
		snprintf(kernel->family, sizeof(kernel->family), "%u.%u", kernel->major,
			 kernel->minor);
	if (kernel->family[0] && find_distro(distro, sizeof(distro)))
		snprintf(kernel->distro_family, sizeof(kernel->distro_family), "%s-%s", distro,
			 kernel->family);
	kernel->btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
}

json_t *ef_kernel_json(const struct ef_kernel *kernel) {
	return json_pack("{s:s, s:s, s:s?, s:s, s:s}", "release", kernel->release, "family",
			 kernel->family, "distro_family",
			 kernel->distro_family[0] ? kernel->distro_family : NULL, "machine",
			 kernel->machine, "btf", kernel->btf ? "vmlinux" : "missing");
}

int64_t ef_clock_ns(int clock) {
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void ef_boot_id(char *id, size_t size) {
	_cleanup_fclose_ FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	id[0] = 0;
	if (file && fgets(id, (int)size, file))
		id[strcspn(id, "\n")] = 0;
}
