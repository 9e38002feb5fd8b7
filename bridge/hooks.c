// SPDX-License-Identifier: MIT
/*
 * hooks: the hooks that there are, and the thread that hands out their events.  See hooks.h.
 */
#include "bridge/hooks.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "bridge/hook.h"

/* The guest has not answered sensibly: it is not asked again at once. */
#define SICK_US (100 * 1000)

/* The hooks that there are, each with a reference. */
static GPtrArray *hooks_all(struct hm_hooks *hooks)
{
	GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)hm_hook_free);
	GHashTableIter iter;
	gpointer hook;

	g_hash_table_iter_init(&iter, hooks->hooks);
	while (g_hash_table_iter_next(&iter, NULL, &hook)) {
		g_atomic_ref_count_inc(&((struct hm_hook *)hook)->refs);
		g_ptr_array_add(all, hook);
	}
	return all;
}

/* The session is over: nothing that waited waits any more. */
static void hooks_forget_session(struct hm_hooks *hooks)
{
	GHashTableIter iter;
	gpointer hook;

	g_mutex_lock(&hooks->lock);
	if (hooks->session) {
		hooks->session = 0;
		g_hash_table_iter_init(&iter, hooks->hooks);
		while (g_hash_table_iter_next(&iter, NULL, &hook)) {
			hm_hook_counts_keep(hook);
			hm_hook_queue_clear(hook);
		}
	}
	g_mutex_unlock(&hooks->lock);
}

static void hooks_begin_session(struct hm_hooks *hooks, uint32_t session)
{
	g_autoptr(GPtrArray) all = NULL;
	int rc = 0;

	hooks_forget_session(hooks);
	g_mutex_lock(&hooks->lock);
	hooks->session = session;
	all = hooks_all(hooks);
	g_mutex_unlock(&hooks->lock);
	for (guint i = 0; i < all->len && rc != -ENOTCONN; i++) {
		struct hm_hook *hook = g_ptr_array_index(all, i);

		if (hm_hook_lock(hook) < 0)
			continue;
		rc = hm_hook_tell(hook, session);
		hm_hook_unlock(hook);
		if (rc < 0 && rc != -ENOTCONN)
			g_warning("a hook could not be set in the guest again: %s", g_strerror(-rc));
	}
}

/* -ESRCH: it is of no hook (any more); -EPROTO: there has never been one. */
static int hooks_take_locked(struct hm_hooks *hooks, struct hm_event *event, bool *ret_kept)
{
	struct hm_hook *hook = g_hash_table_lookup(hooks->hooks, GUINT_TO_POINTER(event->hook));

	if (!hook)
		return event->hook && event->hook <= hooks->last_number ? -ESRCH : -EPROTO;
	if (g_hash_table_contains(hook->waiting, &event->id))
		return -EPROTO;
	*ret_kept = hm_hook_queue_push(hook, event);
	return 0;
}

static void hooks_take(struct hm_hooks *hooks, uint32_t session, struct hm_event *event)
{
	static const struct hm_verdict as_it_is;
	bool kept = false, waits = event->flags & HYPER_EVENT_WAITS;
	uint64_t id = event->id;
	int rc;

	g_mutex_lock(&hooks->lock);
	rc = hooks_take_locked(hooks, event, &kept);
	g_mutex_unlock(&hooks->lock);
	if (kept)
		return;
	if (rc == -EPROTO)
		hm_client_hook_complain(hooks->client, "has an event of no hook, or one twice");
	else if (waits)
		/* If that fails the guest has no link, or lets the call go in time. */
		hm_client_hook_post(hooks->client, session, id, &as_it_is);
	g_free(event);
}

/* Events of one session, until it is over (-ENOTCONN) or the guest cannot do it. */
static int hooks_serve(struct hm_hooks *hooks, uint32_t session)
{
	struct hm_hook_waits waits;
	int rc = 0;

	hm_hook_waits_init(&waits, hooks->client, session);
	while (rc == 0) {
		g_autoptr(GPtrArray) events = NULL;

		rc = hm_hook_waits_next(&waits, &events);
		for (guint i = 0; rc == 0 && i < events->len; i++)
			hooks_take(hooks, session,
				   g_steal_pointer(&g_ptr_array_index(events, i)));
		if (rc < 0 && rc != -ENOTCONN && rc != -EOPNOTSUPP && rc != -EPERM) {
			g_usleep(SICK_US);
			rc = 0;
		}
	}
	hm_hook_waits_deinit(&waits);
	return rc;
}

