// SPDX-License-Identifier: MIT
/*
 * hook: what is done with a hook: set, read, replied to.  See hooks.h.
 */
#include "bridge/hook.h"

#include <errno.h>

/*
 * The reader before may have closed it, and the kernel not have said so yet.  Once it has,
 * the next one waits until the guest has heard that this one left, however long that takes;
 * so often it looks whether that is so.
 */
#define BUSY_PATIENCE (250 * G_TIME_SPAN_MILLISECOND)

static uint32_t hook_state(struct hm_hook *hook)
{
	bool attended;

	g_mutex_lock(&hook->hooks->lock);
	attended = hook->attended;
	g_mutex_unlock(&hook->hooks->lock);
	return (hook->enabled ? HYPER_HOOK_ENABLED : 0) | (attended ? HYPER_HOOK_ATTENDED : 0);
}

int hm_hook_settle(struct hm_hook *hook)
{
	if (!hook->undoing)
		return 0;
	hook->undoing = false;
	return hm_client_hook_undone(hook->hooks->client, &hook->undo);
}

int hm_hook_tell(struct hm_hook *hook, uint32_t session)
{
	int rc;

	if (!hook->filter)
		return 0;
	rc = hm_hook_settle(hook);
	if (rc < 0)
		return rc;
	hook->told = true;
	return hm_client_hook_set(hook->hooks->client, session, hook->number, hook->filter,
				  hook_state(hook), (uint32_t)hook->timeout_ms);
}

/*
 * It could not be told of what it should have been, and is as before.  If the guest has
 * not answered, it may do what it was told all the same, so it is told to do this then.
 */
static void hook_untell(struct hm_hook *hook, int rc)
{
	if (rc != -ETIMEDOUT && rc != -EINTR)
		return;
	hook->undoing = hm_client_hook_undo(hook->hooks->client, &hook->undo, hook->number,
					    hook->filter, hook_state(hook),
					    (uint32_t)hook->timeout_ms) == 0;
}

static bool hook_is_removed(struct hm_hook *hook)
{
	bool removed;

	g_mutex_lock(&hook->hooks->lock);
	removed = hook->removed;
	g_mutex_unlock(&hook->hooks->lock);
	return removed;
}

/* No signal ends it: what must be done is done. */
static void hook_lock_always(struct hm_hook *hook)
{
	while (sem_wait(&hook->setting) < 0)
		;
}

int hm_hook_lock(struct hm_hook *hook)
{
	int rc = hm_client_sem_wait(hook->hooks->client, &hook->setting, INT64_MAX);

	if (rc == 0 && hook_is_removed(hook)) {
		sem_post(&hook->setting);
		rc = -ENODEV;
	}
	return rc;
}

void hm_hook_unlock(struct hm_hook *hook)
{
	sem_post(&hook->setting);
}

/* -- what it does ------------------------------------------------------------------------------- */

int hm_hook_set_filter(struct hm_hook *hook, const struct hm_filter *filter)
{
	struct hm_filter *old, *new;
	int rc = hm_hook_lock(hook);

	if (rc < 0)
		return rc;
	old = hook->filter;
	new = hook->filter = g_new(struct hm_filter, 1);
	*new = *filter;
	g_atomic_int_set(&hook->regs, !!(new->flags & HYPER_HOOK_REGS));
	rc = hm_hook_tell(hook, 0);
	if (rc < 0) {
		hook->filter = old;
		g_atomic_int_set(&hook->regs, old && (old->flags & HYPER_HOOK_REGS));
		hook_untell(hook, rc);
		g_free(new);
	} else {
		g_free(old);
	}
	hm_hook_unlock(hook);
	return rc;
}

static int hook_set_number(struct hm_hook *hook, gint *number, gint value)
{
	int rc = hm_hook_lock(hook);
	gint old;

	if (rc < 0)
		return rc;
	old = *number;
	g_atomic_int_set(number, value);
	rc = hm_hook_tell(hook, 0);
	if (rc < 0) {
		g_atomic_int_set(number, old);
		hook_untell(hook, rc);
	}
	hm_hook_unlock(hook);
	return rc;
}

int hm_hook_set_enabled(struct hm_hook *hook, bool enabled)
{
	return hook_set_number(hook, &hook->enabled, enabled);
}

