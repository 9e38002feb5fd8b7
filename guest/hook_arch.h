/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook_arch: where an architecture has a system call's arguments and the user's registers,
 * and how its functions that are system calls are called.  See hook.h.
 *
 * Where the kernel has CONFIG_ARCH_HAS_SYSCALL_WRAPPER such a function takes the registers, and
 * its arguments out of them; elsewhere it takes its arguments as any function does.
 */
#ifndef HYPERMEM_HOOK_ARCH_H
#define HYPERMEM_HOOK_ARCH_H

#include <linux/bits.h>
#include <linux/compat.h>
#include <linux/kprobes.h>
#include <linux/linkage.h>
#include <linux/ptrace.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>

struct hook_reg {
	const char *name;
	u16 offset;	/* in struct pt_regs */
	u16 size;
};

#define REG(name_, member) \
	{ name_, offsetof(struct pt_regs, member), sizeof(((struct pt_regs *)NULL)->member) }

#if defined(CONFIG_X86_64)

#define HOOK_PREFIXES "__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "__x64_compat_sys_"

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", sp), REG("pc", ip), REG("flags", flags),
	REG("rax", orig_ax), REG("rbx", bx), REG("rcx", cx), REG("rdx", dx), REG("rsi", si),
	REG("rdi", di), REG("rbp", bp), REG("r8", r8), REG("r9", r9), REG("r10", r10),
	REG("r11", r11), REG("r12", r12), REG("r13", r13), REG("r14", r14), REG("r15", r15),
};

static inline void hook_set_arg(struct pt_regs *regs, unsigned int k, u64 value)
{
	unsigned long *native[] = { &regs->di, &regs->si, &regs->dx, &regs->r10, &regs->r8,
				    &regs->r9 };
	unsigned long *ia32[] = { &regs->bx, &regs->cx, &regs->dx, &regs->si, &regs->di,
				  &regs->bp };

	*(in_ia32_syscall() ? ia32 : native)[k] = value;
}

#elif defined(CONFIG_X86_32)

#define HOOK_PREFIXES "__ia32_sys_", "sys_"

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", sp), REG("pc", ip), REG("flags", flags),
	REG("eax", orig_ax), REG("ebx", bx), REG("ecx", cx), REG("edx", dx), REG("esi", si),
	REG("edi", di), REG("ebp", bp),
};

static inline void hook_set_arg(struct pt_regs *regs, unsigned int k, u64 value)
{
	unsigned long *args[] = { &regs->bx, &regs->cx, &regs->dx, &regs->si, &regs->di,
				  &regs->bp };

	*args[k] = value;
}

#elif defined(CONFIG_ARM64)

#define HOOK_PREFIXES "__arm64_sys_", "__arm64_compat_sys_"

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", sp), REG("pc", pc), REG("lr", regs[30]),
	REG("x0", orig_x0), REG("x1", regs[1]), REG("x2", regs[2]), REG("x3", regs[3]),
	REG("x4", regs[4]), REG("x5", regs[5]), REG("x6", regs[6]), REG("x7", regs[7]),
	REG("x8", regs[8]), REG("x9", regs[9]), REG("x10", regs[10]), REG("x11", regs[11]),
	REG("x12", regs[12]), REG("x13", regs[13]), REG("x14", regs[14]), REG("x15", regs[15]),
	REG("x16", regs[16]), REG("x17", regs[17]), REG("x18", regs[18]), REG("x19", regs[19]),
	REG("x20", regs[20]), REG("x21", regs[21]), REG("x22", regs[22]), REG("x23", regs[23]),
	REG("x24", regs[24]), REG("x25", regs[25]), REG("x26", regs[26]), REG("x27", regs[27]),
	REG("x28", regs[28]), REG("x29", regs[29]),
};

static inline void hook_set_arg(struct pt_regs *regs, unsigned int k, u64 value)
{
	regs->regs[k] = value;
}

#elif defined(CONFIG_ARM)

#define HOOK_PREFIXES "sys_"

