// SPDX-License-Identifier: MIT
/*
 * calls: requests in flight.  See calls.h.
 *
 * A call is shared by two threads: its caller's, which owns the memory, and the
 * receiver's, which finds it by its tag.  Whoever takes it out of `tags` under the
 * lock decides how it ends, and the semaphore is posted under the lock, too: a
 * caller that sees DONE knows that nobody will touch the call again.
 */
#include "bridge/calls.h"

#include <errno.h>
#include <time.h>

/* More than this a host never has in flight, whatever the guest says it can do. */
#define INFLIGHT_MAX 1024

/* What `tags` has for a call that was given up. */
static struct hm_call *const owed = (struct hm_call *)&owed;

int hm_sem_wait(sem_t *sem, int64_t deadline, bool (*interrupted)(void))
{
	struct timespec ts = {
		.tv_sec = deadline / G_TIME_SPAN_SECOND,
		.tv_nsec = deadline % G_TIME_SPAN_SECOND * 1000,
	};

	while ((deadline == INT64_MAX ? sem_wait(sem) :
					sem_clockwait(sem, CLOCK_MONOTONIC, &ts)) < 0) {
		if (errno != EINTR)
			return -errno;
		if (interrupted && interrupted())
			return -EINTR;
	}
	return 0;
}

void hm_calls_init(struct hm_calls *calls, bool (*interrupted)(void))
{
	*calls = (struct hm_calls){ .interrupted = interrupted };
	g_mutex_init(&calls->fill_lock);
	g_mutex_init(&calls->lock);
	g_cond_init(&calls->changed);
	g_queue_init(&calls->queue);
	calls->tags = g_hash_table_new(NULL, NULL);
	hm_complaints_init(&calls->complaints);
}

void hm_calls_deinit(struct hm_calls *calls)
{
	hm_complaints_deinit(&calls->complaints);
	g_hash_table_unref(calls->tags);
	g_cond_clear(&calls->changed);
	g_mutex_clear(&calls->lock);
	g_mutex_clear(&calls->fill_lock);
}

static struct hm_call *tags_get(struct hm_calls *calls, uint16_t tag)
{
	return g_hash_table_lookup(calls->tags, GUINT_TO_POINTER(tag));
}

/* A tag that was used as long ago as possible.  There is one: INFLIGHT_MAX, HM_OWED_MAX. */
static uint16_t tags_add(struct hm_calls *calls, struct hm_call *call)
{
	do {
		calls->last_tag++;
	} while (calls->last_tag == HM_TAG_NONE || tags_get(calls, calls->last_tag));
	g_hash_table_insert(calls->tags, GUINT_TO_POINTER(calls->last_tag), call);
	return calls->last_tag;
}

static void tags_remove(struct hm_calls *calls, uint16_t tag)
{
	g_hash_table_remove(calls->tags, GUINT_TO_POINTER(tag));
}

static uint32_t calls_slots(const struct hm_calls *calls)
{
	uint32_t max = MIN(calls->guest.max_inflight, INFLIGHT_MAX);

	return max - MIN(calls->owed, max / 2);
}

static void call_take_off(struct hm_calls *calls, struct hm_call *call)
{
	calls->flight++;
	call->state = HM_CALL_FLIGHT;
	call->epoch = calls->guest.epoch;
	call->session = calls->session;
	call->request.tag = tags_add(calls, call);
}

static void calls_admit(struct hm_calls *calls)
{
	while (calls->flight < calls_slots(calls) && !g_queue_is_empty(&calls->queue)) {
		struct hm_call *call = g_queue_pop_head(&calls->queue);

		call_take_off(calls, call);
		sem_post(&call->wake);
	}
}

/* Off the table, its slot to the next one. */
static void call_land(struct hm_calls *calls, struct hm_call *call)
{
	tags_remove(calls, call->request.tag);
	calls->flight--;
	calls_admit(calls);
}

static void call_finish(struct hm_call *call, int rc)
{
	call->state = HM_CALL_DONE;
	call->rc = rc;
	sem_post(&call->wake);
}

