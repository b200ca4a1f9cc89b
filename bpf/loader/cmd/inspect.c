/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <getopt.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/util.h"
#include "cmd/commands.h"
#include "feature/object.h"
#include "kernel/bpflog.h"
#include "kernel/format.h"
#include "kernel/proof.h"

static json_t *programs_json(const struct bpf_object *object) {
	json_t *list = json_array();
	struct bpf_program *program;

	bpf_object__for_each_program (program, object)
		json_array_append_new(
		    list, json_pack("{s:s, s:s, s:s?, s:b}", "name", bpf_program__name(program),
				    "section", bpf_program__section_name(program), "type",
				    libbpf_bpf_prog_type_str(bpf_program__type(program)),
				    "returns_zero", ef_proof_returns_zero(object, program)));
	return list;
}

static json_t *maps_json(const struct bpf_object *object) {
	json_t *list = json_array();
	struct bpf_map *map;

	bpf_object__for_each_map (map, object)
		json_array_append_new(
		    list, json_pack("{s:s, s:s?, s:I, s:I, s:I}", "name", ef_object_map_name(map),
				    "type", libbpf_bpf_map_type_str(bpf_map__type(map)), "key_size",
				    (json_int_t)bpf_map__key_size(map), "value_size",
				    (json_int_t)bpf_map__value_size(map), "max_entries",
				    (json_int_t)bpf_map__max_entries(map)));
	return list;
}

/* The structs of ours, those whose name begins with "ef_", or all that have a name. */
static json_t *structs_json(const struct btf *btf, bool all) {
	json_t *structs = json_object();
	__u32 n = btf ? btf__type_cnt(btf) : 0;

	for (__u32 id = 1; id < n; id++) {
		const struct btf_type *type = btf__type_by_id(btf, id);
		const char *name = btf__name_by_offset(btf, type->name_off);
		struct ef_format format;

		if (!btf_is_struct(type) || !name || (all ? !*name : strncmp(name, "ef_", 3)) ||
		    ef_format_read(btf, name, &format))
			continue;
		json_object_set_new(structs, name, ef_format_json(&format));
		ef_format_free(&format);
	}
	return structs;
}

static Elf_Scn *find_section(Elf *elf, const char *wanted) {
	Elf_Scn *section = NULL;
	GElf_Shdr header;
	size_t names;

	if (elf_getshdrstrndx(elf, &names))
		return NULL;
	while ((section = elf_nextscn(elf, section))) {
		const char *name = NULL;

		if (gelf_getshdr(section, &header))
			name = elf_strptr(elf, names, header.sh_name);
		if (name && !strcmp(name, wanted))
			return section;
	}
	return NULL;
}

/* libbpf keeps the license to itself: read the section. */
static json_t *license_json(const char *path) {
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	Elf *elf = NULL;
	Elf_Scn *section;
	Elf_Data *data = NULL;
	json_t *license = NULL;

	if (fd < 0 || elf_version(EV_CURRENT) == EV_NONE)
		return json_null();
	elf = elf_begin(fd, ELF_C_READ, NULL);
	section = elf ? find_section(elf, "license") : NULL;
	if (section)
		data = elf_getdata(section, NULL);
	if (data && data->d_size)
		license = json_stringn(data->d_buf, strnlen(data->d_buf, data->d_size));
	elf_end(elf);
	return license ? license : json_null();
}

static int parse_options(int argc, char **argv, bool *all_structs, const char **path) {
	static const struct option known[] = {{"all-structs", no_argument, NULL, 'a'}, {0}};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (option != 'a')
			return -1;
		*all_structs = true;
	}
	if (optind + 1 != argc)
		return -1;
	*path = argv[optind];
	return 0;
}

int cmd_inspect(int argc, char **argv) {
	_cleanup_json_ json_t *answer = NULL;
	struct bpf_object *object;
	bool all_structs = false;
	const char *path;

	if (parse_options(argc, argv, &all_structs, &path)) {
		ef_err("usage: ebpf-loader inspect " EF_USAGE_INSPECT);
		return EF_EXIT_USAGE;
	}
	ef_bpflog_start();
	object = bpf_object__open_file(path, NULL);
	if (!object) {
		ef_err("%s cannot be read as a BPF object: %s (%s); build it with clang -target "
		       "bpf -g",
		       path, strerror(errno), ef_bpflog_first());
		return EF_EXIT_FAILED;
	}
	answer = json_pack("{s:o, s:o, s:o, s:o}", "programs", programs_json(object), "maps",
			   maps_json(object), "structs",
			   structs_json(bpf_object__btf(object), all_structs), "license",
			   license_json(path));
	bpf_object__close(object);
	return ef_json_print(stdout, answer) ? EF_EXIT_FAILED : EF_EXIT_OK;
}
