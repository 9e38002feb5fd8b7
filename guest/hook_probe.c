// SPDX-License-Identifier: GPL-2.0
/*
 * hook_probe: probes on the kernel's functions that are system calls.  See hook.h.
 *
 * The handler runs where nothing may sleep.  It looks at what can be looked at there, and
 * sends the call on its way by hook_call.c only if a hook may match.  A probe that has a
 * post_handler may change the instruction pointer: the kernel then does not turn it
 * into a jump, and has it alone at its function.
 */
#include <linux/kprobes.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <asm/syscall.h>

#include "compat.h"
#include "hook.h"
#include "hook_arch.h"
#include "hook_names.h"

static const char *const hook_prefixes[] = { HOOK_PREFIXES };

static LIST_HEAD(hook_probes);

/* The call as the caller has made it.  Some architectures fetch arguments from its stack. */
static void probe_look(struct hook_frame *frame)
{
	struct pt_regs *regs = current_pt_regs();
	unsigned long args[6] = { };
	unsigned int k;

	syscall_get_arguments(current, regs, args);
	for (k = 0; k < ARRAY_SIZE(args); k++)
		frame->args[k] = args[k];
	frame->nr = syscall_get_nr(current, regs);
	frame->compat = in_compat_syscall() && IS_ENABLED(CONFIG_64BIT);
}

static bool probe_may_match(const struct hook_set *set, const struct hook_frame *frame)
{
	u32 i;

	for (i = 0; i < set->n; i++) {
		const struct hook *hook = set->hooks[i];

		if ((hook->flags & HYPER_HOOK_ENABLED) && !READ_ONCE(hook->gone) &&
		    hook_filter(hook, frame, false, false) != HOOK_NO)
			return true;
	}
	return false;
}

static void probe_missed(const struct hook_set *set)
{
	u32 i;

	for (i = 0; i < set->n; i++)
		atomic64_inc(&set->hooks[i]->counts->missed);
}

static int probe_handle(struct kprobe *kprobe, struct pt_regs *regs)
{
	struct hook_probe *probe = container_of(kprobe, struct hook_probe, kprobe);
	struct hook_frame look, *frame;
	const struct hook_set *set;
	int rc = 0;

	if ((current->flags & PF_KTHREAD) || !current->mm || hook_frame_passes())
		return 0;
	rcu_read_lock();
	set = rcu_dereference(probe->set);
	if (set) {
		pagefault_disable();
		probe_look(&look);
		rc = probe_may_match(set, &look);
		pagefault_enable();
	}
	if (rc) {
		frame = hook_frame_take(probe);
		if (frame) {
			hypermem_redirect(regs, hook_call_entry());
		} else {
			probe_missed(set);
			rc = 0;
		}
	}
	rcu_read_unlock();
	return rc;
}

static void probe_handled(struct kprobe *kprobe, struct pt_regs *regs, unsigned long flags)
{
}

struct hook_set *hook_probe_set(struct hook_probe *probe)
{
	struct hook_set *set;

	rcu_read_lock();
	set = rcu_dereference(probe->set);
	if (set && !refcount_inc_not_zero(&set->refs))
		set = NULL;
	rcu_read_unlock();
	return set;
}

void hook_probe_put(struct hook_probe *probe)
{
	if (refcount_dec_and_test(&probe->refs))
		kfree(probe);
}

static struct hook_probe *probe_find(const char *symbol)
{
	struct hook_probe *probe;

	list_for_each_entry(probe, &hook_probes, node)
		if (!strcmp(probe->symbol, symbol))
			return probe;
	return NULL;
}

/* A probe that nobody has yet; NULL: there is no such function, or it cannot be probed. */
static struct hook_probe *probe_new(const char *prefix, const char *call)
{
	struct hook_probe *probe = kzalloc(sizeof(*probe), GFP_KERNEL);

	if (!probe)
		return NULL;
	snprintf(probe->symbol, sizeof(probe->symbol), "%s%s", prefix, call);
	probe->call = probe->symbol + strlen(prefix);
	probe->exits = !strcmp(call, "exit") || !strcmp(call, "exit_group");
	probe->kprobe.symbol_name = probe->symbol;
	probe->kprobe.pre_handler = probe_handle;
	probe->kprobe.post_handler = probe_handled;
	refcount_set(&probe->refs, 1);
	if (register_kprobe(&probe->kprobe)) {
		kfree(probe);
		return NULL;
	}
	list_add_tail(&probe->node, &hook_probes);
	return probe;
}

/* The hook's from now on; once, whatever names lead to it. */
static void probe_add(struct hook *hook, struct hook_probe *probe)
{
	u32 i;

	for (i = 0; i < hook->n_probes; i++)
		if (hook->probes[i] == probe)
			return;
	refcount_inc(&probe->refs);
	hook->probes[hook->n_probes++] = probe;
}

