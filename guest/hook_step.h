/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook_step: a probed function's first instruction, where the kernel's own way to make it goes
 * wrong or takes long.  See hook.h.
 *
 * The kernel has a copy of it with a breakpoint behind.
 *
 * MIPS handles both with interrupts on.
 * What runs in between may forget that there is a probe (kprobe_busy_end(), when a task's last
 * reference is given back): then the second breakpoint is nobody's, and the kernel dies.  And
 * after a branch with nothing to do in its delay slot, evaluate_branch_instruction() has set a
 * flag that stays.  So here the instruction is done by the handler; there are not many
 * kinds that a function begins with, and one that begins with another is not probed.  Where
 * the function tracer is not configured, many begin with a jump: to a function with the
 * same arguments, as read() to ksys_read().  The handler then does what is in its delay slot, too.
 */
#ifndef HYPERMEM_HOOK_STEP_H
#define HYPERMEM_HOOK_STEP_H

#include <linux/kprobes.h>
#include <linux/list.h>
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
	case sra_op:
		*rd = (s32)rt >> in.re;
		return true;
	}
	return false;
}

static inline bool hook_step_is_load(union mips_instruction in)
{
	return in.i_format.opcode == lw_op || in.i_format.opcode == ld_op;
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
	case slti_op:
		*rt = (long)rs < in.i_format.simmediate;
		return true;
	case sltiu_op:
		*rt = rs < (unsigned long)(long)in.i_format.simmediate;
		return true;
	}
	return false;
}

/* Whether a branch is taken; -1: it is none, or has no delay slot, or none at times. */
static inline int hook_step_taken(const struct pt_regs *regs, struct i_format in)
{
	const unsigned long rs = regs->regs[in.rs], rt = regs->regs[in.rt];

	switch (in.opcode) {
	case beq_op:
		return rs == rt;
	case bne_op:
		return rs != rt;
	case blez_op:
		return in.rt ? -1 : (long)rs <= 0;
	case bgtz_op:
		return in.rt ? -1 : (long)rs > 0;
	case bcond_op:
		if (in.rt == bltz_op)
			return (long)rs < 0;
		if (in.rt == bgez_op)
			return (long)rs >= 0;
	}
	return -1;
}

/* *ret: where the kernel goes on behind the delay slot of a jump or a branch; false: it is none. */
static inline bool hook_step_goes(const struct pt_regs *regs, union mips_instruction in,
				  unsigned long *ret)
{
	const unsigned long slot = regs->cp0_epc + sizeof(in);
	int taken = hook_step_taken(regs, in.i_format);

	if (taken >= 0)
		*ret = slot + (taken ? in.i_format.simmediate * 4L : (long)sizeof(in));
	else if (in.j_format.opcode == j_op)
		*ret = (slot & ~0xfffffffUL) | in.j_format.target << 2;
	else if (in.r_format.opcode == spec_op && in.r_format.func == jr_op)
		*ret = regs->regs[in.r_format.rs];
	else
		return false;
	return true;
}

/* `first` is in[0] without the breakpoint. */
static inline bool hook_step_make(struct pt_regs *regs, union mips_instruction first,
				  const union mips_instruction *in)
{
	unsigned long next;

	if (hook_step_do(regs, first))
		next = regs->cp0_epc + sizeof(first);
	else if (!hook_step_goes(regs, first, &next) || !hook_step_do(regs, in[1]))
		return false;
	regs->regs[0] = 0;
	regs->cp0_epc = next;
	return true;
}

/*
 * In the handler: true if the instruction has been made, and the kernel need not.  Other probes
 * at this place have been told by then: they have come later, or it would not be known, and the
 * last one is told first.  Only their post_handlers are not called.
 */
static inline bool hook_step(struct kprobe *kprobe, struct pt_regs *regs)
{
	return hook_step_make(regs, kprobe->opcode, kprobe->addr);
}

/* NULL: that is not known, either. */
static inline bool hook_step_is_known(const void *function)
{
	/* Loads are tried out on this. */
	static const unsigned long word;
	const union mips_instruction *in = function;
	struct pt_regs regs = { };
	struct i_format load;

	if (!function)
		return false;
	load = hook_step_is_load(in[0]) ? in[0].i_format : in[1].i_format;
	regs.regs[load.rs] = (unsigned long)&word - load.simmediate;
	return hook_step_make(&regs, in[0], in);
}

#elif defined(CONFIG_X86_64)

#include <asm/processor-flags.h>
#include <asm/text-patching.h>

/*
 * Here it is the second breakpoint that is saved, and the kernel makes what is not one of these:
 * what nearly all functions that are calls begin with.
 */
struct hook_step_x86 {
	const u8 *at;		/* what follows the opcode */
	unsigned long *reg;	/* by ModRM */
	unsigned int mode, rm;	/* the same */
	bool wide, rm_high;	/* REX */
};

static inline unsigned long *hook_step_reg(struct pt_regs *regs, unsigned int n)
{
	static const u8 offsets[16] = {
		offsetof(struct pt_regs, ax), offsetof(struct pt_regs, cx),
		offsetof(struct pt_regs, dx), offsetof(struct pt_regs, bx),
		offsetof(struct pt_regs, sp), offsetof(struct pt_regs, bp),
		offsetof(struct pt_regs, si), offsetof(struct pt_regs, di),
		offsetof(struct pt_regs, r8), offsetof(struct pt_regs, r9),
		offsetof(struct pt_regs, r10), offsetof(struct pt_regs, r11),
		offsetof(struct pt_regs, r12), offsetof(struct pt_regs, r13),
		offsetof(struct pt_regs, r14), offsetof(struct pt_regs, r15),
	};

	return (unsigned long *)((u8 *)regs + offsets[n]);
}

