/* SPDX-License-Identifier: GPL-3.0-or-later */
/* clang-format off */
/*
 * What the loader makes of types, instructions, messages and answers of the kernel, all of them made up here:
 *   format STRUCT            its fields, whether it may be an event, and a record of it as a line and as labels
 *   pick STRUCT FIELD...     those fields packed, or the error
 *   log MESSAGE...           each a warning of libbpf, "-" a reset: the first line and the end
 *   proof INSTRUCTION...     CODE:DST:SRC:OFF:IMM each, "throw": something throws, "nobtf": it has no types;
 *                            is it proven to return 0, does it read the kernel
 *   notes HEX                is there a build id among the kernel's notes, and which
 *   ask REQUIREMENT BTF ERROR...   what is answered for a kernel 6.1 with that BTF (vmlinux, bundled, missing),
 *                            where perf_event_open ends with the first error (0: none) and a program's load with
 *                            the second; what was asked of the kernel, and the reason
 *   holds                    when this kernel was read and let go: is standard input still open; when a file's types
 *                            were used: is the file open at the path for them; and when they were let go
 */
/* clang-format on */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"
#include "kernel/bpflog.h"
#include "kernel/format.h"
#include "kernel/hook.h"
#include "kernel/kernel.h"
#include "kernel/labels.h"
#include "kernel/proof.h"
#include "kernel/require.h"

#include "driver.h"

/* ---- types ---- */

static struct btf *make_types(void) {
	struct btf *btf = btf__new_empty();
	int u8 = btf__add_int(btf, "unsigned char", 1, 0);
	int character = btf__add_int(btf, "char", 1, BTF_INT_SIGNED);
	int s8 = btf__add_int(btf, "signed char", 1, BTF_INT_SIGNED);
	int s16 = btf__add_int(btf, "short", 2, BTF_INT_SIGNED);
	int u16 = btf__add_int(btf, "unsigned short", 2, 0);
	int s32 = btf__add_int(btf, "int", 4, BTF_INT_SIGNED);
	int u32 = btf__add_int(btf, "unsigned int", 4, 0);
	int s64 = btf__add_int(btf, "long", 8, BTF_INT_SIGNED);
	int u64 = btf__add_int(btf, "unsigned long", 8, 0);
	int u128 = btf__add_int(btf, "unsigned __int128", 16, 0);
	int name = btf__add_typedef(btf, "name_t", btf__add_const(btf, character));
	int text = btf__add_array(btf, u32, name, 8);
	int bytes = btf__add_array(btf, u32, u8, 3);
	int many = btf__add_array(btf, u32, u8, 65532);
	int looped;

	btf__add_struct(btf, "event", 64);
	btf__add_field(btf, "ktime_ns", u64, 0, 0);
	btf__add_field(btf, "pid", u32, 64, 0);
	btf__add_field(btf, "tiny", s8, 96, 0);
	btf__add_field(btf, "utiny", u8, 104, 0);
	btf__add_field(btf, "small", s16, 112, 0);
	btf__add_field(btf, "usmall", u16, 128, 0);
	btf__add_field(btf, "pad0", u16, 144, 0);
	btf__add_field(btf, "number", s32, 160, 0);
	btf__add_field(btf, "wide", s64, 192, 0);
	btf__add_field(btf, "comm", text, 256, 0);
	btf__add_field(btf, "raw", bytes, 320, 0);
	btf__add_field(btf, "event", u8, 344, 0);
	btf__add_field(btf, "_hidden", u32, 352, 0);
	btf__add_field(btf, "", u32, 384, 0);
	btf__add_field(btf, "letter", character, 416, 0);
	btf__add_field(btf, "Z9_", u8, 424, 0);
	btf__add_struct(btf, "late", 16);
	btf__add_field(btf, "pid", u64, 0, 0);
	btf__add_field(btf, "ktime_ns", u64, 64, 0);
	btf__add_struct(btf, "short_time", 4);
	btf__add_field(btf, "ktime_ns", u32, 0, 0);
	btf__add_struct(btf, "signed_time", 8);
	btf__add_field(btf, "ktime_ns", s64, 0, 0);
	btf__add_struct(btf, "moved_time", 16);
	btf__add_field(btf, "ktime_ns", u64, 64, 0);
	btf__add_struct(btf, "wider", 16);
	btf__add_field(btf, "all", u128, 0, 0);
	btf__add_struct(btf, "bits", 8);
	btf__add_field(btf, "ktime_ns", u64, 0, 3);
	btf__add_struct(btf, "odd_name", 8);
	btf__add_field(btf, "a-b", u8, 0, 0);
	btf__add_struct(btf, "digit", 8);
	btf__add_field(btf, "9a", u8, 0, 0);
	btf__add_struct(btf, "full", 4);
	btf__add_field(btf, "a", u32, 0, 0);
	btf__add_struct(btf, "beyond", 8);
	btf__add_field(btf, "a", u64, 8, 0);
	btf__add_struct(btf, "empty", 0);
	btf__add_struct(btf, "large", 65532);
	btf__add_field(btf, "a", many, 0, 0);
	looped = btf__add_typedef(btf, "looped", btf__type_cnt(btf));
	btf__add_struct(btf, "loop", 8);
	btf__add_field(btf, "a", looped, 0, 0);
	return btf;
}

