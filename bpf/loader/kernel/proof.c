/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernel/proof.h"

#include <bpf/btf.h>
#include <linux/bpf.h>
#include <stdint.h>

#include "kernel/bpfnames.h"

#define TAKES_TWO_SLOTS (BPF_LD | BPF_IMM | BPF_DW)

static bool is_exit(const struct bpf_insn *insn) {
	return insn->code == (BPF_JMP | BPF_EXIT);
}

/* r0 = 0 or w0 = 0; with an offset the same code would be a move with sign extension. */
static bool clears_r0(const struct bpf_insn *insn) {
	return (insn->code == (BPF_ALU64 | BPF_MOV | BPF_K) ||
		insn->code == (BPF_ALU | BPF_MOV | BPF_K)) &&
	       insn->dst_reg == BPF_REG_0 && insn->imm == 0 && insn->off == 0;
}

static bool is_helper_call(const struct bpf_insn *insn) {
	return insn->code == (BPF_JMP | BPF_CALL) && insn->src_reg == 0;
}

/* Where a jump goes, counted from insns[0]; -1: the instruction does not jump. */
static int64_t jump_target(const struct bpf_insn *insns, size_t at) {
	const struct bpf_insn *insn = &insns[at];
	unsigned class = BPF_CLASS(insn->code), op = BPF_OP(insn->code);

	if ((class != BPF_JMP && class != BPF_JMP32) || op == BPF_CALL || op == BPF_EXIT)
		return -1;
	/* 32 bits of distance since 6.6 (gotol). */
	if (class == BPF_JMP32 && op == BPF_JA)
		return (int64_t)at + 1 + insn->imm;
	return (int64_t)at + 1 + insn->off;
}

/* Something throws: then an exception callback decides what is returned. */
static bool can_throw(const struct bpf_object *object) {
	const struct btf *btf = bpf_object__btf(object);

	return !btf || btf__find_by_name_kind(btf, "bpf_throw", BTF_KIND_FUNC) > 0;
}

bool ef_proof_returns_zero(const struct bpf_object *object, const struct bpf_program *program) {
	const struct bpf_insn *insns = bpf_program__insns(program);
	size_t n = bpf_program__insn_cnt(program), exits = 0;
	bool cleared = false;

	if (!insns || can_throw(object))
		return false;
	for (size_t i = 0; i < n; i++) {
		int64_t target = jump_target(insns, i);

		if (target >= 0 && ((size_t)target >= n || is_exit(&insns[target])))
			return false;
		if (is_helper_call(&insns[i]) && insns[i].imm == BPF_FUNC_tail_call)
			return false;
		if (is_exit(&insns[i]) && !cleared)
			return false;
		exits += is_exit(&insns[i]);
		cleared = clears_r0(&insns[i]);
		i += insns[i].code == TAKES_TWO_SLOTS;
	}
	return exits > 0;
}

static bool reads_kernel(const struct bpf_program *program) {
	const struct bpf_insn *insns = bpf_program__insns(program);
	size_t n = insns ? bpf_program__insn_cnt(program) : 0;

	for (size_t i = 0; i < n; i++)
		if (is_helper_call(&insns[i]) && ef_helper_reads_kernel(insns[i].imm))
			return true;
	return false;
}

bool ef_proof_reads_kernel(const struct bpf_object *object) {
	struct bpf_program *program;

	bpf_object__for_each_program (program, object)
		if (reads_kernel(program))
			return true;
	return false;
}