void hm_calls_open(struct hm_calls *calls, const struct hm_guest *guest)
{
	g_mutex_lock(&calls->lock);
	calls->guest = *guest;
	calls->open = true;
	calls->session += calls->session == UINT32_MAX ? 2 : 1;
	g_cond_broadcast(&calls->changed);
	g_mutex_unlock(&calls->lock);
}

void hm_calls_end(struct hm_calls *calls)
{
	g_mutex_lock(&calls->lock);
	calls->ended = true;
	g_cond_broadcast(&calls->changed);
	g_mutex_unlock(&calls->lock);
}

int hm_calls_wait_open(struct hm_calls *calls, uint32_t last, uint32_t *ret)
{
	int rc;

	g_mutex_lock(&calls->lock);
	while (!calls->ended && (!calls->open || calls->session == last))
		g_cond_wait(&calls->changed, &calls->lock);
	*ret = calls->session;
	rc = calls->ended ? -ECANCELED : 0;
	g_mutex_unlock(&calls->lock);
	return rc;
}

void hm_calls_close(struct hm_calls *calls)
{
	struct hm_call *call;
	GHashTableIter iter;
	gpointer value;

	g_mutex_lock(&calls->fill_lock);
	g_mutex_lock(&calls->lock);
	calls->open = false;
	calls->filling = NULL;
	g_hash_table_iter_init(&iter, calls->tags);
	while (g_hash_table_iter_next(&iter, NULL, &value))
		if (value != owed)
			call_finish(value, -ENOTCONN);
	g_hash_table_remove_all(calls->tags);
	while ((call = g_queue_pop_head(&calls->queue)))
		call_finish(call, -ENOTCONN);
	calls->flight = 0;
	calls->owed = 0;
	g_mutex_unlock(&calls->lock);
	g_mutex_unlock(&calls->fill_lock);
}

int hm_calls_guest(struct hm_calls *calls, struct hm_guest *ret)
{
	bool open;

	g_mutex_lock(&calls->lock);
	open = calls->open;
	*ret = calls->guest;
	g_mutex_unlock(&calls->lock);
	return open ? 0 : -ENOTCONN;
}

void hm_call_init(struct hm_call *call)
{
	sem_init(&call->wake, 0, 0);
	call->state = HM_CALL_IDLE;
}

void hm_call_deinit(struct hm_call *call)
{
	sem_destroy(&call->wake);
}

/* Why the request cannot be sent in this session. */
static int calls_check(const struct hm_calls *calls, const struct hm_call *call)
{
	uint64_t bit = 1ULL << HYPER_OP_INDEX(call->request.op);

	if (!calls->open || (call->session && call->session != calls->session))
		return -ENOTCONN;
	if (call->epoch && call->epoch != calls->guest.epoch)
		return -ESTALE;
	if (!(calls->guest.ops & bit))
		return -EOPNOTSUPP;
	if (!(calls->guest.allowed & bit))
		return -EPERM;
	/* The session that it was made for, with larger frames, has ended. */
	if (call->limit > calls->guest.max_data ||
	    hm_header_data_size(&call->request) > calls->guest.max_data)
		return -ENOTCONN;
	return 0;
}

/* Wait for a slot. */
static int call_queue_wait(struct hm_calls *calls, struct hm_call *call)
{
	int rc = hm_sem_wait(&call->wake, call->deadline, calls->interrupted);

	g_mutex_lock(&calls->lock);
	if (call->state == HM_CALL_DONE)
		rc = call->rc;
	else if (rc && call->state == HM_CALL_QUEUED)
		g_queue_remove(&calls->queue, call);
	else if (rc)
		call_land(calls, call);
	g_mutex_unlock(&calls->lock);
	return rc;
}

int hm_calls_add(struct hm_calls *calls, struct hm_call *call)
{
	bool queued = false;
	int rc;

	g_mutex_lock(&calls->lock);
	rc = calls_check(calls, call);
	if (!rc && calls->flight < calls_slots(calls) && g_queue_is_empty(&calls->queue)) {
		call_take_off(calls, call);
	} else if (!rc) {
		call->state = HM_CALL_QUEUED;
		g_queue_push_tail(&calls->queue, call);
		queued = true;
	}
	g_mutex_unlock(&calls->lock);
	return queued ? call_queue_wait(calls, call) : rc;
}

