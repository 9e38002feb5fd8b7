// SPDX-License-Identifier: GPL-2.0
/*
 * hook_event: events on their way to the host.  See hook.h.
 *
 * They go into a ring, as they will be on the wire, and from there into the answers to the
 * host's WAITs.  A task that waits for a reply sends what there is itself, which saves the way
 * to a worker; but the link may be full, and no task shall wait for a host that does not
 * read: then that is a worker's business.  If no task waits for a reply, a few come together.
 */
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "hook.h"
#include "link.h"

#define RING_SIZE	(1024 * 1024)
#define RING_URGENT	(RING_SIZE / 4)
#define FLUSH_DELAY	(HZ / 200 ?: 1)
#define WAITS_MAX	8

static void ring_write(struct hook_home *home, const void *from, u32 n)
{
	u32 at = (home->first + home->used) % RING_SIZE;
	u32 part = min(n, (u32)RING_SIZE - at);

	memcpy(home->events + at, from, part);
	memcpy(home->events, (const u8 *)from + part, n - part);
	home->used += n;
}

static void ring_peek(const struct hook_home *home, void *to, u32 n)
{
	u32 part = min(n, (u32)RING_SIZE - home->first);

	memcpy(to, home->events + home->first, part);
	memcpy((u8 *)to + part, home->events, n - part);
}

static void ring_drop(struct hook_home *home, u32 n)
{
	home->first = (home->first + n) % RING_SIZE;
	home->used -= n;
}

bool hook_event_put(struct hook_home *home, const struct hook_event *event)
{
	u8 raw[HYPER_EVENT_SIZE_MAX] __aligned(8);
	u32 size = hypermem_event_encode(event, raw);
	bool room;

	spin_lock(&home->lock);
	room = home->events && size <= RING_SIZE - home->used;
	if (room)
		ring_write(home, raw, size);
	spin_unlock(&home->lock);
	return room;
}

/* As many events as there are and fit, into a WAIT's answer. */
static void events_fill(struct hook_home *home, struct hypermem_request *wait)
{
	struct hypermem_event head;
	u32 size;

	while (home->used) {
		ring_peek(home, &head, sizeof(head));
		size = hypermem_event_size(&head);
		if (size > wait->out_max - wait->out_size)
			break;
		ring_peek(home, wait->out + wait->out_size, size);
		wait->out_size += size;
		ring_drop(home, size);
	}
}

/*
 * A WAIT with its answer, of which the caller says when it is out; NULL: there is none, or
 * nothing to say, or another is on its way, and who sends that will come here again.
 */
static struct hypermem_request *events_take(struct hook_home *home)
{
	struct hypermem_request *wait = NULL;

	spin_lock(&home->lock);
	if (home->used && !home->sending && !list_empty(&home->waits)) {
		wait = list_first_entry(&home->waits, struct hypermem_request, node);
		list_del(&wait->node);
		home->n_waits--;
		home->sending = true;
		events_fill(home, wait);
	}
	spin_unlock(&home->lock);
	return wait;
}

static void events_sent(struct hook_home *home)
{
	spin_lock(&home->lock);
	home->sending = false;
	spin_unlock(&home->lock);
	wake_up(&home->idle);
}

static void events_send(struct hook_home *home)
{
	struct hypermem_request *wait;

	while ((wait = events_take(home))) {
		hypermem_request_complete(wait, 0);
		events_sent(home);
	}
}

static void events_flush(struct work_struct *work)
{
	struct hook_home *home = container_of(to_delayed_work(work), struct hook_home, flush);
	struct hypermem_request *late = xchg(&home->late, NULL);

	if (late) {
		hypermem_request_complete(late, 0);
		events_sent(home);
	}
	events_send(home);
}

/* The link would have to be waited for: by a worker, if there still is one. */
static void events_leave(struct hook_home *home, struct hypermem_request *wait)
{
	bool closed;

	spin_lock(&home->lock);
	closed = !home->events;
	if (!closed) {
		home->late = wait;
		mod_delayed_work(home->link->wq, &home->flush, 0);
	}
	spin_unlock(&home->lock);
	if (closed) {
		hypermem_request_free(wait);
		events_sent(home);
	}
}