/* They have the kernel's own pointer to the registers. */
#define HOOK_UNCHANGED	"sigreturn", "rt_sigreturn",

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", ARM_sp), REG("pc", ARM_pc), REG("lr", ARM_lr),
	REG("r0", ARM_ORIG_r0), REG("r1", ARM_r1), REG("r2", ARM_r2), REG("r3", ARM_r3),
	REG("r4", ARM_r4), REG("r5", ARM_r5), REG("r6", ARM_r6), REG("r7", ARM_r7),
	REG("r8", ARM_r8), REG("r9", ARM_r9), REG("r10", ARM_r10), REG("fp", ARM_fp),
	REG("ip", ARM_ip), REG("cpsr", ARM_cpsr),
};

#elif defined(CONFIG_MIPS)

/* Not __sys_: some calls begin with such a function, which finds registers by the stack. */
#define HOOK_PREFIXES "sys_", "compat_sys_", "sys32_", "sysn32_"

/* They go to the program by themselves. */
#define HOOK_LEAVING "sigreturn", "rt_sigreturn",

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", regs[29]), REG("pc", cp0_epc), REG("ra", regs[31]),
	REG("at", regs[1]), REG("v0", regs[2]), REG("v1", regs[3]), REG("a0", regs[4]),
	REG("a1", regs[5]), REG("a2", regs[6]), REG("a3", regs[7]), REG("t0", regs[8]),
	REG("t1", regs[9]), REG("t2", regs[10]), REG("t3", regs[11]), REG("t4", regs[12]),
	REG("t5", regs[13]), REG("t6", regs[14]), REG("t7", regs[15]), REG("s0", regs[16]),
	REG("s1", regs[17]), REG("s2", regs[18]), REG("s3", regs[19]), REG("s4", regs[20]),
	REG("s5", regs[21]), REG("s6", regs[22]), REG("s7", regs[23]), REG("t8", regs[24]),
	REG("t9", regs[25]), REG("gp", regs[28]), REG("fp", regs[30]),
};

#elif defined(CONFIG_S390)

#define HOOK_PREFIXES "__s390x_sys_", "__s390_sys_", "__s390_compat_sys_", "__s390x_compat_sys_"

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", gprs[15]), REG("pc", psw.addr), REG("mask", psw.mask),
	REG("r0", gprs[0]), REG("r1", gprs[1]), REG("r2", orig_gpr2), REG("r3", gprs[3]),
	REG("r4", gprs[4]), REG("r5", gprs[5]), REG("r6", gprs[6]), REG("r7", gprs[7]),
	REG("r8", gprs[8]), REG("r9", gprs[9]), REG("r10", gprs[10]), REG("r11", gprs[11]),
	REG("r12", gprs[12]), REG("r13", gprs[13]), REG("r14", gprs[14]),
};

static inline void hook_set_arg(struct pt_regs *regs, unsigned int k, u64 value)
{
	if (!k)
		regs->orig_gpr2 = value;
	regs->gprs[2 + k] = value;
}

#elif defined(CONFIG_PPC64)

#define HOOK_PREFIXES "sys_", "compat_sys_", "ppc_", "ppc64_"

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", gpr[1]), REG("pc", nip), REG("lr", link), REG("ctr", ctr), REG("r0", gpr[0]),
	REG("r2", gpr[2]), REG("r3", orig_gpr3), REG("r4", gpr[4]), REG("r5", gpr[5]),
	REG("r6", gpr[6]), REG("r7", gpr[7]), REG("r8", gpr[8]), REG("r9", gpr[9]),
	REG("r10", gpr[10]), REG("r11", gpr[11]), REG("r12", gpr[12]), REG("r13", gpr[13]),
	REG("r14", gpr[14]), REG("r15", gpr[15]), REG("r16", gpr[16]), REG("r17", gpr[17]),
	REG("r18", gpr[18]), REG("r19", gpr[19]), REG("r20", gpr[20]), REG("r21", gpr[21]),
	REG("r22", gpr[22]), REG("r23", gpr[23]), REG("r24", gpr[24]), REG("r25", gpr[25]),
	REG("r26", gpr[26]), REG("r27", gpr[27]), REG("r28", gpr[28]), REG("r29", gpr[29]),
	REG("r30", gpr[30]), REG("r31", gpr[31]),
};

