// SPDX-License-Identifier: MIT
/*
 * fake_guest_caller: calls that somebody makes when a hook is set for them.
 *
 * The host's own calls cannot be hooked, so a name that a hook is set for has calls made:
 * fake_N_MS makes N calls, one every MS milliseconds; fake_N_MS_T has T threads do so.  Each
 * call matches, whatever the filter says, but `comm==TEXT` in it is the callers' comm.
 *
 *	arg0	counts the thread's calls
 *	arg1	the thread
 *	arg2	0x1000 and arg0: what the call returns
 *	arg3	what the thread's call before was made with as arg2, or 0
 *	arg4	1 if the call before was skipped
 *	arg5	what the call before returned to its caller
 *
 * So what a reply did to a call is seen in the next one.
 *
 * Two programs that a test may run in any guest are told of without being there: victim.c's
 * caller, who calls getppid, and sleep, who ends with exit_group.
 */
#include <stdio.h>
#include <string.h>

#include "tests/fake_guest_hook.h"

static const struct {
	const char *comm, *name;
	unsigned int n, ms;
	bool leaves;
} programs[] = {
	{ "caller", "getppid", 1000, 10 },
	{ "sleep", "exit_group", 1, 10, true },
};

/* Until there is a reply, or none need be waited for; with the lock held. */
static void call_wait(const struct caller *caller, uint64_t id, struct hypermem_verdict *ret)
{
	struct hook *hook = caller->hook;
	int64_t until = g_get_monotonic_time() + hook->timeout_ms * G_TIME_SPAN_MILLISECOND;
	struct waiter waiter = { .hook = hook, .leaves = caller->leaves };
	bool in_time = true;

	g_hash_table_insert(the_hooks.waiters, &id, &waiter);
	while (!waiter.replied && !waiter.abandoned && in_time)
		in_time = g_cond_wait_until(&the_hooks.changed, &the_hooks.lock, until);
	g_hash_table_remove(the_hooks.waiters, &id);
	if (waiter.replied) {
		*ret = waiter.verdict;
	} else if (waiter.abandoned) {
		hook->counts.abandoned++;
	} else {
		hook->counts.timed_out++;
	}
}

/* The call is looked at; *ret: how it goes on. */
static void call_stop(const struct caller *caller, uint32_t flags, const uint64_t args[6],
		      int64_t retval, struct hypermem_verdict *ret)
{
	struct hook *hook = caller->hook;
	bool waits = !(hook->flags & HYPER_HOOK_TRACE);
	uint64_t id = ++the_hooks.last_id;

	*ret = (struct hypermem_verdict){};
	hook->counts.matched++;
	if (!(hook->flags & HYPER_HOOK_ATTENDED)) {
		*(waits ? &hook->counts.unattended : &hook->counts.dropped) += 1;
		hook->lost++;
		return;
	}
	note_push(caller, id,
		  flags | (waits ? HYPER_EVENT_WAITS : 0) |
			  (caller->leaves ? HYPER_EVENT_LEAVES : 0),
		  args, retval);
	if (waits)
		call_wait(caller, id, ret);
}

static void call_enter(const struct caller *caller, uint64_t args[6], bool *ret_skip,
		       int64_t *ret_retval)
{
	struct hypermem_verdict verdict;
	uint32_t flags;

	call_stop(caller, 0, args, 0, &verdict);
	flags = GUINT32_FROM_LE(verdict.flags);
	for (size_t i = 0; i < G_N_ELEMENTS(verdict.args); i++)
		if (flags & HYPER_VERDICT_ARG(i))
			args[i] = GUINT64_FROM_LE(verdict.args[i]);
	*ret_skip = flags & (HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL);
	*ret_retval = flags & HYPER_VERDICT_RETVAL ? (int64_t)GUINT64_FROM_LE(verdict.retval) : 0;
}

/* With the lock held: the call, and what it leaves for the next one. */
static void call_make(const struct caller *caller, uint64_t i, uint64_t left[3])
{
	uint64_t args[6] = { i, caller->thread, 0x1000 + i, left[0], left[1], left[2] };
	uint32_t flags = caller->hook->flags;
	struct hypermem_verdict verdict;
	int64_t retval = 0;
	bool skip = false;

	if ((flags & HYPER_HOOK_ENABLED) && (flags & HYPER_HOOK_ENTER))
		call_enter(caller, args, &skip, &retval);
	if (caller->leaves)
		return;
	if (!skip)
		retval = (int64_t)args[2];
	if ((flags & HYPER_HOOK_ENABLED) && (flags & HYPER_HOOK_RETURN)) {
		call_stop(caller, HYPER_EVENT_RETURN | (skip ? HYPER_EVENT_SKIPPED : 0), args,
			  retval, &verdict);
		if (GUINT32_FROM_LE(verdict.flags) & HYPER_VERDICT_RETVAL)
			retval = (int64_t)GUINT64_FROM_LE(verdict.retval);
	}
	left[0] = args[2];
	left[1] = skip;
	left[2] = (uint64_t)retval;
}

static bool caller_goes_on(const struct caller *caller)
{
	return !caller->hook->gone && caller->hook->run == caller->run;
}

static gpointer caller_thread(gpointer data)
{
	g_autofree struct caller *caller = data;
	uint64_t left[3] = {};

	fake_guest_self(caller->guest, &caller->pid, &caller->stamp);
	g_mutex_lock(&the_hooks.lock);
	for (unsigned int i = 0; i < caller->n && caller_goes_on(caller); i++) {
		int64_t until = g_get_monotonic_time() + caller->ms * G_TIME_SPAN_MILLISECOND;

		while (caller_goes_on(caller) &&
		       g_cond_wait_until(&the_hooks.changed, &the_hooks.lock, until))
			;
		if (caller_goes_on(caller))
			call_make(caller, i, left);
	}
	hook_unref(caller->hook);
	g_mutex_unlock(&the_hooks.lock);
	return NULL;
}

static void callers_run(const struct caller *caller, unsigned int threads)
{
	for (unsigned int i = 0; i < threads; i++) {
		struct caller *one = g_new(struct caller, 1);

		*one = *caller;
		one->thread = i;
		caller->hook->refs++;
		g_thread_unref(g_thread_new("caller", caller_thread, one));
	}
}

static void callers_run_program(struct caller *caller)
{
	const struct hook *hook = caller->hook;

	for (size_t i = 0; i < G_N_ELEMENTS(programs); i++) {
		if (strcmp(hook->name, programs[i].name) || strcmp(hook->comm, programs[i].comm))
			continue;
		caller->n = programs[i].n;
		caller->ms = programs[i].ms;
		caller->leaves = programs[i].leaves;
		callers_run(caller, 1);
	}
}

void callers_start(struct fake_guest *guest, struct hook *hook)
{
	struct caller caller = { .guest = guest, .hook = hook, .run = ++hook->run };
	unsigned int threads = 1;

	if (sscanf(hook->name, "fake_%u_%u_%u", &caller.n, &caller.ms, &threads) >= 2)
		callers_run(&caller, threads);
	else
		callers_run_program(&caller);
}

bool callers_know(const char *name)
{
	static const char *const calls[] = { "*", "close", "exit_group", "getppid", "ioctl", "open",
					     "openat", "read", "write", NULL };

	return g_strv_contains(calls, name) || g_str_has_prefix(name, "fake_");
}