static inline s32 hook_step_s32(const u8 *at)
{
	s32 value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* mov disp8(%rdi), reg: an argument, out of the registers that the function is given. */
static inline unsigned int hook_step_load(struct pt_regs *regs, const struct hook_step_x86 *in)
{
	const void *from = (const u8 *)regs->di + (s8)in->at[1];

	if (in->mode != 1 || in->rm != 7 || in->rm_high)
		return 0;
	*in->reg = in->wide ? *(const u64 *)from : *(const u32 *)from;
	return 2;
}

/* mov %gs:disp32, reg, and the same by the instruction's own place: this processor's. */
static inline unsigned int hook_step_load_gs(struct pt_regs *regs,
					     const struct hook_step_x86 *in)
{
	unsigned long value, from;
	unsigned int size;

	if (!in->wide || in->mode || in->rm_high)
		return 0;
	if (in->rm == 4 && in->at[1] == 0x25) {
		from = (long)hook_step_s32(in->at + 2);
		size = 6;
	} else if (in->rm == 5) {
		from = (unsigned long)in->at + 5 + hook_step_s32(in->at + 1);
		size = 5;
	} else {
		return 0;
	}
	asm volatile("movq %%gs:(%1), %0" : "=r" (value) : "r" (from));
	*in->reg = value;
	return size;
}

/* sub $imm8, %rsp and sub $imm32, %rsp */
static inline unsigned int hook_step_sub_sp(struct pt_regs *regs, const u8 *at, bool small)
{
	const unsigned long by = small ? (long)(s8)at[1] : (long)hook_step_s32(at + 1);
	const unsigned long mask = X86_EFLAGS_CF | X86_EFLAGS_PF | X86_EFLAGS_AF |
				   X86_EFLAGS_ZF | X86_EFLAGS_SF | X86_EFLAGS_OF;
	unsigned long flags, sp = regs->sp;

	asm volatile("subq %2, %0\n\tpushfq\n\tpopq %1"
		     : "+r" (sp), "=r" (flags) : "r" (by) : "cc", "memory");
	regs->sp = sp;
	regs->flags = (regs->flags & ~mask) | (flags & mask);
	return small ? 2 : 5;
}

/* Bytes behind the opcode; 0: the kernel is to do it. */
static inline unsigned int hook_step_modrm(struct pt_regs *regs, u8 opcode, u8 rex, bool gs,
					   const u8 *at)
{
	const struct hook_step_x86 in = {
		.at = at,
		.reg = hook_step_reg(regs, (at[0] >> 3 & 7) | (rex & 4) << 1),
		.mode = at[0] >> 6,
		.rm = at[0] & 7,
		.wide = rex & 8,
		.rm_high = rex & 1,
	};

	unsigned long *to = hook_step_reg(regs, in.rm | in.rm_high << 3);

	if (in.reg == &regs->sp && opcode == 0x8b)
		return 0;
	if (opcode == 0x8b)
		return gs ? hook_step_load_gs(regs, &in) : hook_step_load(regs, &in);
	if (gs || !in.wide)
		return 0;
	switch (opcode) {
	case 0x89:	/* mov reg, reg */
		if (in.mode != 3)
			return 0;
		*to = *in.reg;
		return 1;
	case 0xc7:	/* mov $imm32, reg */
		if (in.mode != 3 || at[0] >> 3 & 7)
			return 0;
		*to = (long)hook_step_s32(at + 1);
		return 5;
	case 0x83:
	case 0x81:
		return at[0] == 0xec && !in.rm_high ? hook_step_sub_sp(regs, at, opcode == 0x83) :
						       0;
	}
	return 0;
}

/* It is at `at`, but for its first byte; where it ends, or NULL. */
static inline const u8 *hook_step_do(struct pt_regs *regs, u8 opcode, const u8 *at)
{
	unsigned int n;
	bool gs = opcode == 0x65;
	u8 rex = 0;

	at++;
	if (gs)
		opcode = *at++;
	if ((opcode & 0xf0) == 0x40) {
		rex = opcode;
		opcode = *at++;
	}
	if ((opcode & 0xf8) == 0x50 && !gs) {
		int3_emulate_push(regs, *hook_step_reg(regs, (opcode & 7) | (rex & 1) << 3));
		return at;
	}
	n = hook_step_modrm(regs, opcode, rex, gs, at);
	return n ? at + n : NULL;
}

/*
 * If there are other probes at this place, the kernel tells them, too.  And the function tracer's
 * have no instruction.
 */
static inline bool hook_step(struct kprobe *kprobe, struct pt_regs *regs)
{
	const u8 *end;

	if (!list_empty(&kprobe->list) || kprobe_ftrace(kprobe))
		return false;
	end = hook_step_do(regs, kprobe->opcode, (const u8 *)kprobe->addr);
	if (end)
		regs->ip = (unsigned long)end;
	return end;
}

static inline bool hook_step_is_known(const void *function)
{
	return true;
}

#else

static inline bool hook_step(struct kprobe *kprobe, struct pt_regs *regs)
{
	return false;
}

static inline bool hook_step_is_known(const void *function)
{
	return true;
}

#endif

#endif