int hm_hook_set_timeout(struct hm_hook *hook, uint32_t timeout_ms)
{
	return hook_set_number(hook, &hook->timeout_ms, (gint)timeout_ms);
}

bool hm_hook_enabled(struct hm_hook *hook)
{
	return g_atomic_int_get(&hook->enabled);
}

uint32_t hm_hook_timeout(struct hm_hook *hook)
{
	return (uint32_t)g_atomic_int_get(&hook->timeout_ms);
}

/* -- who reads its events ---------------------------------------------------------------------- */

/* 0: the reader that it has is leaving. */
static int hook_check_busy(struct hm_hook *hook)
{
	int rc;

	g_mutex_lock(&hook->hooks->lock);
	rc = hook->removed ? -ENODEV : hook->attended ? -EBUSY : 0;
	g_mutex_unlock(&hook->hooks->lock);
	return rc;
}

static int hook_wait_seat(struct hm_hook *hook)
{
	int rc;

	do {
		rc = hm_client_sem_wait(hook->hooks->client, &hook->seat,
					g_get_monotonic_time() + BUSY_PATIENCE);
		if (rc != -ETIMEDOUT)
			return rc;
		rc = hook_check_busy(hook);
	} while (rc == 0);
	return rc;
}

/* With `seat` and `setting` held. */
static void hook_set_attended(struct hm_hook *hook, void (*notify)(void *arg), void *arg)
{
	g_mutex_lock(&hook->hooks->lock);
	hook->attended = true;
	hook->notify = notify;
	hook->notify_arg = arg;
	hook->lost = 0;
	g_mutex_unlock(&hook->hooks->lock);
}

static void hook_unattend(struct hm_hook *hook)
{
	g_mutex_lock(&hook->hooks->lock);
	hook->attended = false;
	hook->notify = NULL;
	hm_hook_queue_clear(hook);
	g_mutex_unlock(&hook->hooks->lock);
}

int hm_hook_attend(struct hm_hook *hook, void (*notify)(void *arg), void *arg)
{
	int rc = hook_wait_seat(hook);

	if (rc < 0)
		return rc;
	rc = hm_hook_lock(hook);
	if (rc < 0) {
		sem_post(&hook->seat);
		return rc;
	}
	hook_set_attended(hook, notify, arg);
	rc = hm_hook_tell(hook, 0);
	hm_hook_unlock(hook);
	/* Without a link it is told when there is one. */
	if (rc == 0 || rc == -ENOTCONN)
		return 0;
	hm_hook_leave(hook);
	return rc;
}

void hm_hook_leave(struct hm_hook *hook)
{
	hook_unattend(hook);
	hook_lock_always(hook);
	if (!hook_is_removed(hook))
		hm_hook_tell(hook, 0);
	hm_hook_unlock(hook);
	sem_post(&hook->seat);
}

int hm_hook_next(struct hm_hook *hook, struct hm_event **ret)
{
	struct hm_event *event;
	int rc = 0;

	g_mutex_lock(&hook->hooks->lock);
	event = hm_hook_queue_pop(hook);
	if (event)
		*ret = event;
	else if (hook->removed)
		rc = -ENODEV;
	else
		rc = hook->hooks->stopped ? -ENOTCONN : -EAGAIN;
	g_mutex_unlock(&hook->hooks->lock);
	return rc;
}

bool hm_hook_is_ready(struct hm_hook *hook)
{
	bool ready;

	g_mutex_lock(&hook->hooks->lock);
	ready = hm_hook_queue_is_ready(hook);
	g_mutex_unlock(&hook->hooks->lock);
	return ready;
}

int hm_hook_wait(struct hm_hook *hook)
{
	struct hm_client *client = hook->hooks->client;
	bool ready;
	sem_t wake;
	int rc = 0;

	sem_init(&wake, 0, 0);
	g_mutex_lock(&hook->hooks->lock);
	ready = hm_hook_queue_is_ready(hook);
	if (!ready && hook->reader)
		rc = -EBUSY;
	else if (!ready)
		hook->reader = &wake;
	g_mutex_unlock(&hook->hooks->lock);
	if (!ready && rc == 0) {
		rc = hm_client_is_interrupted(client) ? -EINTR :
			hm_client_sem_wait(client, &wake, INT64_MAX);
		g_mutex_lock(&hook->hooks->lock);
		hook->reader = NULL;
		g_mutex_unlock(&hook->hooks->lock);
	}
	sem_destroy(&wake);
	return rc;
}

