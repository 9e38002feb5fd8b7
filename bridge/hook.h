/* SPDX-License-Identifier: MIT */
/*
 * hook: what hooks.c (the hooks and their thread), hook.c (what is done with one) and
 * hook_queue.c (what waits to be read) know of each other.
 *
 * Locks, outermost first: a hook's `setting`, which is held while the guest is told about
 * the hook; hooks->lock, which never is while anybody is asked.
 */
#ifndef HM_HOOK_H
#define HM_HOOK_H

#include <semaphore.h>

#include "bridge/hook_client.h"
#include "bridge/hooks.h"

struct hm_hooks {
	struct hm_client *client;
	GMutex lock;		/* protects what follows, and so in the hooks */
	GThread *thread;	/* from the first hook on */
	GHashTable *hooks;	/* number -> struct hm_hook, those that are not removed */
	uint32_t last_number;
	uint32_t session;	/* that they are set in; 0: none */
	size_t queued_size;
	guint n_waiting;	/* calls, of all hooks together */
	int64_t swept;		/* when old ones were looked for: g_get_monotonic_time() */
	bool stopped;		/* there is nothing to wait for any more */
};

struct hm_hook {
	struct hm_hooks *hooks;
	gatomicrefcount refs;
	uint32_t number;

	sem_t seat;		/* its reader's, until the guest has heard that it left */

	sem_t setting;		/* protects what follows; a signal ends the wait for it */
	struct hm_filter *filter;	/* NULL: none yet */
	bool told;		/* the guest may have it */
	bool undoing;		/* `undo` is under way */
	struct hm_call undo;
	gint regs;			/* atomic: it wants registers */
	gint enabled;		/* atomic to read */
	gint timeout_ms;	/* atomic to read */

	/* Protected by hooks->lock. */
	bool removed;
	bool attended;
	void (*notify)(void *arg);
	void *notify_arg;
	sem_t *reader;		/* of the thread that waits for events */
	GQueue events;		/* struct hm_event */
	uint64_t lost;		/* events since the last one in the queue */
	GHashTable *waiting;	/* &id -> struct waiting */

	/* The same: of this session, what the host has seen and done ... */
	struct hm_hook_counts seen;	/* what the guest said last */
	uint64_t received, replied, continued;
	uint64_t let_go, dropped;	/* calls and events without reader, or without room */
	/* ... and of those before. */
	struct hm_hook_counts before;
};

/* A call that was held up, and may be still. */
struct waiting {
	uint64_t id;
	uint32_t flags;		/* HYPER_EVENT_* */
	uint32_t session;
	int64_t until;		/* g_get_monotonic_time(), if the guest's clock is the host's */
};

/* hook.c */
/* -EINTR; -ENODEV: it has been removed. */
int hm_hook_lock(struct hm_hook *hook);
void hm_hook_unlock(struct hm_hook *hook);
/* With `setting` held: the guest has no more to undo, or -ETIMEDOUT, -EINTR. */
int hm_hook_settle(struct hm_hook *hook);
/* The same, and tell the guest of it as it is. */
int hm_hook_tell(struct hm_hook *hook, uint32_t session);

/* hook_queue.c; with hooks->lock held */
/* Of calls that may wait for replies, of all hooks together. */
#define HM_WAITING_MAX 65536
/* So often those that nobody has replied to are looked for, if there are many. */
#define HM_WAITING_SWEEP G_TIME_SPAN_SECOND

bool hm_hook_queue_is_ready(const struct hm_hook *hook);
void hm_hook_queue_wake(struct hm_hook *hook);
/* The event is the queue's; or it has been dropped, and if its call waits it is to be let go. */
bool hm_hook_queue_push(struct hm_hook *hook, struct hm_event *event);
/* NULL: there is none. */
struct hm_event *hm_hook_queue_pop(struct hm_hook *hook);
/* A call does not wait any more.  false: nor has it before. */
bool hm_hook_queue_done(struct hm_hook *hook, uint64_t id);
/* Nothing waits any more. */
void hm_hook_queue_clear(struct hm_hook *hook);
/* The session is over, and its counts are out of reach: what the host knows of them. */
void hm_hook_counts_keep(struct hm_hook *hook);
/* All that is known, with what the guest has said last. */
void hm_hook_counts_sum(const struct hm_hook *hook, struct hm_hook_counts *ret);

#endif