/* Nobody need wait any more. */
static void hooks_stop(struct hm_hooks *hooks)
{
	GHashTableIter iter;
	gpointer hook;

	hooks_forget_session(hooks);
	g_mutex_lock(&hooks->lock);
	hooks->stopped = true;
	g_hash_table_iter_init(&iter, hooks->hooks);
	while (g_hash_table_iter_next(&iter, NULL, &hook))
		hm_hook_queue_wake(hook);
	g_mutex_unlock(&hooks->lock);
}

static gpointer hooks_thread(gpointer arg)
{
	struct hm_hooks *hooks = arg;
	uint32_t session, last = 0;
	sigset_t all;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (hm_client_wait_session(hooks->client, last, &session) == 0) {
		hooks_begin_session(hooks, session);
		rc = hooks_serve(hooks, session);
		/* A guest that has no hooks is not asked again before it is another one. */
		last = session;
		if (rc == -ENOTCONN)
			hooks_forget_session(hooks);
	}
	hooks_stop(hooks);
	return NULL;
}

/* -- hooks ------------------------------------------------------------------------------------- */

struct hm_hooks *hm_hooks_new(struct hm_client *client)
{
	struct hm_hooks *hooks = g_new0(struct hm_hooks, 1);

	hooks->client = client;
	g_mutex_init(&hooks->lock);
	hooks->hooks = g_hash_table_new(NULL, NULL);
	return hooks;
}

void hm_hooks_free(struct hm_hooks *hooks)
{
	if (!hooks)
		return;
	if (hooks->thread)
		g_thread_join(hooks->thread);
	g_hash_table_unref(hooks->hooks);
	g_mutex_clear(&hooks->lock);
	g_free(hooks);
}

static struct hm_hook *hook_alloc(struct hm_hooks *hooks)
{
	struct hm_hook *hook = g_new0(struct hm_hook, 1);

	hook->hooks = hooks;
	g_atomic_ref_count_init(&hook->refs);
	sem_init(&hook->seat, 0, 1);
	sem_init(&hook->setting, 0, 1);
	hook->enabled = 1;
	hook->timeout_ms = HM_HOOK_TIMEOUT_MS;
	g_queue_init(&hook->events);
	hook->waiting = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
	return hook;
}

void hm_hook_free(struct hm_hook *hook)
{
	if (!hook || !g_atomic_ref_count_dec(&hook->refs))
		return;
	g_queue_clear_full(&hook->events, g_free);
	g_hash_table_unref(hook->waiting);
	sem_destroy(&hook->setting);
	sem_destroy(&hook->seat);
	g_free(hook->filter);
	g_free(hook);
}

/* With the lock held. */
static uint32_t hooks_pick_number(struct hm_hooks *hooks)
{
	do {
		hooks->last_number++;
	} while (!hooks->last_number ||
		 g_hash_table_contains(hooks->hooks, GUINT_TO_POINTER(hooks->last_number)));
	return hooks->last_number;
}

/* With the lock held. */
static int hooks_start(struct hm_hooks *hooks)
{
	if (!hooks->thread)
		hooks->thread = g_thread_try_new("hooks", hooks_thread, hooks, NULL);
	return hooks->thread ? 0 : -EAGAIN;
}

int hm_hook_new(struct hm_hooks *hooks, struct hm_hook **ret)
{
	struct hm_hook *hook;
	int rc = hm_client_hook_check(hooks->client);

	if (rc < 0)
		return rc;
	hook = hook_alloc(hooks);
	g_mutex_lock(&hooks->lock);
	rc = g_hash_table_size(hooks->hooks) < HYPER_HOOKS_MAX ? hooks_start(hooks) : -ENOSPC;
	if (rc == 0) {
		hook->number = hooks_pick_number(hooks);
		g_hash_table_insert(hooks->hooks, GUINT_TO_POINTER(hook->number), hook);
		*ret = hook;
	}
	g_mutex_unlock(&hooks->lock);
	if (rc < 0)
		hm_hook_free(hook);
	return rc;
}

int hm_hook_remove(struct hm_hook *hook)
{
	struct hm_hooks *hooks = hook->hooks;
	int rc = hm_hook_lock(hook);

	if (rc < 0)
		return rc;
	g_mutex_lock(&hooks->lock);
	g_hash_table_remove(hooks->hooks, GUINT_TO_POINTER(hook->number));
	hook->removed = true;
	hook->attended = false;
	hm_hook_queue_clear(hook);
	hm_hook_queue_wake(hook);
	g_mutex_unlock(&hooks->lock);
	hm_hook_settle(hook);
	/* If the guest does not hear of it: its events are let go when they come. */
	if (hook->told)
		hm_client_hook_remove(hooks->client, hook->number);
	hm_hook_unlock(hook);
	return 0;
}
