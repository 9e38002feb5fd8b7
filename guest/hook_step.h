/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook_step: a probed function's first instruction, where the kernel's own way to make it goes
 * wrong.  See hook.h.
 *
 * The kernel has a copy of it with a breakpoint behind.  MIPS handles both with interrupts on.
 * What runs in between may forget that there is a probe (kprobe_busy_end(), when a task's last
 * reference is given back): then the second breakpoint is nobody's, and the kernel dies.  And
 * after a branch with nothing to do in its delay slot, evaluate_branch_instruction() has set a
 * flag that stays.  So here the instruction is done by the handler; there are not many
 * kinds that a function begins with, and one that begins with another is not probed.
 */
#ifndef HYPERMEM_HOOK_STEP_H
#define HYPERMEM_HOOK_STEP_H

#include <linux/kprobes.h>
#include <linux/ptrace.h>
#include <linux/types.h>

#ifdef CONFIG_MIPS

#include <asm/inst.h>

static inline bool hook_step_special(struct pt_regs *regs, struct r_format in)
{
	const unsigned long rs = regs->regs[in.rs], rt = regs->regs[in.rt];
	unsigned long *rd = &regs->regs[in.rd];

	switch (in.func) {
	case or_op:
		*rd = rs | rt;
		return true;
	case addu_op:
		*rd = (s32)(rs + rt);
		return true;
	case daddu_op:
		*rd = rs + rt;
		return true;
	case sll_op:	/* of 0: a number of 32 bits */
		*rd = (s32)((u32)rt << in.re);
		return true;
	}
	return false;
}

/* Loads only by the kernel's own pointers. */
static inline bool hook_step_load(struct pt_regs *regs, struct i_format in)
{
	const unsigned long addr = regs->regs[in.rs] + in.simmediate;

	if (in.rs != 28 && in.rs != 29)
		return false;
	if (in.opcode == lw_op)
		regs->regs[in.rt] = *(const s32 *)addr;
	else
		regs->regs[in.rt] = *(const long *)addr;
	return true;
}

static inline bool hook_step_do(struct pt_regs *regs, union mips_instruction in)
{
	const unsigned long rs = regs->regs[in.i_format.rs];
	unsigned long *rt = &regs->regs[in.i_format.rt];

	switch (in.i_format.opcode) {
	case spec_op:
		return hook_step_special(regs, in.r_format);
	case lw_op:
	case ld_op:
		return hook_step_load(regs, in.i_format);
	case addiu_op:
		*rt = (s32)(rs + in.i_format.simmediate);
		return true;
	case daddiu_op:
		*rt = rs + in.i_format.simmediate;
		return true;
	case andi_op:
		*rt = rs & in.u_format.uimmediate;
		return true;
	case ori_op:
		*rt = rs | in.u_format.uimmediate;
		return true;
	case lui_op:
		*rt = (s32)(in.u_format.uimmediate << 16);
		return true;
	}
	return false;
}

/* In the handler: true if the instruction has been made, and the kernel need not. */
static inline bool hook_step(const struct kprobe *kprobe, struct pt_regs *regs)
{
	if (!hook_step_do(regs, kprobe->opcode))
		return false;
	regs->regs[0] = 0;
	regs->cp0_epc += sizeof(kprobe->opcode);
	return true;
}

/* NULL: that is not known, either. */
static inline bool hook_step_is_known(const void *function)
{
	/* Loads are tried out on this. */
	static const unsigned long word;
	struct pt_regs regs = { };
	union mips_instruction in;

	if (!function)
		return false;
	in = *(const union mips_instruction *)function;
	if (in.i_format.opcode == lw_op || in.i_format.opcode == ld_op)
		regs.regs[in.i_format.rs] = (unsigned long)&word - in.i_format.simmediate;
	return hook_step_do(&regs, in);
}

#else

static inline bool hook_step(const struct kprobe *kprobe, struct pt_regs *regs)
{
	return false;
}

static inline bool hook_step_is_known(const void *function)
{
	return true;
}

#endif

#endif