static inline void hook_set_arg(struct pt_regs *regs, unsigned int k, u64 value)
{
	if (!k)
		regs->orig_gpr3 = value;
	regs->gpr[3 + k] = value;
}

#elif defined(CONFIG_RISCV)

#define HOOK_PREFIXES "__riscv_sys_", "__riscv_compat_sys_", "sys_", "compat_sys_"

static const struct hook_reg hook_regs[] __maybe_unused = {
	REG("sp", sp), REG("pc", epc), REG("ra", ra), REG("gp", gp), REG("tp", tp),
	REG("a0", orig_a0), REG("a1", a1), REG("a2", a2), REG("a3", a3), REG("a4", a4),
	REG("a5", a5), REG("a6", a6), REG("a7", a7), REG("t0", t0), REG("t1", t1), REG("t2", t2),
	REG("t3", t3), REG("t4", t4), REG("t5", t5), REG("t6", t6), REG("s0", s0), REG("s1", s1),
	REG("s2", s2), REG("s3", s3), REG("s4", s4), REG("s5", s5), REG("s6", s6), REG("s7", s7),
	REG("s8", s8), REG("s9", s9), REG("s10", s10), REG("s11", s11),
};

static inline void hook_set_arg(struct pt_regs *regs, unsigned int k, u64 value)
{
	if (!k)
		regs->orig_a0 = value;
	(&regs->a0)[k] = value;
}

#else
#error "Kbuild has hooks only for these"
#endif

/* Besides those that end the task: calls that never return to who has called the function. */
#ifndef HOOK_LEAVING
#define HOOK_LEAVING
#endif

/* Calls whose arguments are not the program's. */
#ifndef HOOK_UNCHANGED
#define HOOK_UNCHANGED
#endif

/* Arguments have 32 bits, whatever is above them in the registers. */
static inline bool hook_args_are_32(void)
{
#if !defined(CONFIG_64BIT)
	return true;
#elif !defined(CONFIG_COMPAT)
	return false;
#elif defined(CONFIG_X86)
	return in_ia32_syscall();
#elif defined(CONFIG_MIPS)
	return test_thread_flag(TIF_32BIT_REGS);
#else
	return in_compat_syscall();
#endif
}

static inline u64 hook_reg_value(const struct pt_regs *regs, const struct hook_reg *reg)
{
	const void *at = (const u8 *)regs + reg->offset;

	return reg->size == sizeof(u64) ? *(const u64 *)at : *(const u32 *)at;
}

#ifdef CONFIG_X86
/* A landing pad for indirect branches: endbr64 or endbr32. */
static inline bool hook_is_pad(const void *at)
{
	static const u8 pad[4] = { 0xf3, 0x0f, 0x1e, IS_ENABLED(CONFIG_X86_64) ? 0xfa : 0xfb };

	return !memcmp(at, pad, 4);
}

/* What kernels have put there if nothing of their own branches to it. */
static inline bool hook_was_pad(const void *at)
{
	static const u8 sealed[2][4] = { { 0x66, 0x0f, 0x1f, 0x00 }, { 0x0f, 0x1f, 0x40, 0xd6 } };

	return !memcmp(at, sealed[0], 4) || !memcmp(at, sealed[1], 4);
}

/* The function tracer's place, while it has nothing to do. */
static inline bool hook_is_traced(const void *at)
{
	static const u8 nops[3][5] = {
		{ 0x0f, 0x1f, 0x44, 0x00, 0x00 },	/* of 64 bits ... */
		{ 0x66, 0x66, 0x66, 0x66, 0x90 },	/* ... before 5.13, on AMD's first */
		{ 0x3e, 0x8d, 0x74, 0x26, 0x00 },	/* of 32 */
	};

	return !memcmp(at, nops[0], 5) || !memcmp(at, nops[1], 5) || !memcmp(at, nops[2], 5);
}
#endif

/*
 * Where in a function the probe goes: bytes behind its beginning, all of them instructions
 * without effect.  Not where the function tracer has its own: that takes the kernel much
 * longer to change, and while it does, a processor that has met the old breakpoint late
 * takes it for a probe's that has none, and panics.  And a landing pad for indirect
 * branches must stay what it is.
 */
