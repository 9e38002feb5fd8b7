// SPDX-License-Identifier: MIT
/*
 * hook_queue: what a hook has for its reader, which calls wait, and how many there were.
 * See hook.h.
 */
#include "bridge/hook.h"

/* Of events that wait for readers, of a hook and of all together. */
#define QUEUE_MAX 4096
#define QUEUED_SIZE_MAX (64 * 1024 * 1024)
#define WAITING_GRACE (60 * G_TIME_SPAN_SECOND)	/* a guest's second may be longer */
#define WAITING_MANY 1024

static size_t event_size(const struct hm_event *event)
{
	return sizeof(*event) + event->n_regs * sizeof(event->regs[0]);
}

bool hm_hook_queue_is_ready(const struct hm_hook *hook)
{
	return hook->events.length || hook->removed || hook->hooks->stopped;
}

void hm_hook_queue_wake(struct hm_hook *hook)
{
	if (hook->reader)
		sem_post(hook->reader);
	if (hook->notify)
		hook->notify(hook->notify_arg);
}

struct hm_event *hm_hook_queue_pop(struct hm_hook *hook)
{
	struct hm_event *event = g_queue_pop_head(&hook->events);

	if (event)
		hook->hooks->queued_size -= event_size(event);
	return event;
}

static gboolean waiting_is_old(gpointer key, gpointer value, gpointer arg)
{
	const struct waiting *waiting = value;
	const int64_t *now = arg;

	return waiting->until + WAITING_GRACE < *now;
}

/* Who never replies must neither fill the memory nor take the room of others for ever. */
static void hooks_sweep(struct hm_hooks *hooks, int64_t now)
{
	GHashTableIter iter;
	gpointer value;

	if (hooks->n_waiting < WAITING_MANY || now < hooks->swept + HM_WAITING_SWEEP)
		return;
	hooks->swept = now;
	g_hash_table_iter_init(&iter, hooks->hooks);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		struct hm_hook *hook = value;

		hooks->n_waiting -= g_hash_table_foreach_remove(hook->waiting, waiting_is_old,
								&now);
	}
}

static bool queue_has_room(const struct hm_hook *hook, const struct hm_event *event)
{
	bool waits = event->flags & HYPER_EVENT_WAITS;

	return hook->events.length < QUEUE_MAX &&
	       hook->hooks->queued_size + event_size(event) <= QUEUED_SIZE_MAX &&
	       (!waits || hook->hooks->n_waiting < HM_WAITING_MAX);
}

static void hook_add_waiting(struct hm_hook *hook, const struct hm_event *event, int64_t now)
{
	struct waiting *waiting = g_new(struct waiting, 1);
	int64_t timeout = g_atomic_int_get(&hook->timeout_ms) * G_TIME_SPAN_MILLISECOND;

	*waiting = (struct waiting){
		.id = event->id,
		.flags = event->flags,
		.session = hook->hooks->session,
		.until = now + timeout,
	};
	if (g_hash_table_replace(hook->waiting, &waiting->id, waiting))
		hook->hooks->n_waiting++;
}

static void queue_add(struct hm_hook *hook, struct hm_event *event, int64_t now)
{
	if (event->flags & HYPER_EVENT_WAITS)
		hook_add_waiting(hook, event, now);
	/* What was not asked for has gone, and so must its room: it is not counted. */
	event = g_realloc(event, event_size(event));
	event->lost += hook->lost;
	hook->lost = 0;
	g_queue_push_tail(&hook->events, event);
	hook->hooks->queued_size += event_size(event);
	hm_hook_queue_wake(hook);
}

/* Nobody is going to read it, or reply. */
static void queue_drop(struct hm_hook *hook, const struct hm_event *event)
{
	hook->lost += 1 + event->lost;
	if (event->flags & HYPER_EVENT_WAITS)
		hook->let_go++;
	else
		hook->dropped++;
}

bool hm_hook_queue_push(struct hm_hook *hook, struct hm_event *event)
{
	int64_t now = g_get_monotonic_time();
	bool kept;

	hook->received++;
	/* What was not asked for could be taken for anything. */
	if (!g_atomic_int_get(&hook->regs))
		event->n_regs = 0;
	hooks_sweep(hook->hooks, now);
	kept = hook->attended && queue_has_room(hook, event);
	if (kept)
		queue_add(hook, event, now);
	else
		queue_drop(hook, event);
	return kept;
}

bool hm_hook_queue_done(struct hm_hook *hook, uint64_t id)
{
	bool waited = g_hash_table_remove(hook->waiting, &id);

	hook->hooks->n_waiting -= waited;
	return waited;
}

void hm_hook_queue_clear(struct hm_hook *hook)
{
	struct hm_event *event;

	while ((event = hm_hook_queue_pop(hook))) {
		hook->lost += 1 + event->lost;
		g_free(event);
	}
	hook->hooks->n_waiting -= g_hash_table_size(hook->waiting);
	g_hash_table_remove_all(hook->waiting);
}

/* -- counts, with hooks->lock held ------------------------------------------------------------ */

/* The guest's counts, as though all that the host has let go had not been told of. */
static struct hm_hook_counts counts_adjust(const struct hm_hook *hook,
					   const struct hm_hook_counts *guest)
{
	struct hm_hook_counts counts = *guest;

	counts.replied -= MIN(hook->let_go, counts.replied);
	counts.continued -= MIN(hook->let_go, counts.continued);
	counts.unattended += hook->let_go;
	counts.dropped += hook->dropped;
	return counts;
}

static void counts_add(struct hm_hook_counts *sum, const struct hm_hook_counts *more)
{
	sum->matched += more->matched;
	sum->sent += more->sent;
	sum->replied += more->replied;
	sum->continued += more->continued;
	sum->timed_out += more->timed_out;
	sum->killed += more->killed;
	sum->abandoned += more->abandoned;
	sum->unattended += more->unattended;
	sum->dropped += more->dropped;
	sum->restarted += more->restarted;
	sum->missed += more->missed;
}

static uint64_t count_waiting(struct hm_hook *hook)
{
	int64_t now = g_get_monotonic_time();
	const struct waiting *waiting;
	GHashTableIter iter;
	gpointer value;
	uint64_t n = 0;

	g_hash_table_iter_init(&iter, hook->waiting);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		waiting = value;
		n += now < waiting->until;
	}
	return n;
}

void hm_hook_counts_keep(struct hm_hook *hook)
{
	struct hm_hook_counts counts = hook->seen;

	counts.matched = MAX(counts.matched, hook->received);
	counts.sent = MAX(counts.sent, hook->received);
	counts.replied = MAX(counts.replied, hook->replied + hook->let_go);
	counts.continued = MAX(counts.continued, hook->continued + hook->let_go);
	counts.abandoned += count_waiting(hook);
	counts = counts_adjust(hook, &counts);
	counts_add(&hook->before, &counts);
	hook->seen = (struct hm_hook_counts){};
	hook->received = hook->replied = hook->continued = hook->let_go = hook->dropped = 0;
}

void hm_hook_counts_sum(const struct hm_hook *hook, struct hm_hook_counts *ret)
{
	struct hm_hook_counts counts = counts_adjust(hook, &hook->seen);

	*ret = hook->before;
	counts_add(ret, &counts);
}
