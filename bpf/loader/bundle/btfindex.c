/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bundle/btfindex.h"

#include <bpf/btf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/json.h"
#include "base/paths.h"
#include "base/util.h"
#include "bundle/manifest.h"

#define SCHEMA "ebpf.fleet/btf-index/v1"
#define REMEDY "build the release again"

/* One entry of the index; the strings are the document's. */
struct entry {
	const char *machine;
	const char *release;
	const char *build_id; /* 40 hex digits; NULL: it holds for every build of the release */
	const char *path;
};

static int malformed(struct ef_reason *why, const char *field, const char *expected) {
	ef_reason_set(why, "EF_NO_BTF", EF_BTF_INDEX ": field '%s': %s; " REMEDY, field, expected);
	return -1;
}

/* A path of the manifest in the folder of the entry's machine. */
static bool is_btf_of(const struct ef_bundle *bundle, const struct entry *entry) {
	char folder[EF_PATH_MAX];
	int length = snprintf(folder, sizeof(folder), "btf/%s/", entry->machine);

	return length < (int)sizeof(folder) && !strncmp(entry->path, folder, (size_t)length) &&
	       ef_manifest_find(bundle, entry->path);
}

static int read_entry(const struct ef_bundle *bundle, const json_t *doc, struct entry *entry,
		      struct ef_reason *why) {
	const json_t *build_id = json_object_get(doc, "build_id");

	entry->machine = json_string_value(json_object_get(doc, "machine"));
	entry->release = json_string_value(json_object_get(doc, "release"));
	entry->path = json_string_value(json_object_get(doc, "file"));
	entry->build_id = json_string_value(build_id);
	if (json_object_size(doc) != 4)
		return malformed(why, "entries", "each has machine, release, build_id and file");
	if (!entry->machine || !*entry->machine)
		return malformed(why, "entries.machine", "must be uname -m");
	if (!entry->release || !*entry->release)
		return malformed(why, "entries.release", "must be uname -r");
	if (!json_is_null(build_id) &&
	    (!entry->build_id || strlen(entry->build_id) != EF_BUILD_ID_HEX - 1 ||
	     entry->build_id[strspn(entry->build_id, "0123456789abcdef")]))
		return malformed(why, "entries.build_id",
				 "must be 40 lower-case hex digits or null");
	if (!entry->path || !is_btf_of(bundle, entry))
		return malformed(why, "entries.file",
				 "must be a file of the manifest below btf/MACHINE/");
	return 0;
}

/* How well an entry fits this kernel; the higher the better. */
enum fit { OTHER_KERNEL, OTHER_BUILD, SAME_RELEASE, SAME_BUILD };

static enum fit judge(const struct entry *entry, const struct ef_kernel *kernel) {
	if (strcmp(entry->machine, ef_kernel_machine(kernel)))
		return OTHER_KERNEL;
	if (entry->build_id && !strcmp(entry->build_id, ef_kernel_build_id(kernel)))
		return SAME_BUILD;
	if (strcmp(entry->release, ef_kernel_release(kernel)))
		return OTHER_KERNEL;
	return entry->build_id && ef_kernel_build_id(kernel)[0] ? OTHER_BUILD : SAME_RELEASE;
}

static int no_entry(enum fit best, const struct ef_kernel *kernel, struct ef_reason *why) {
	if (best == OTHER_BUILD)
		ef_reason_set(
		    why, "EF_BTF_MISMATCH",
		    "the bundle's BTF of kernel %s is of another build than this one (build "
		    "id %s), whose structures may differ; add this kernel's BTF and build "
		    "the release again",
		    ef_kernel_release(kernel), ef_kernel_build_id(kernel));
	else
		ef_reason_set(
		    why, ef_reason_code(&kernel->own_btf_why),
		    "the kernel's own types cannot be had (%s), and the bundle has no BTF of "
		    "kernel %s (build id %s); add it and build the release again",
		    ef_reason_code(&kernel->own_btf_why), ef_kernel_release(kernel),
		    ef_kernel_build_id(kernel)[0] ? ef_kernel_build_id(kernel) : "unknown");
	return -1;
}

