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
#include <linux/pid_namespace.h>
#include <linux/preempt.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "hook.h"
#include "hook_arch.h"
#include "hook_step.h"
#include "hook_text.h"

static LIST_HEAD(hook_probes);

/* Calls after which the caller may have another comm, or another uid. */
static const char *const hook_renaming[] = {
	"execve", "execveat", "prctl", "setuid", "setreuid", "setresuid", "setuid16",
	"setreuid16", "setresuid16", NULL,
};

static const char *const hook_leaving[] = { "exit", "exit_group", HOOK_LEAVING NULL };

static const char *const hook_unchanged[] = { HOOK_UNCHANGED NULL };

/*
 * Some machines have interrupts off here: so many tests are run, of 16 bytes at most, and
 * what is behind them is left to hook_call.c, which can be preempted.
 */
#define PROBE_TESTS_MAX	1024

static bool probe_may_match(const struct hook_set *set, const struct hook_frame *frame)
{
	u32 i, tests = 0;

	for (i = 0; i < set->n; i++) {
		const struct hook *hook = set->hooks[i];

		if (!(hook->flags & HYPER_HOOK_ENABLED) || READ_ONCE(hook->gone))
			continue;
		tests += hook->n_tests;
		if (tests > PROBE_TESTS_MAX || hook_filter(hook, frame, false) != HOOK_NO)
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

/*
 * There reboot() ends the task that calls it, or fails, and nobody can say which before it has.
 * So it would leave frames behind.
 */
static bool probe_may_end_task(const struct hook_probe *probe)
{
	return probe->reboots && task_active_pid_ns(current) != &init_pid_ns;
}

/* Send the call to hook_call.c, if it may be for a hook. */
static bool probe_redirects(struct hook_probe *probe, struct pt_regs *regs)
{
	struct hook_frame look, *frame;
	const struct hook_set *set;
	bool rc = false;

	if ((current->flags & PF_KTHREAD) || !current->mm || hook_frame_passes(probe))
		return false;
	rcu_read_lock();
	set = rcu_dereference(probe->set);
	if (set) {
		pagefault_disable();
		look.probe = probe;
		look.returns = false;
		hook_call_look(&look);
		rc = probe_may_match(set, &look);
		pagefault_enable();
	}
	if (rc) {
		frame = probe_may_end_task(probe) ? NULL : hook_frame_take(probe);
		if (frame) {
			hypermem_redirect(regs, hook_call_entry());
		} else {
			probe_missed(set);
			rc = false;
		}
	}
	rcu_read_unlock();
	return rc;
}

static int probe_handle(struct kprobe *kprobe, struct pt_regs *regs)
{
	struct hook_probe *probe = container_of(kprobe, struct hook_probe, kprobe);

	return probe_redirects(probe, regs) || hook_step(kprobe, regs);
}

static void probe_handled(struct kprobe *kprobe, struct pt_regs *regs, unsigned long flags)
{
}

struct hook *hook_probe_next(struct hook_probe *probe, u32 number)
{
	const struct hook_set *set;
	struct hook *hook = NULL;
	u32 i = 0;

	rcu_read_lock();
	set = rcu_dereference(probe->set);
	while (set && i < set->n &&
	       (set->hooks[i]->number <= number || READ_ONCE(set->hooks[i]->gone)))
		i++;
	if (set && i < set->n) {
		hook = set->hooks[i];
		hook_get(hook);
	}
	rcu_read_unlock();
	return hook;
}

void hook_probe_restarts(struct hook_probe *probe)
{
	const struct hook_set *set;
	u32 i;

	rcu_read_lock();
	set = rcu_dereference(probe->set);
	for (i = 0; set && i < set->n; i++)
		if (set->hooks[i]->flags & HYPER_HOOK_RETURN)
			atomic64_inc(&set->hooks[i]->counts->restarted);
	rcu_read_unlock();
}

void hook_probe_put(struct hook_probe *probe)
{
	if (refcount_dec_and_test(&probe->refs))
		kfree(probe);
}

/* A call without arguments is one function by the names of several ABIs. */
static bool symbol_is_same(const struct hook_symbol *a, const struct hook_symbol *b)
{
	return a == b || (a->addr && a->addr == b->addr &&
			  !strcmp(a->name + a->call, b->name + b->call));
}

static struct hook_probe *probe_find(const struct hook_symbol *symbol)
{
	struct hook_probe *probe;

	list_for_each_entry(probe, &hook_probes, node)
		if (symbol_is_same(probe->symbol, symbol))
			return probe;
	return NULL;
}

static bool hook_has_probe(const struct hook *hook, const struct hook_probe *probe)
{
	u32 i;

	for (i = 0; i < hook->n_probes; i++)
		if (hook->probes[i] == probe)
			return true;
	return false;
}

static kprobe_opcode_t *symbol_place(const struct hook_symbol *symbol)
{
	return (kprobe_opcode_t *)(symbol->addr + hook_probe_offset((void *)symbol->addr));
}

static bool call_is(const char *call, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(call, *list))
			return true;
	return false;
}

/* A probe that nobody has yet; NULL: the function cannot be probed. */
static struct hook_probe *probe_new(const struct hook_symbol *symbol)
{
	struct hook_probe *probe;
	struct kprobe *kprobe;

	if (!hook_is_callable((void *)symbol->addr) || !hook_step_is_known((void *)symbol->addr))
		return NULL;
	probe = kzalloc(sizeof(*probe), GFP_KERNEL);
	if (!probe)
		return NULL;
	probe->symbol = symbol;
	probe->call = symbol->name + symbol->call;
	probe->leaves = call_is(probe->call, hook_leaving);
	probe->renames = call_is(probe->call, hook_renaming);
	probe->unchanged = call_is(probe->call, hook_unchanged);
	probe->reboots = !strcmp(probe->call, "reboot");
	if (symbol->addr)
		probe->kprobe.addr = symbol_place(symbol);
	else
		probe->kprobe.symbol_name = symbol->name;
	probe->kprobe.pre_handler = probe_handle;
	probe->kprobe.post_handler = probe_handled;
	refcount_set(&probe->refs, 1);
	if (register_kprobe(&probe->kprobe)) {
		kfree(probe);
		return NULL;
	}
	kprobe = &probe->kprobe;
	hook_text_settle(&kprobe, 1);
	probe->function = hook_function_at(symbol->addr ?: hook_probe_function(&probe->kprobe));
	list_add_tail(&probe->node, &hook_probes);
	return probe;
}

static bool hook_names_symbol(const struct hook *hook, const struct hook_symbol *symbol)
{
	const char *name;

	for (name = hook->names; name < hook->names + hook->names_size; name += strlen(name) + 1)
		if (hook_symbol_is(symbol, name))
			return true;
	return false;
}

int hook_probes_find(struct hook *hook)
{
	const struct hook_symbol *symbol = NULL;
	struct hook_probe *probe;
	int rc = hook_symbols_find();

	if (rc)
		return rc;
	hook->probes = kvcalloc(hook_symbols_max(), sizeof(*hook->probes), GFP_KERNEL);
	if (!hook->probes)
		return -ENOMEM;
	while ((symbol = hook_symbol_next(symbol))) {
		cond_resched();
		if (!hook_names_symbol(hook, symbol))
			continue;
		probe = probe_find(symbol) ?: probe_new(symbol);
		if (!probe || (probe->symbol != symbol && hook_has_probe(hook, probe)))
			continue;
		refcount_inc(&probe->refs);
		hook->probes[hook->n_probes++] = probe;
	}
	return hook->n_probes ? 0 : -ENOENT;
}

static void set_free(struct rcu_head *rcu)
{
	struct hook_set *set = container_of(rcu, struct hook_set, rcu);
	u32 i;

	for (i = 0; i < set->n; i++)
		hook_put(set->hooks[i]);
	kfree(set);
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
	struct hook_set *set = kzalloc(struct_size(set, hooks, n + 1), GFP_KERNEL);

	if (!set)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		if (old->hooks[i] == remove || old->hooks[i] == add)
			continue;
		if (add && add->number < old->hooks[i]->number) {
			set_add(set, add);
			add = NULL;
		}
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
		call_rcu(&old->rcu, set_free);
	return 0;
}

/* Where both have a probe, each call sees one of the two. */
int hook_probes_change(struct hook *add, struct hook *remove)
{
	u32 i;
	int rc;

	for (i = 0; add && i < add->n_probes; i++) {
		cond_resched();
		rc = probe_change(add->probes[i], add, remove);
		if (rc)
			return rc;
	}
	/* Without memory it stays in the set; it has gone, so it does not match. */
	for (i = 0; remove && i < remove->n_probes; i++) {
		cond_resched();
		probe_change(remove->probes[i], NULL, remove);
	}
	return 0;
}

/*
 * true: it has no hooks any more.  Such as have gone may still be in its set, for want of
 * memory to make another one.
 */
static bool probe_retires(struct hook_probe *probe)
{
	struct hook_set *set = rcu_dereference_protected(probe->set, true);
	u32 i;

	if (!set)
		return true;
	for (i = 0; i < set->n; i++)
		if (!set->hooks[i]->gone)
			return false;
	rcu_assign_pointer(probe->set, NULL);
	call_rcu(&set->rcu, set_free);
	return true;
}

/* Some at a time: the kernel waits for its processors once for all of them. */
bool hook_probes_sweep(void)
{
	static struct kprobe *kprobes[64];
	struct hook_probe *probe, *next;
	unsigned int n = 0, i;

	list_for_each_entry_safe(probe, next, &hook_probes, node) {
		if (n == ARRAY_SIZE(kprobes))
			break;
		if (!probe_retires(probe))
			continue;
		list_del(&probe->node);
		kprobes[n++] = &probe->kprobe;
	}
	if (n) {
		hook_text_leave(kprobes, n);
		unregister_kprobes(kprobes, n);
	}
	for (i = 0; i < n; i++) {
		probe = container_of(kprobes[i], struct hook_probe, kprobe);
		hook_frames_forget(probe);
		hook_probe_put(probe);
	}
	return n == ARRAY_SIZE(kprobes);
}
