/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_KERNEL_H
#define EF_KERNEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"

#define EF_BUILD_ID_HEX 41
#define EF_FD_PATH 32
#define EF_KERNEL_BTF "/sys/kernel/btf/vmlinux"

/* Where the kernel's types come from. */
enum ef_kernel_btf { EF_BTF_MISSING, EF_BTF_VMLINUX, EF_BTF_BUNDLED };

/* The kernel that we run on and the families that a kill order can name. */
struct ef_kernel {
	char release[65];
	char machine[65];
	char family[24];	/* MAJOR.MINOR */
	char distro_family[64]; /* ID-MAJOR.MINOR; "" without os-release */
	unsigned major, minor;
	char build_id[EF_BUILD_ID_HEX]; /* lower-case hex; "" when it cannot be read */
	enum ef_kernel_btf btf;
	struct ef_reason own_btf_why; /* but EF_BTF_VMLINUX: why not the kernel's own */
	struct ef_reason btf_why;     /* EF_BTF_MISSING: that, and why not the bundle's */
	char btf_file[256];	      /* EF_BTF_BUNDLED: its path in the bundle */
	char btf_path[EF_FD_PATH];    /* EF_BTF_BUNDLED: where its verified bytes are opened */
	int btf_fd;		      /* what keeps btf_path there; -1: none */
};

/*
 * What the kernel says of itself; btf is then EF_BTF_VMLINUX or EF_BTF_MISSING,
 * and ef_btf_choose() may better that. Undone by ef_kernel_clear().
 */
void ef_kernel_read(struct ef_kernel *kernel);
void ef_kernel_clear(struct ef_kernel *kernel);

/* From here on objects relocate against that file of the bundle; fd becomes the kernel's. */
void ef_kernel_use_btf(struct ef_kernel *kernel, int fd, const char *file);

/* Where an open file can be opened again by a path. */
void ef_kernel_fd_path(int fd, char path[EF_FD_PATH]);

const char *ef_kernel_release(const struct ef_kernel *kernel);
const char *ef_kernel_machine(const struct ef_kernel *kernel);
const char *ef_kernel_build_id(const struct ef_kernel *kernel); /* "" when it cannot be read */
const char *ef_kernel_family(const struct ef_kernel *kernel);

/* Can a kill order mean this kernel by that name: MAJOR.MINOR or ID-MAJOR.MINOR? */
bool ef_kernel_is_of(const struct ef_kernel *kernel, const char *family);

bool ef_kernel_lacks_btf(const struct ef_kernel *kernel);

/* The bundle's file that objects relocate against, and where it is opened; NULL: without one. */
const char *ef_kernel_bundled_btf(const struct ef_kernel *kernel);
const char *ef_kernel_bundled_btf_path(const struct ef_kernel *kernel);

/* "vmlinux", "bundled" or "missing". */
const char *ef_kernel_btf_name(const struct ef_kernel *kernel);

/*
 * The GNU build id among ELF notes, the content of /sys/kernel/notes. False,
 * and hex is "", when there is none of 20 bytes or a note runs over the end.
 */
bool ef_build_id_parse(const void *notes, size_t size, char hex[EF_BUILD_ID_HEX]);

/* Does lockdown forbid BPF to read the kernel? False too where nothing tells. */
bool ef_kernel_is_confidential(void);

/* status.json's "kernel": a new reference. */
json_t *ef_kernel_json(const struct ef_kernel *kernel);

/* The boot's id, "" when it cannot be read. size >= 37. */
void ef_boot_id(char *id, size_t size);

#endif
