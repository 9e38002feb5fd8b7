// SPDX-License-Identifier: GPL-2.0
/*
 * hook: hooks and their operations.  See hook.h.
 *
 * A hook belongs to a session.  What is looked at without a lock, in probes and in calls,
 * is freed after a grace period.
 */
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "hook.h"
#include "link.h"

static DEFINE_MUTEX(hook_mutex);	/* which hooks and probes there are */

/* -- what keeps what -------------------------------------------------------------------------- */

static void counts_put(struct hook_counts *counts)
{
	if (counts && refcount_dec_and_test(&counts->refs))
		kfree(counts);
}

static void home_put(struct hook_home *home)
{
	if (!home || !refcount_dec_and_test(&home->refs))
		return;
	kfree(home);
}

void hook_get(struct hook *hook)
{
	refcount_inc(&hook->refs);
}

void hook_put(struct hook *hook)
{
	u32 i;

	if (!refcount_dec_and_test(&hook->refs))
		return;
	for (i = 0; i < hook->n_probes; i++)
		hook_probe_put(hook->probes[i]);
	kvfree(hook->probes);
	counts_put(hook->counts);
	home_put(hook->home);
	kfree(hook);
}

/* -- homes ------------------------------------------------------------------------------------- */

struct hook_home *hook_home_of(struct hypermem_link *link)
{
	struct hook_home *home = READ_ONCE(link->hooks), *other;

	if (home)
		return home;
	home = kzalloc(sizeof(*home), GFP_KERNEL);
	if (!home)
		return NULL;
	refcount_set(&home->refs, 1);
	home->link = link;
	INIT_LIST_HEAD(&home->hooks);
	hook_events_init(home);
	other = cmpxchg(&link->hooks, NULL, home);
	if (!other)
		return home;
	kfree(home);
	return other;
}

static struct hook *home_find(const struct hook_home *home, u64 number)
{
	struct hook *hook;

	list_for_each_entry(hook, &home->hooks, node)
		if (hook->number == number)
			return hook;
	return NULL;
}

/* -- probes that nobody needs ------------------------------------------------------------------ */

/* In the background, and only some before others have a turn: each takes milliseconds. */
static void hooks_sweep(struct work_struct *work)
{
	bool more;

	do {
		mutex_lock(&hook_mutex);
		more = hook_probes_sweep();
		mutex_unlock(&hook_mutex);
	} while (more);
}

static DECLARE_WORK(hook_sweeper, hooks_sweep);

/* -- operations -------------------------------------------------------------------------------- */

static struct hook_counts *counts_of(const struct hook *old)
{
	struct hook_counts *counts;

	if (old) {
		refcount_inc(&old->counts->refs);
		return old->counts;
	}
	counts = kzalloc(sizeof(*counts), GFP_KERNEL);
	if (counts)
		refcount_set(&counts->refs, 1);
	return counts;
}

static bool hook_lets_wait(const struct hook *hook)
{
	const u32 needed = HYPER_HOOK_ENABLED | HYPER_HOOK_ATTENDED;

	return (hook->flags & needed) == needed && !(hook->flags & HYPER_HOOK_TRACE);
}

/* Out of the list, for good; the list's reference is the caller's now. */
static void hook_retire(struct hook *hook)
{
	WRITE_ONCE(hook->gone, true);
	list_del(&hook->node);
	hook->home->n_hooks--;
}

/* With hook_mutex held; `hook` is new and has the caller's reference. */
static int hook_install(struct hook_home *home, struct hook *hook)
{
	struct hook *old = home_find(home, hook->number);
	int rc;

	if (!old && home->n_hooks == HYPER_HOOKS_MAX)
		return -ENOSPC;
	hook->counts = counts_of(old);
	if (!hook->counts || hook_events_open(home))
		return -ENOMEM;
	refcount_inc(&home->refs);
	hook->home = home;
	rc = hook_probes_find(hook);
	if (!rc)
		rc = hook_probes_change(hook, old);
	if (rc) {
		WRITE_ONCE(hook->gone, true);
		hook_probes_change(old, hook);
		return rc;
	}
	hook_get(hook);
	list_add(&hook->node, &home->hooks);
	home->n_hooks++;
	if (old) {
		hook_retire(old);
		if (!hook_lets_wait(hook))
			hook_frames_abandon(old);
		hook_probes_change(NULL, old);
		hook_put(old);
	}
	return 0;
}

