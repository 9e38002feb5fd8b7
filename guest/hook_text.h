/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook_text: instructions that probes change, and processors that go on with the ones before.
 * See hook.h.
 *
 * An emulator may have a processor translate an instruction while another one changes it, and
 * keep the translation: QEMU before 8.1 does, with a thread for each processor.  Then a probe
 * is not met, or a breakpoint that has gone is: for ever, since the kernel sees that there is
 * none, and lets the processor try again.  But what QEMU keeps goes at the next change to that
 * place.  So once each processor has done something else, the same instruction is stored again,
 * at another address of its memory.  Other architectures have not been seen to need it.
 */
#ifndef HYPERMEM_HOOK_TEXT_H
#define HYPERMEM_HOOK_TEXT_H

#include <linux/kprobes.h>
#include <linux/types.h>

#if defined(CONFIG_PPC64) || defined(CONFIG_X86)

#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/smp.h>
#include <linux/vmalloc.h>

/* What is there stays, whoever changes it meanwhile. */
static inline void hook_text_store(const void *addr)
{
	struct page *page = virt_to_page(addr);
	void *alias = vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	kprobe_opcode_t *at, is;

	if (!alias)
		return;
	at = alias + offset_in_page(addr);
	is = READ_ONCE(*at);
	cmpxchg(at, is, is);
	vunmap(alias);
}

/* The probes have been changed. */
static inline void hook_text_settle(struct kprobe *const *kprobes, unsigned int n)
{
	unsigned int i;

	kick_all_cpus_sync();
	for (i = 0; i < n; i++)
		hook_text_store(kprobes[i]->addr);
}

/* While the kernel still knows them, a breakpoint that has gone harms nobody. */
static inline void hook_text_leave(struct kprobe *const *kprobes, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		disable_kprobe(kprobes[i]);
	hook_text_settle(kprobes, n);
}

#else

static inline void hook_text_settle(struct kprobe *const *kprobes, unsigned int n)
{
}

static inline void hook_text_leave(struct kprobe *const *kprobes, unsigned int n)
{
}

#endif

#endif