static int in_doubt(const struct ef_kernel *kernel, struct ef_reason *why) {
	ef_reason_set(
	    why, "EF_BTF_MISMATCH",
	    "the bundle has several BTF files of kernel %s, and nothing tells which is of "
	    "this build (build id %s); give each entry of " EF_BTF_INDEX " its build id",
	    ef_kernel_release(kernel),
	    ef_kernel_build_id(kernel)[0] ? ef_kernel_build_id(kernel) : "unknown");
	return -1;
}

/* The entry that belongs to this kernel. Two that could be it count as no entry. */
static int find_entry(const struct ef_bundle *bundle, const json_t *list,
		      const struct ef_kernel *kernel, struct entry *found, struct ef_reason *why) {
	enum fit best = OTHER_KERNEL;
	bool doubt = false;
	struct entry entry;
	json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		enum fit fit;

		if (read_entry(bundle, item, &entry, why))
			return -1;
		fit = judge(&entry, kernel);
		if (fit == SAME_RELEASE && best == SAME_RELEASE)
			doubt |= strcmp(found->path, entry.path) != 0;
		if (fit <= best)
			continue;
		best = fit;
		*found = entry;
	}
	if (best == SAME_RELEASE && doubt)
		return in_doubt(kernel, why);
	return best >= SAME_RELEASE ? 0 : no_entry(best, kernel, why);
}

static json_t *read_index(const struct ef_bundle *bundle, struct ef_reason *why) {
	const struct ef_file *file = ef_manifest_find(bundle, EF_BTF_INDEX);
	const char *schema;
	char error[256];
	json_t *doc;

	if (!file || !file->data)
		return NULL;
	doc = ef_json_parse(file->data, file->size, error, sizeof(error));
	if (!doc) {
		ef_reason_set(why, "EF_NO_BTF", EF_BTF_INDEX ": %s; " REMEDY, error);
		return NULL;
	}
	schema = json_string_value(json_object_get(doc, "schema"));
	if (schema && !strcmp(schema, SCHEMA) && json_is_array(json_object_get(doc, "entries")))
		return doc;
	malformed(why, "schema, entries", "must be " SCHEMA " and a list");
	json_decref(doc);
	return NULL;
}

/* libbpf takes a path only: a copy in memory that no one can change has one. */
static int seal_copy(const struct ef_file *file) {
	_cleanup_close_ int fd = memfd_create("ef_btf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	size_t done = 0;

	if (fd < 0)
		return -errno;
	while (done < file->size) {
		ssize_t n = write(fd, file->data + done, file->size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int check_btf(int fd) {
	char path[EF_FD_PATH];
	struct btf *btf;

	ef_kernel_fd_path(fd, path);
	btf = btf__parse_raw(path);

	if (!btf)
		return -errno;
	btf__free(btf);
	return 0;
}

/* From here on objects relocate against that file. */
static void use_file(const struct ef_file *file, struct ef_kernel *kernel) {
	_cleanup_close_ int fd = seal_copy(file);
	int err = fd < 0 ? fd : check_btf(fd);

	if (err) {
		ef_reason_set(&kernel->btf_why, "EF_NO_BTF",
			      "%s of the bundle cannot be used as BTF: %s (%d); " REMEDY,
			      file->path, strerror(-err), -err);
		return;
	}
	ef_kernel_use_btf(kernel, TAKE_FD(fd), file->path);
}

void ef_btf_choose(struct ef_bundle *bundle, struct ef_kernel *kernel) {
	_cleanup_json_ json_t *index = NULL;
	struct entry entry = {0};

	if (ef_kernel_lacks_btf(kernel))
		index = read_index(bundle, &kernel->btf_why);
	if (index && !find_entry(bundle, json_object_get(index, "entries"), kernel, &entry,
				 &kernel->btf_why))
		use_file(ef_manifest_find(bundle, entry.path), kernel);
	ef_bundle_forget_btf(bundle);
}
