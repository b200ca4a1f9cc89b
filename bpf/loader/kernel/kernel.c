/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/kernel.h"

#include <bpf/btf.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define BYTE_ORDER_MARK "\xef\xbb\xbf"
#define BLANKS " \t\r\n\v\f"

/* Reads on to the end of a line that did not fit. */
static void skip_line(FILE *file, const char *line) {
	int byte;

	if (strchr(line, '\n'))
		return;
	while ((byte = getc(file)) != EOF && byte != '\n')
		;
}

/* The value behind "ID=" into id; empty where it cannot be a part of a name. */
static void take_id(char *value, char *id, size_t size) {
	size_t length = strlen(value);

	while (length && strchr(BLANKS, value[length - 1]))
		value[--length] = 0;
	if (length >= 2 && *value == value[length - 1] && (*value == '"' || *value == '\'')) {
		value[--length] = 0;
		value++;
		length--;
	}
	*id = 0;
	/* It becomes part of names and of JSON. */
	if (length < size &&
	    !value[strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				 "0123456789._-")])
		memcpy(id, value, length + 1);
}

/* ID of an os-release file. False when there is none. The kill script and hostfiles.py read it by
 * the same rules: the last line counts, with a final newline or without, blanks and a carriage
 * return behind the value do not, quotes must be a pair, and a byte order mark may begin the file.
 */
static bool os_release_id(const char *path, char *id, size_t size) {
	_cleanup_fclose_ FILE *file = fopen(path, "re");
	char line[256];
	bool first = true;

	*id = 0;
	while (file && fgets(line, sizeof(line), file)) {
		size_t mark = strlen(BYTE_ORDER_MARK);
		char *start = line;

		skip_line(file, line);
		if (first && !strncmp(line, BYTE_ORDER_MARK, mark))
			start += mark;
		first = false;
		if (!strncmp(start, "ID=", 3))
			take_id(start + 3, id, size);
	}
	return *id;
}

static bool find_distro(char *id, size_t size) {
	return os_release_id("/etc/os-release", id, size) ||
	       os_release_id("/usr/lib/os-release", id, size);
}

/* The size of one of a note's two fields with its padding. */
static size_t padded(size_t size) {
	return (size + 3) / 4 * 4;
}

bool ef_build_id_parse(const void *notes, size_t size, char hex[EF_BUILD_ID_HEX]) {
	const uint8_t *at = notes;
	Elf64_Nhdr note; /* equal to Elf32_Nhdr */

	hex[0] = 0;
	while (size >= sizeof(note)) {
		size_t name, whole;

		memcpy(&note, at, sizeof(note));
		name = padded(note.n_namesz);
		whole = sizeof(note) + name + padded(note.n_descsz);
		if (whole > size)
			return false;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && note.n_descsz == 20 &&
		    !memcmp(at + sizeof(note), ELF_NOTE_GNU, 4)) {
			for (size_t i = 0; i < 20; i++)
				snprintf(hex + 2 * i, 3, "%02x", at[sizeof(note) + name + i]);
			return true;
		}
		at += whole;
		size -= whole;
	}
	return false;
}

static void read_build_id(char hex[EF_BUILD_ID_HEX]) {
	_cleanup_fclose_ FILE *file = fopen("/sys/kernel/notes", "re");
	uint8_t notes[8192];

	hex[0] = 0;
	if (file)
		ef_build_id_parse(notes, fread(notes, 1, sizeof(notes), file), hex);
}

bool ef_kernel_is_confidential(void) {
	_cleanup_fclose_ FILE *file = fopen("/sys/kernel/security/lockdown", "re");
	char line[128];

	return file && fgets(line, sizeof(line), file) && strstr(line, "[confidentiality]");
}

/* Can libbpf read the kernel's types to their end? Else every load would fail for it. */
static bool has_usable_btf(struct ef_reason *why) {
	struct btf *btf;

	if (access(EF_KERNEL_BTF, R_OK)) {
		ef_reason_set(why, "EF_NO_BTF",
			      "the kernel's types are not at " EF_KERNEL_BTF
			      "; it needs a kernel built with CONFIG_DEBUG_INFO_BTF");
		return false;
	}
	btf = btf__parse_raw(EF_KERNEL_BTF);
	if (btf) {
		btf__free(btf);
		return true;
	}
	ef_reason_set(why, "EF_BTF_UNREADABLE",
		      EF_KERNEL_BTF " cannot be read as BTF: %s (%d); it is damaged, or newer than "
				    "this loader: update the release",
		      strerror(errno), errno);
	return false;
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
	read_build_id(kernel->build_id);
	kernel->btf_fd = -1;
	kernel->btf = has_usable_btf(&kernel->own_btf_why) ? EF_BTF_VMLINUX : EF_BTF_MISSING;
	kernel->btf_why = kernel->own_btf_why;
}

void ef_kernel_clear(struct ef_kernel *kernel) {
	if (kernel->btf_fd >= 0)
		close(kernel->btf_fd);
	kernel->btf_fd = -1;
}

void ef_kernel_fd_path(int fd, char path[EF_FD_PATH]) {
	snprintf(path, EF_FD_PATH, "/proc/self/fd/%d", fd);
}

void ef_kernel_use_btf(struct ef_kernel *kernel, int fd, const char *file) {
	snprintf(kernel->btf_file, sizeof(kernel->btf_file), "%s", file);
	ef_kernel_fd_path(fd, kernel->btf_path);
	kernel->btf_fd = fd;
	kernel->btf = EF_BTF_BUNDLED;
}

const char *ef_kernel_release(const struct ef_kernel *kernel) {
	return kernel->release;
}

const char *ef_kernel_machine(const struct ef_kernel *kernel) {
	return kernel->machine;
}

const char *ef_kernel_build_id(const struct ef_kernel *kernel) {
	return kernel->build_id;
}

const char *ef_kernel_family(const struct ef_kernel *kernel) {
	return kernel->family;
}

bool ef_kernel_is_of(const struct ef_kernel *kernel, const char *family) {
	return *family &&
	       (!strcmp(family, kernel->family) || !strcmp(family, kernel->distro_family));
}

bool ef_kernel_lacks_btf(const struct ef_kernel *kernel) {
	return kernel->btf == EF_BTF_MISSING;
}

const char *ef_kernel_bundled_btf(const struct ef_kernel *kernel) {
	return kernel->btf == EF_BTF_BUNDLED ? kernel->btf_file : NULL;
}

const char *ef_kernel_bundled_btf_path(const struct ef_kernel *kernel) {
	return kernel->btf == EF_BTF_BUNDLED ? kernel->btf_path : NULL;
}

const char *ef_kernel_btf_name(const struct ef_kernel *kernel) {
	static const char *const names[] = {"missing", "vmlinux", "bundled"};

	return names[kernel->btf];
}

json_t *ef_kernel_json(const struct ef_kernel *kernel) {
	return json_pack("{s:s, s:s, s:s?, s:s, s:s}", "release", kernel->release, "family",
			 kernel->family, "distro_family",
			 kernel->distro_family[0] ? kernel->distro_family : NULL, "machine",
			 kernel->machine, "btf", ef_kernel_btf_name(kernel));
}

void ef_boot_id(char *id, size_t size) {
	_cleanup_fclose_ FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	id[0] = 0;
	if (file && fgets(id, (int)size, file))
		id[strcspn(id, "\n")] = 0;
}
