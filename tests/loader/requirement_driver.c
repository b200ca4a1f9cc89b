/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the loader knows of requirements, without a kernel:
 *   tables           every entry of every table, a line each
 *   read TEXT        what a requirement says, or "!" and what to write instead
 *   contract         a contract from stdin, as the loader reads it of a bundle: its code and
 * reason, or "EF_OK" section TEXT     kind and target of a program in that section, or "-"
 */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "bundle/contract.h"
#include "kernel/bpfnames.h"
#include "kernel/requirement.h"

static const char *const name_tables[EF_N_NAMES] = {"prog_type", "map_type", "helper"};

static void print_tables(void) {
	const char *name;

	for (size_t i = 0; i < EF_N_REQUIREMENT; i++) {
		const struct ef_requirement_kind *kind = &ef_requirement_kinds[i];

		printf("requirement\t%s\t%s\t%d\n", kind->name, kind->code, kind->before_load);
	}
	for (size_t i = 0; i < EF_N_ATTACH; i++) {
		const struct ef_attach *kind = &ef_attach_kinds[i];

		printf("attach\t%s\t%s\t%s", kind->name, kind->form, kind->sections[0]);
		for (size_t j = 1; j < EF_ARRAY_SIZE(kind->sections) && kind->sections[j]; j++)
			printf(",%s", kind->sections[j]);
		printf("\t%s\t%d\t%s\t%u\t%s\t%d\t%d\n", kind->prog_type, kind->attach_type,
		       kind->moment, kind->btf_kind, kind->prefix, kind->own_btf,
		       kind->id == (enum ef_attach_id)i);
	}
	for (unsigned i = 1; (name = ef_number_name(EF_NAMES_HELPER, i)); i++)
		if (ef_helper_reads_kernel((int)i))
			printf("reader\t%s\n", name);
	for (unsigned table = 0; table < EF_N_NAMES; table++)
		for (unsigned i = 1; (name = ef_number_name((enum ef_names)table, i)); i++)
			printf("%s\t%u\t%s\n", name_tables[table], i, name);
}

static void print_read(const char *text) {
	struct ef_requirement found;
	const char *remedy = ef_requirement_read(text, &found);

	if (remedy)
		printf("! %s\n", remedy);
	else
		printf("%s %s %u.%u %d %d %s %s\n", found.kind->name, found.key, found.major,
		       found.minor, found.type, found.helper,
		       found.attach ? found.attach->name : "-", found.target ? found.target : "-");
}

static void print_contract(void) {
	static char text[1 << 16];
	size_t size = fread(text, 1, sizeof(text), stdin);
	const struct ef_file file = {
	    .path = (char *)"features/f/contract.json", .data = (uint8_t *)text, .size = size};
	struct ef_variant variant = {.name = (char *)"full"};
	const struct ef_feature feature = {
	    .name = (char *)"test", .contract = &file, .n_variants = 1, .variants = &variant};
	struct ef_contract contract;
	struct ef_refusal why = {0};

	if (ef_contract_read(&feature, &contract, &why)) {
		printf("%s %s: %s\n", why.code, why.file, why.reason);
		return;
	}
	puts("EF_OK");
	ef_contract_free(&contract);
}

static void print_section(const char *text) {
	const char *target;
	const struct ef_attach *kind = ef_attach_of_section(text, &target);

	printf("%s %s\n", kind ? kind->name : "-", kind ? target : "-");
}

int main(int argc, char **argv) {
	if (argc == 2 && !strcmp(argv[1], "tables"))
		print_tables();
	else if (argc == 3 && !strcmp(argv[1], "read"))
		print_read(argv[2]);
	else if (argc == 2 && !strcmp(argv[1], "contract"))
		print_contract();
	else if (argc == 3 && !strcmp(argv[1], "section"))
		print_section(argv[2]);
	else
		return 2;
	return 0;
}