/*
 * Its session has ended, or is about to: nobody would take away what it sets, and what it means
 * may be another session's by now.  Under hook_mutex, which the end of a session takes, too.
 */
static bool request_is_late(const struct hypermem_request *request)
{
	return request->session != READ_ONCE(request->link->session);
}

int hypermem_hook_set(struct hypermem_request *request)
{
	struct hook_home *home = hook_home_of(request->link);
	struct hook *hook;
	int rc;

	if (!home)
		return -ENOMEM;
	rc = hypermem_hook_decode(request, &hook);
	if (rc)
		return rc;
	refcount_set(&hook->refs, 1);
	rc = hook_filter_check(hook);
	if (!rc) {
		mutex_lock(&hook_mutex);
		rc = request_is_late(request) ? -ESTALE : hook_install(home, hook);
		mutex_unlock(&hook_mutex);
		schedule_work(&hook_sweeper);
	}
	hook_put(hook);
	request->out_size = rc ? 0 : request->header.size;
	return rc;
}

static void hook_remove(struct hook *hook)
{
	hook_retire(hook);
	hook_frames_abandon(hook);
	hook_probes_change(NULL, hook);
	hook_put(hook);
}

int hypermem_hook_remove(struct hypermem_request *request)
{
	struct hook_home *home = hook_home_of(request->link);
	struct hook *hook;

	if (!home)
		return -ENOMEM;
	mutex_lock(&hook_mutex);
	hook = request_is_late(request) ? NULL : home_find(home, request->header.addr);
	if (hook)
		hook_remove(hook);
	mutex_unlock(&hook_mutex);
	schedule_work(&hook_sweeper);
	return hook ? 0 : -ENOENT;
}

int hypermem_hook_reply(struct hypermem_request *request)
{
	struct hook_home *home = hook_home_of(request->link);
	struct hook_verdict verdict;
	int rc;

	if (!home)
		return -ENOMEM;
	rc = hypermem_verdict_decode(request, &verdict);
	if (!rc)
		rc = hook_frame_reply(home, request->header.addr, &verdict);
	request->out_size = rc ? 0 : request->header.size;
	return rc;
}

int hypermem_hook_counts(struct hypermem_request *request)
{
	struct hook_home *home = hook_home_of(request->link);
	struct hook *hook;

	if (!home)
		return -ENOMEM;
	mutex_lock(&hook_mutex);
	hook = home_find(home, request->header.addr);
	if (hook)
		hypermem_put_counts(request, hook->counts);
	mutex_unlock(&hook_mutex);
	return hook ? 0 : -ENOENT;
}

/* -- the end ----------------------------------------------------------------------------------- */

void hypermem_hooks_forget(struct hypermem_link *link)
{
	struct hook_home *home = READ_ONCE(link->hooks);
	struct hook *hook, *next;

	if (!home)
		return;
	mutex_lock(&hook_mutex);
	list_for_each_entry_safe(hook, next, &home->hooks, node)
		hook_remove(hook);
	mutex_unlock(&hook_mutex);
	schedule_work(&hook_sweeper);
	hook_events_close(home);
}

void hypermem_hooks_deinit(struct hypermem_link *link)
{
	hypermem_hooks_forget(link);
	home_put(link->hooks);
}

void hypermem_hooks_init(void)
{
	hook_frames_refill();
}

void hypermem_hooks_exit(void)
{
	flush_work(&hook_sweeper);
	hook_frames_exit();
	rcu_barrier();
	hook_symbols_forget();
}