static void events_try(struct hook_home *home)
{
	struct hypermem_request *wait;

	while ((wait = events_take(home))) {
		if (!hypermem_request_try_complete(wait, 0)) {
			events_leave(home, wait);
			return;
		}
		events_sent(home);
	}
}

void hook_event_send(struct hook_home *home, bool now)
{
	bool urgent = READ_ONCE(home->used) > RING_URGENT;

	if (now) {
		events_try(home);
		return;
	}
	if (!urgent && delayed_work_pending(&home->flush))
		return;
	spin_lock(&home->lock);
	if (home->events && urgent)
		mod_delayed_work(home->link->wq, &home->flush, 0);
	else if (home->events)
		queue_delayed_work(home->link->wq, &home->flush, FLUSH_DELAY);
	spin_unlock(&home->lock);
}

void hook_event_poll(struct hook_home *home, bool (*goes_on)(void *arg), void *arg)
{
	bool open;

	/* Where tasks are to be preempted at any time, or interrupts would come all the same. */
	if (IS_ENABLED(CONFIG_PREEMPT_RT) || !hypermem_can_disable_cb())
		return;
	spin_lock(&home->lock);
	open = home->events && home->link->ops->poll;
	home->n_polling += open;
	spin_unlock(&home->lock);
	if (open) {
		hypermem_let_others_sleep();
		/* The link stays meanwhile: see hook_events_close(). */
		home->link->ops->poll(home->link, goes_on, arg);
		spin_lock(&home->lock);
		home->n_polling--;
		spin_unlock(&home->lock);
		wake_up(&home->idle);
	}
}

void hook_events_init(struct hook_home *home)
{
	spin_lock_init(&home->lock);
	INIT_LIST_HEAD(&home->waits);
	init_waitqueue_head(&home->idle);
	INIT_DELAYED_WORK(&home->flush, events_flush);
}

int hook_events_open(struct hook_home *home)
{
	u8 *events;

	if (READ_ONCE(home->events))
		return 0;
	events = vmalloc(RING_SIZE);
	if (!events)
		return -ENOMEM;
	spin_lock(&home->lock);
	home->events = events;
	spin_unlock(&home->lock);
	return 0;
}

int hypermem_hook_wait(struct hypermem_request *request)
{
	struct hook_home *home = hook_home_of(request->link);
	int rc = -EINPROGRESS;

	if (!home)
		return -ENOMEM;
	if (request->out_max < HYPER_EVENT_SIZE_MAX)
		return -EINVAL;
	spin_lock(&home->lock);
	/* The session may have ended meanwhile: then nobody would come for it. */
	if (request->session != READ_ONCE(request->link->session)) {
		rc = -ESTALE;
	} else if (home->n_waits == WAITS_MAX) {
		rc = -EBUSY;
	} else {
		home->n_waits++;
		list_add_tail(&request->node, &home->waits);
	}
	spin_unlock(&home->lock);
	if (rc == -EINPROGRESS)
		events_try(home);
	return rc;
}

u32 hypermem_hooks_waiting(struct hypermem_link *link)
{
	struct hook_home *home = READ_ONCE(link->hooks);

	return home ? READ_ONCE(home->n_waits) : 0;
}

void hook_events_close(struct hook_home *home)
{
	struct hypermem_request *wait, *next;
	LIST_HEAD(waits);
	u8 *events;

	spin_lock(&home->lock);
	list_splice_init(&home->waits, &waits);
	home->n_waits = 0;
	events = home->events;
	home->events = NULL;
	home->first = 0;
	home->used = 0;
	spin_unlock(&home->lock);
	/* What is on its way is so without this lock, and with the link. */
	flush_delayed_work(&home->flush);
	wait_event(home->idle, !READ_ONCE(home->sending) && !READ_ONCE(home->n_polling));
	vfree(events);
	list_for_each_entry_safe(wait, next, &waits, node)
		hypermem_request_free(wait);
}