static inline unsigned int hook_probe_offset(const void *function)
{
	unsigned int offset = 0;
#ifdef CONFIG_X86
	if (hook_is_pad(function) || hook_was_pad(function))
		offset = 4;
	offset = hook_is_traced(function + offset) ? offset + 5 : 0;
#elif defined(CONFIG_RISCV)
	/* Room for two instructions; some kernels have the first of them there all the time. */
	static const u32 nop = 0x13, auipc_t0 = 0x297, compressed_nops = 0x10001;
	const u32 *room = function;

	if ((room[0] == nop || (room[0] & 0xfff) == auipc_t0) && room[1] == nop)
		offset = 8;
	else if (room[0] == compressed_nops && room[1] == compressed_nops)
		offset = 8;
#endif
	return offset;
}

/* How to call the function at this address: which instructions it has is part of that. */
static inline void *hook_function_at(unsigned long addr)
{
	return (void *)(addr | IS_ENABLED(CONFIG_THUMB2_KERNEL));
}

/* Can its beginning be known, and called?  NULL: it is known by its name alone. */
static inline bool hook_is_callable(const void *function)
{
#if defined(CONFIG_PPC64)
	/* By name it would be probed behind the instructions that find its own data. */
	return function;
#elif defined(CONFIG_X86_KERNEL_IBT)
	/* Where the processor checks it, pointers may lead to landing pads only. */
	return !boot_cpu_has(X86_FEATURE_IBT) ||
	       (function && (hook_is_pad(function) ||
			     (IS_ENABLED(CONFIG_FINEIBT) && hook_is_pad(function - 16))));
#else
	return true;
#endif
}

/* The beginning of a function that was found by its name; see above about landing pads. */
static inline unsigned long hook_probe_function(const struct kprobe *kprobe)
{
	unsigned long addr = (unsigned long)kprobe->addr;

#ifdef CONFIG_X86
	if (hook_is_pad((void *)(addr - 4)))
		addr -= 4;
#endif
	return addr;
}

/*
 * Functions are called that the compiler knows nothing of; some have it check that.  On x86 it
 * may, and must where the kernel makes its own check of it.
 */
#if defined(CONFIG_X86) || !defined(__nocfi)
#define HOOK_NOCFI
#else
#define HOOK_NOCFI	__nocfi
#endif

#ifdef CONFIG_ARCH_HAS_SYSCALL_WRAPPER

/* Not asmlinkage, which would be another place for the argument on i386. */
#define HOOK_LINKAGE
#define HOOK_WORDS	unsigned long w0
#define HOOK_PASS	w0

typedef long (*hook_function)(const struct pt_regs *regs);

/* changed: bits of the args that are others than the caller's. */
static inline HOOK_NOCFI long hook_function_call(void *function, const unsigned long *words,
						 const u64 *args, u8 changed)
{
	const struct pt_regs *regs = (const struct pt_regs *)words[0];
	struct pt_regs copy;
	unsigned int k;

	if (!changed)
		return ((hook_function)function)(regs);
	copy = *regs;
	for (k = 0; k < 6; k++)
		if (changed & BIT(k))
			hook_set_arg(&copy, k, args[k]);
	return ((hook_function)function)(&copy);
}

#else

#define HOOK_LINKAGE	asmlinkage
/* As many as the widest call has on any of these. */
#define HOOK_WORDS	unsigned long w0, unsigned long w1, unsigned long w2, unsigned long w3, \
			unsigned long w4, unsigned long w5, unsigned long w6, unsigned long w7
#define HOOK_PASS	w0, w1, w2, w3, w4, w5, w6, w7

typedef asmlinkage long (*hook_function)(HOOK_WORDS);

static inline HOOK_NOCFI long hook_function_call(void *function, const unsigned long *words,
						 const u64 *args, u8 changed)
{
	unsigned long w[8];
	unsigned int k;

	memcpy(w, words, sizeof(w));
	for (k = 0; k < 6; k++)
		if (changed & BIT(k))
			w[k] = args[k];
	return ((hook_function)function)(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
}

#endif

#endif
