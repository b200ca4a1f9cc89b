/* SPDX-License-Identifier: GPL-3.0-or-later */
/* In the place of libbpf's: the registers in which this machine's kernel has a function's
 * arguments. */
#if defined(__TARGET_ARCH_x86)
#define PT_REGS_PARM1(regs) ((regs)->rdi)
#define PT_REGS_PARM2(regs) ((regs)->rsi)
#else
#define PT_REGS_PARM1(regs) (((struct user_pt_regs *)(regs))->regs[0])
#define PT_REGS_PARM2(regs) (((struct user_pt_regs *)(regs))->regs[1])
#endif