static void probes_find_name(struct hook *hook, const char *call)
{
	char symbol[KSYM_NAME_LEN];
	struct hook_probe *probe;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hook_prefixes) && hook->n_probes < hook->max_probes; i++) {
		snprintf(symbol, sizeof(symbol), "%s%s", hook_prefixes[i], call);
		probe = probe_find(symbol) ?: probe_new(hook_prefixes[i], call);
		if (probe)
			probe_add(hook, probe);
	}
}

static void probes_find_all(struct hook *hook)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hook_names); i++) {
		probes_find_name(hook, hook_names[i]);
		cond_resched();
	}
	for (i = 0; i < ARRAY_SIZE(hook_aliases); i++)
		probes_find_name(hook, hook_aliases[i].kernel);
}

/* A name is that of a symbol, without characters that no symbol has. */
static bool name_is_sane(const char *name)
{
	return *name && strlen(name) < HYPER_CALL_NAME_SIZE &&
	       !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")];
}

static int probes_find(struct hook *hook, const char *name)
{
	unsigned int i;

	if (!strcmp(name, "*")) {
		probes_find_all(hook);
		return 0;
	}
	if (!name_is_sane(name))
		return -EINVAL;
	probes_find_name(hook, name);
	for (i = 0; i < ARRAY_SIZE(hook_aliases); i++)
		if (!strcmp(hook_aliases[i].abi, name))
			probes_find_name(hook, hook_aliases[i].kernel);
	return 0;
}

#define NAMES_MAX (ARRAY_SIZE(hook_names) + ARRAY_SIZE(hook_aliases))

/* A name stands for itself and a few others at most, and "*" for all. */
static u32 probes_max(const struct hook *hook)
{
	const char *name;
	u32 n = 0;

	for (name = hook->names; name < hook->names + hook->names_size; name += strlen(name) + 1)
		n += strcmp(name, "*") ? 8 : NAMES_MAX;
	return min_t(u32, n, NAMES_MAX) * ARRAY_SIZE(hook_prefixes);
}

int hook_probes_find(struct hook *hook)
{
	const char *name;
	int rc = 0;

	hook->max_probes = probes_max(hook);
	hook->probes = kvcalloc(hook->max_probes, sizeof(*hook->probes), GFP_KERNEL);
	if (!hook->probes)
		return -ENOMEM;
	for (name = hook->names; name < hook->names + hook->names_size && !rc;
	     name += strlen(name) + 1)
		rc = probes_find(hook, name);
	if (!rc && !hook->n_probes)
		rc = -ENOENT;
	return rc;
}

static struct hook_set *set_new(u32 n)
{
	struct hook_set *set = kzalloc(struct_size(set, hooks, n), GFP_KERNEL);

	if (set)
		refcount_set(&set->refs, 1);
	return set;
}

static void set_add(struct hook_set *set, struct hook *hook)
{
	hook_get(hook);
	set->hooks[set->n++] = hook;
}

/* The set with `add` and without `remove`; *ret is NULL if nothing is left. */
static int set_change(const struct hook_set *old, struct hook *add, const struct hook *remove,
		      struct hook_set **ret)
{
	u32 i, n = old ? old->n : 0;
	struct hook_set *set = set_new(n + 1);

	if (!set)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		if (add && add->number < old->hooks[i]->number) {
			set_add(set, add);
			add = NULL;
		}
		if (old->hooks[i] != remove && old->hooks[i] != add)
			set_add(set, old->hooks[i]);
	}
	if (add)
		set_add(set, add);
	if (!set->n) {
		kfree(set);
		set = NULL;
	}
	*ret = set;
	return 0;
}

static int probe_change(struct hook_probe *probe, struct hook *add, const struct hook *remove)
{
	struct hook_set *old = rcu_dereference_protected(probe->set, true), *set;
	int rc = set_change(old, add, remove, &set);

	if (rc)
		return rc;
	rcu_assign_pointer(probe->set, set);
	if (old)
		hook_set_put(old);
	return 0;
}

int hook_probes_change(struct hook *add, struct hook *remove)
{
	u32 i;
	int rc;

	for (i = 0; add && i < add->n_probes; i++) {
		rc = probe_change(add->probes[i], add, NULL);
		if (rc)
			return rc;
	}
	/* Without memory it stays in the set; it has gone, so it does not match. */
	for (i = 0; remove && i < remove->n_probes; i++)
		probe_change(remove->probes[i], NULL, remove);
	return 0;
}

/* Some at a time: the kernel waits for its processors once for all of them. */
static unsigned int probes_sweep_some(void)
{
	static struct kprobe *kprobes[64];
	struct hook_probe *probe, *next;
	unsigned int n = 0, i;

	list_for_each_entry_safe(probe, next, &hook_probes, node) {
		if (rcu_access_pointer(probe->set) || n == ARRAY_SIZE(kprobes))
			continue;
		list_del(&probe->node);
		kprobes[n++] = &probe->kprobe;
	}
	if (n)
		unregister_kprobes(kprobes, n);
	for (i = 0; i < n; i++)
		hook_probe_put(container_of(kprobes[i], struct hook_probe, kprobe));
	return n;
}

void hook_probes_sweep(void)
{
	while (probes_sweep_some())
		;
}
