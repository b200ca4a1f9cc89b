/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_KERNEL_H
#define EF_KERNEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The kernel that we run on and the families that a kill order can name. */
struct ef_kernel {
	char release[65];
	char machine[65];
	char family[24];	/* MAJOR.MINOR */
	char distro_family[64]; /* ID-MAJOR.MINOR; "" without os-release */
	bool btf;		/* /sys/kernel/btf/vmlinux can be read */
	unsigned major, minor;
};

void ef_kernel_read(struct ef_kernel *kernel);

/* status.json's "kernel": a new reference. */
json_t *ef_kernel_json(const struct ef_kernel *kernel);

/* Nanoseconds of a clock (CLOCK_...). */
int64_t ef_clock_ns(int clock);

/* The boot's id, "" when it cannot be read. size >= 37. */
void ef_boot_id(char *id, size_t size);

#endif