static const char *error_name(int err) {
	return err ? strerrorname_np(-err) : "0";
}

static void do_format(int n, char **word) {
	static const struct __attribute__((packed)) {
		uint64_t ktime_ns;
		uint32_t pid;
		int8_t tiny;
		uint8_t utiny;
		int16_t small;
		uint16_t usmall, pad;
		int32_t number;
		int64_t wide;
		char comm[8];
		uint8_t raw[3], event;
		uint32_t hidden, none;
		char letter;
		uint8_t z9;
	} record = {1,	    4000000000U,   -2, 254, -30000, 60000, 7, -5, INT64_MIN,
		    "a\"b", {0, 171, 255}, 9,  3,   8,	    -1,	   4};
	struct btf *btf = make_types();
	struct ef_format format;
	int err = ef_format_read(btf, word[0], &format);
	uint8_t bytes[65536] = {0};
	char line[1024];
	struct ef_text text = {.at = line, .size = sizeof(line)};
	json_t *fields;

	(void)n;
	puts(error_name(err));
	if (!err) {
		memcpy(bytes, &record, sizeof(record));
		puts(error_name(ef_format_check_event(&format)));
		fields = ef_format_json(&format);
		json_dumpf(fields, stdout, 0);
		json_decref(fields);
		ef_text_add_fields(&text, &format, bytes);
		printf("\n%u\n%.*s\n", format.size, (int)text.used, line);
		ef_labels_print(stdout, &format, bytes);
		putchar('\n');
	}
	ef_format_free(&format);
	btf__free(btf);
}

static void do_pick(int n, char **word) {
	struct btf *btf = make_types();
	const struct ef_field *fields[8];
	struct ef_format format, picked;
	int err;

	ef_format_read(btf, word[0], &format);
	for (int i = 1; i < n; i++)
		for (size_t j = 0; j < format.n_fields; j++)
			if (!strcmp(format.fields[j].name, word[i]))
				fields[i - 1] = &format.fields[j];
	err = ef_format_pick(fields, (size_t)n - 1, &picked);
	printf("%s %u", error_name(err), picked.size);
	for (size_t i = 0; !err && i < picked.n_fields; i++)
		printf(" %s%u", picked.fields[i].key, picked.fields[i].offset);
	putchar('\n');
	ef_format_free(&picked);
	ef_format_free(&format);
	btf__free(btf);
}

/* ---- messages ---- */

static libbpf_print_fn_t on_message;

libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t fn) {
	on_message = fn;
	return NULL;
}

static void __attribute__((format(printf, 2, 3)))
say(enum libbpf_print_level level, const char *format, ...) {
	va_list args;

	va_start(args, format);
	on_message(level, format, args);
	va_end(args);
}

static void do_log(int n, char **word) {
	ef_bpflog_start();
	for (int i = 0; i < n; i++) {
		if (!strcmp(word[i], "-"))
			ef_bpflog_reset();
		else if (word[i][0] == '?')
			say(LIBBPF_INFO, "%s", word[i] + 1);
		else
			say(LIBBPF_WARN, "%s", word[i]);
	}
	printf("[%s]\n[%s]\n", ef_bpflog_first(), ef_bpflog_tail());
}

/* ---- instructions, in the place of an object's ---- */

static struct bpf_insn insns[32];
static size_t n_insns;
static struct btf *object_types;

const struct bpf_insn *bpf_program__insns(const struct bpf_program *program) {
	(void)program;
	return n_insns ? insns : NULL;
}

size_t bpf_program__insn_cnt(const struct bpf_program *program) {
	(void)program;
	return n_insns;
}

struct btf *bpf_object__btf(const struct bpf_object *object) {
	(void)object;
	return object_types;
}

struct bpf_program *bpf_object__next_program(const struct bpf_object *object,
					     struct bpf_program *earlier) {
	(void)object;
	return earlier ? NULL : (struct bpf_program *)insns;
}

static void do_proof(int n, char **word) {
	bool with_types = true, throws = false;

	for (int i = 0; i < n; i++) {
		unsigned code, dst, src;
		int off, imm;

		throws |= !strcmp(word[i], "throw");
		with_types &= strcmp(word[i], "nobtf") != 0;
		if (sscanf(word[i], "%x:%u:%u:%d:%d", &code, &dst, &src, &off, &imm) == 5)
			insns[n_insns++] = (struct bpf_insn){.code = (uint8_t)code,
							     .dst_reg = dst & 15,
							     .src_reg = src & 15,
							     .off = (int16_t)off,
							     .imm = imm};
	}
	if (with_types)
		object_types = btf__new_empty();
	if (throws)
		btf__add_func(object_types, "bpf_throw", BTF_FUNC_EXTERN,
			      btf__add_func_proto(object_types, 0));
	printf("%d", ef_proof_returns_zero(NULL, NULL));
	printf(" %d\n", ef_proof_reads_kernel(NULL));
	btf__free(object_types);
}