/* -- replies and counts ------------------------------------------------------------------------ */

static int hook_find_waiting(struct hm_hook *hook, uint64_t id, struct waiting *ret)
{
	const struct waiting *waiting;

	g_mutex_lock(&hook->hooks->lock);
	waiting = g_hash_table_lookup(hook->waiting, &id);
	if (waiting)
		*ret = *waiting;
	g_mutex_unlock(&hook->hooks->lock);
	return waiting ? 0 : -ESRCH;
}

/* A number of 32 bits, with or without a sign. */
static bool is_narrow(uint64_t value)
{
	return value == (uint32_t)value || value == (uint64_t)(int32_t)value;
}

/* What the guest would say, too: see HOOK_REPLY in docs/protocol.md. */
static int verdict_check(const struct hm_verdict *verdict, uint32_t event)
{
	const uint32_t args = HYPER_VERDICT_ARG(6) - HYPER_VERDICT_ARG(0);
	bool narrow = event & HYPER_EVENT_NARROW;
	int64_t retval = narrow ? (int32_t)verdict->retval : (int64_t)verdict->retval;

	if ((event & HYPER_EVENT_RETURN) && (verdict->flags & ~HYPER_VERDICT_RETVAL))
		return -EINVAL;
	if ((event & HYPER_EVENT_LEAVES) &&
	    (verdict->flags & (HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL)))
		return -EINVAL;
	if ((event & HYPER_EVENT_FIXED) && (verdict->flags & args))
		return -EINVAL;
	for (unsigned int k = 0; narrow && k < G_N_ELEMENTS(verdict->args); k++)
		if ((verdict->flags & HYPER_VERDICT_ARG(k)) && !is_narrow(verdict->args[k]))
			return -ERANGE;
	if (!(verdict->flags & HYPER_VERDICT_RETVAL))
		return 0;
	if (narrow && !is_narrow(verdict->retval))
		return -ERANGE;
	return retval >= HYPER_RETVAL_NONE_FIRST && retval <= HYPER_RETVAL_NONE_LAST ? -EINVAL : 0;
}

int hm_hook_reply(struct hm_hook *hook, uint64_t id, const struct hm_verdict *verdict, bool wait)
{
	struct hm_client *client = hook->hooks->client;
	struct waiting waiting;
	int rc = hook_find_waiting(hook, id, &waiting);

	if (rc < 0)
		return rc;
	rc = verdict_check(verdict, waiting.flags);
	if (rc < 0)
		return rc;
	rc = wait ? hm_client_hook_reply(client, waiting.session, id, verdict) :
		    hm_client_hook_post(client, waiting.session, id, verdict);
	/* When the link is lost all calls go on, whatever has become of the reply. */
	if (rc == -ENOTCONN)
		return -ESRCH;
	if (rc != 0 && rc != -ESRCH)
		return rc;
	g_mutex_lock(&hook->hooks->lock);
	/* Of what was posted nobody has said that it was in time. */
	if (hm_hook_queue_done(hook, id) && rc == 0 && wait) {
		hook->replied++;
		hook->continued += !verdict->flags;
	}
	g_mutex_unlock(&hook->hooks->lock);
	return rc;
}

int hm_hook_stats(struct hm_hook *hook, struct hm_hook_counts *ret)
{
	struct hm_hooks *hooks = hook->hooks;
	struct hm_hook_counts counts = {};
	uint32_t session;
	int rc;

	g_mutex_lock(&hooks->lock);
	session = hooks->session;
	g_mutex_unlock(&hooks->lock);
	rc = hm_client_hook_counts(hooks->client, session, hook->number, &counts);
	/* It has not been set, or not again. */
	if (rc < 0 && rc != -ENOTCONN && rc != -ENOENT)
		return rc;
	g_mutex_lock(&hooks->lock);
	if (rc == 0 && (!session || session == hooks->session))
		hook->seen = counts;
	hm_hook_counts_sum(hook, ret);
	g_mutex_unlock(&hooks->lock);
	return 0;
}