bool hm_calls_is_in_flight(struct hm_calls *calls, struct hm_call *call)
{
	bool in_flight;

	g_mutex_lock(&calls->lock);
	in_flight = call->state == HM_CALL_FLIGHT;
	g_mutex_unlock(&calls->lock);
	return in_flight;
}

int hm_calls_cancel(struct hm_calls *calls, struct hm_call *call)
{
	int rc = 0;

	g_mutex_lock(&calls->lock);
	if (call->state == HM_CALL_FLIGHT)
		call_land(calls, call);
	else
		rc = call->rc;
	g_mutex_unlock(&calls->lock);
	return rc;
}

int hm_calls_give_up(struct hm_calls *calls, struct hm_call *call, int rc)
{
	g_mutex_lock(&calls->fill_lock);
	g_mutex_lock(&calls->lock);
	if (call->state == HM_CALL_FLIGHT) {
		if (calls->filling == call) {
			calls->filling = NULL;
			tags_remove(calls, call->request.tag);
		} else {
			g_hash_table_insert(calls->tags, GUINT_TO_POINTER(call->request.tag), owed);
			calls->owed++;
		}
		calls->flight--;
		call->state = HM_CALL_IDLE;
		calls_admit(calls);
	} else if (call->state == HM_CALL_DONE) {
		rc = call->rc;
	}
	g_mutex_unlock(&calls->lock);
	g_mutex_unlock(&calls->fill_lock);
	return rc;
}

uint32_t hm_calls_owed(struct hm_calls *calls)
{
	uint32_t n;

	g_mutex_lock(&calls->lock);
	n = calls->owed;
	g_mutex_unlock(&calls->lock);
	return n;
}

/* What a reply that is in order means to its caller. */
static int call_accept(struct hm_call *call, const struct hm_header *reply)
{
	call->n = reply->size;
	call->addr = reply->addr;
	call->fault = hm_reply_is_ok(reply) ? 0 : hm_errno_decode(reply->addr);
	return call->n ? 0 : call->fault;
}

/* Room for the data of a reply. */
static int call_make_room(struct hm_call *call, uint32_t size)
{
	if (call->in)
		return 0;
	if (!call->in_alloc)
		return -EPROTO;
	*call->in_alloc = g_try_malloc(size);
	call->in = *call->in_alloc;
	return call->in ? 0 : -ENOMEM;
}

static void call_reply(struct hm_calls *calls, struct hm_call *call, const struct hm_header *reply)
{
	uint32_t size = hm_header_data_size(reply);
	int rc = call_accept(call, reply);

	if (size && !rc)
		rc = call_make_room(call, size);
	if (size && !rc) {
		calls->filling = call;
		return;
	}
	call_land(calls, call);
	call_finish(call, rc);
}

void hm_calls_reply(struct hm_calls *calls, const struct hm_header *reply)
{
	struct hm_call *call;
	const char *wrong = NULL;

	g_mutex_lock(&calls->lock);
	call = tags_get(calls, reply->tag);
	if (!call) {
		wrong = "is to no request";
	} else if (call == owed) {
		tags_remove(calls, reply->tag);
		calls->owed--;
		calls_admit(calls);
	} else {
		wrong = hm_reply_check(&call->request, call->limit, reply);
		if (wrong) {
			call_land(calls, call);
			call_finish(call, -EPROTO);
		} else {
			call_reply(calls, call, reply);
		}
	}
	g_mutex_unlock(&calls->lock);
	if (wrong)
		hm_complain(&calls->complaints, reply, false, wrong);
}

void hm_calls_filled(struct hm_calls *calls)
{
	struct hm_call *call = calls->filling;

	if (!call)
		return;
	calls->filling = NULL;
	g_mutex_lock(&calls->lock);
	call_land(calls, call);
	call_finish(call, 0);
	g_mutex_unlock(&calls->lock);
}