/* ---- answers ---- */

static int perf_error, load_error;

long __real_syscall(long number, ...);

long __wrap_syscall(long number, ...) {
	const struct perf_event_attr *attr;
	va_list args;
	int pid, cpu, group;

	if (number != SYS_perf_event_open)
		abort();
	va_start(args, number);
	attr = va_arg(args, const struct perf_event_attr *);
	pid = va_arg(args, int);
	cpu = va_arg(args, int);
	group = va_arg(args, int);
	va_end(args);
	printf("perf %u %" PRIx64 " %s %d %d %d %d\n", attr->type, (uint64_t)attr->config,
	       (const char *)(uintptr_t)attr->config1, attr->disabled, pid, cpu, group);
	errno = perf_error;
	return perf_error ? -1 : dup(STDERR_FILENO);
}

int bpf_prog_load(enum bpf_prog_type type, const char *name, const char *licence,
		  const struct bpf_insn *program, size_t n, const struct bpf_prog_load_opts *opts) {
	(void)name, (void)licence, (void)program, (void)n;
	printf("load %d %d %d\n", type, opts->expected_attach_type, opts->attach_btf_id > 0);
	errno = load_error;
	return load_error ? -1 : dup(STDERR_FILENO);
}

int bpf_raw_tracepoint_open(const char *name, int fd) {
	(void)fd;
	printf("open %s\n", name);
	errno = perf_error;
	return perf_error ? -1 : dup(STDERR_FILENO);
}

static void do_ask(int n, char **word) {
	static const char *const answers[] = {
	    [EF_ANSWER_YES] = "yes", [EF_ANSWER_NO] = "no", [EF_ANSWER_UNKNOWN] = "unknown"};
	struct ef_kernel kernel = {.release = "6.1.0-x", .family = "6.1", .major = 6, .minor = 1};
	struct ef_requirement asked;
	struct ef_reason why = {0};
	const char *remedy = ef_requirement_read(word[0], &asked);
	enum ef_answer said;

	if (remedy) {
		puts(remedy);
		return;
	}
	kernel.btf = !strcmp(word[1], "vmlinux")   ? EF_BTF_VMLINUX
		     : !strcmp(word[1], "bundled") ? EF_BTF_BUNDLED
						   : EF_BTF_MISSING;
	ef_reason_set(&kernel.own_btf_why, "EF_NO_BTF", "own");
	ef_reason_set(&kernel.btf_why, "EF_NO_BTF", "any");
	perf_error = n > 2 ? atoi(word[2]) : 0;
	load_error = n > 3 ? atoi(word[3]) : 0;
	said = ef_require(&kernel, &asked, &why);
	ef_hook_forget();
	printf("%s %s %s\n", answers[said], why.code ? why.code : "-", why.text);
}

/* Bytes in hexadecimal, in a buffer that ends with them. */
static void do_notes(int n, char **word) {
	size_t size = strlen(word[0]) / 2;
	_cleanup_free_ uint8_t *notes = malloc(size ? size : 1);
	char hex[EF_BUILD_ID_HEX];

	(void)n;
	for (size_t i = 0; i < size; i++)
		sscanf(word[0] + 2 * i, "%2hhx", &notes[i]);
	printf("%d", ef_build_id_parse(notes, size, hex));
	printf(" %s\n", hex);
}

static void do_holds(int n, char **word) {
	struct ef_kernel kernel;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)n, (void)word;
	ef_kernel_read(&kernel);
	ef_kernel_clear(&kernel);
	printf("%d", fcntl(STDIN_FILENO, F_GETFD) >= 0);
	ef_kernel_use_btf(&kernel, fd, "types.btf");
	printf(" %d %s %d", access(kernel.btf_path, R_OK) == 0, kernel.btf_file,
	       kernel.btf == EF_BTF_BUNDLED);
	ef_kernel_clear(&kernel);
	printf(" %d", fcntl(fd, F_GETFD) >= 0);
	/* A second time there is nothing to let go. */
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ef_kernel_clear(&kernel);
	printf(" %d\n", fcntl(fd, F_GETFD) >= 0);
	close(fd);
}

static const struct command commands[] = {
    {"format", 1, do_format}, {"pick", 2, do_pick}, {"log", 0, do_log},
    {"proof", 0, do_proof},   {"ask", 2, do_ask},   {"notes", 1, do_notes},
    {"holds", 0, do_holds},
};

int main(int argc, char **argv) {
	return run_command(commands, EF_ARRAY_SIZE(commands), argc, argv);
}
