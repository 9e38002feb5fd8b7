// SPDX-License-Identifier: MIT
/*
 * hook_client: one function per operation on hooks.  See hook_client.h.
 */
#include "bridge/hook_client.h"

#include <errno.h>

#include "bridge/request.h"

/* Of one answer to HOOK_WAIT, which the guest has room for; more events come in the next. */
#define EVENTS_SIZE (32 * 1024)

int hm_client_wait_session(struct hm_client *client, uint32_t last, uint32_t *ret)
{
	return hm_calls_wait_open(&client->session.calls, last, ret);
}

int hm_client_hook_check(struct hm_client *client)
{
	const uint64_t need = 1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_SET) |
			      1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_WAIT) |
			      1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_POST);
	struct hm_guest guest;
	int rc = hm_client_guest(client, &guest);

	if (client->readonly)
		return -EROFS;
	if (rc)
		return rc;
	if ((guest.ops & need) != need)
		return -EOPNOTSUPP;
	return (guest.allowed & need) == need ? 0 : -EPERM;
}

bool hm_client_is_interrupted(struct hm_client *client)
{
	bool (*interrupted)(void) = client->session.calls.interrupted;

	return interrupted && interrupted();
}

int hm_client_sem_wait(struct hm_client *client, sem_t *sem, int64_t deadline)
{
	return hm_sem_wait(sem, deadline, client->session.calls.interrupted);
}

/*
 * Setting a hook on every call takes a slow guest seconds, and whatever changes or counts
 * hooks waits behind it; but replies do not.
 */
static void call_prepare(struct hm_call *call, uint32_t op, uint32_t session, uint64_t addr)
{
	hm_call_prepare(call, op, (struct hm_who){}, addr, NULL, 0);
	call->session = session;
}

/* A request with data, all of which the guest takes. */
static void call_put(struct hm_call *call, const void *data, size_t size)
{
	call->out = data;
	call->limit = call->request.size = (uint32_t)size;
}

static int call_done(struct hm_client *client, struct hm_call *call)
{
	int rc = hm_client_call(client, call);

	if (rc == 0 && call->fault)
		return hm_client_nonsense(client, call, "is half done");
	return rc;
}

/* -EROFS, -E2BIG: it cannot be. */
static int set_prepare(struct hm_client *client, struct hm_call *call, uint32_t session,
		       uint32_t number, const struct hm_filter *filter, uint32_t state,
		       uint32_t timeout_ms, uint8_t data[HM_HOOK_SIZE_MAX])
{
	size_t size = hm_hook_encode(filter, state, timeout_ms, data);

	if (client->readonly)
		return -EROFS;
	if (size > hm_client_max_data(client))
		return -E2BIG;
	call_prepare(call, HYPER_OP_HOOK_SET, session, number);
	call->slow = true;
	call_put(call, data, size);
	return 0;
}

int hm_client_hook_set(struct hm_client *client, uint32_t session, uint32_t number,
		       const struct hm_filter *filter, uint32_t state, uint32_t timeout_ms)
{
	uint8_t data[HM_HOOK_SIZE_MAX];
	struct hm_call call;
	int rc = set_prepare(client, &call, session, number, filter, state, timeout_ms, data);

	return rc ? rc : call_done(client, &call);
}

static void remove_prepare(struct hm_call *call, uint32_t number)
{
	call_prepare(call, HYPER_OP_HOOK_REMOVE, 0, number);
	call->slow = true;
}

int hm_client_hook_remove(struct hm_client *client, uint32_t number)
{
	struct hm_call call;

	remove_prepare(&call, number);
	return call_done(client, &call);
}

int hm_client_hook_undo(struct hm_client *client, struct hm_call *call, uint32_t number,
			const struct hm_filter *filter, uint32_t state, uint32_t timeout_ms)
{
	uint8_t data[HM_HOOK_SIZE_MAX];
	int rc = 0;

	if (filter)
		rc = set_prepare(client, call, 0, number, filter, state, timeout_ms, data);
	else
		remove_prepare(call, number);
	if (rc)
		return rc;
	hm_call_init(call);
	rc = hm_session_send(&client->session, call);
	if (rc)
		hm_call_deinit(call);
	return rc;
}

int hm_client_hook_undone(struct hm_client *client, struct hm_call *call)
{
	int rc = hm_session_wait(&client->session, call);

	hm_call_deinit(call);
	return rc == -ETIMEDOUT || rc == -EINTR ? rc : 0;
}

static int events_decode(const uint8_t *data, size_t size, GPtrArray *events)
{
	struct hm_event *event;
	size_t used;

	if (!size)
		return -EPROTO;
	for (; size; data += used, size -= used) {
		if (hm_event_decode(data, size, &event, &used))
			return -EPROTO;
		g_ptr_array_add(events, event);
	}
	return 0;
}

void hm_hook_waits_init(struct hm_hook_waits *waits, struct hm_client *client, uint32_t session)
{
	*waits = (struct hm_hook_waits){ .client = client, .session = session };
}

/* The oldest one is done with, and what it has brought is the caller's. */
static void *waits_shift(struct hm_hook_waits *waits)
{
	unsigned int i = waits->first;

	hm_call_deinit(&waits->calls[i]);
	waits->first = (i + 1) % HM_HOOK_WAITS;
	waits->n--;
	return g_steal_pointer(&waits->data[i]);
}

void hm_hook_waits_deinit(struct hm_hook_waits *waits)
{
	while (waits->n) {
		hm_session_give_up(&waits->client->session, &waits->calls[waits->first]);
		g_free(waits_shift(waits));
	}
}

static int waits_push(struct hm_hook_waits *waits)
{
	unsigned int i = (waits->first + waits->n) % HM_HOOK_WAITS;
	struct hm_call *call = &waits->calls[i];
	int rc;

	call_prepare(call, HYPER_OP_HOOK_WAIT, waits->session, 0);
	call->limit = call->request.size = MIN(EVENTS_SIZE, hm_client_max_data(waits->client));
	call->in_alloc = &waits->data[i];
	call->patient = true;
	hm_call_init(call);
	rc = hm_session_send(&waits->client->session, call);
	if (rc)
		hm_call_deinit(call);
	else
		waits->n++;
	return rc;
}

/* Not so many that others have to wait for a slot. */
static unsigned int waits_max(struct hm_hook_waits *waits)
{
	struct hm_guest guest;

	hm_client_guest(waits->client, &guest);
	return CLAMP(guest.max_inflight / 8, 1, HM_HOOK_WAITS);
}

int hm_hook_waits_next(struct hm_hook_waits *waits, GPtrArray **ret)
{
	g_autoptr(GPtrArray) events = g_ptr_array_new_with_free_func(g_free);
	g_autofree void *data = NULL;
	const struct hm_call *call;
	uint32_t n;
	int rc = 0;

	/* All at once when one is left: most events cause none. */
	if (waits->n <= 1)
		for (unsigned int max = waits_max(waits); !rc && waits->n < max;)
			rc = waits_push(waits);
	if (!waits->n)
		return rc;
	call = &waits->calls[waits->first];
	rc = hm_session_wait(&waits->client->session, &waits->calls[waits->first]);
	n = rc ? 0 : call->n;
	if (!rc && call->fault)
		rc = hm_client_nonsense(waits->client, call, "is half done");
	data = waits_shift(waits);
	if (!rc && events_decode(data, n, events)) {
		hm_client_hook_complain(waits->client, "has events that cannot be");
		rc = -EPROTO;
	}
	if (!rc)
		*ret = g_steal_pointer(&events);
	return rc;
}

static void reply_prepare(struct hm_call *call, uint32_t op, uint32_t session, uint64_t id,
			  const struct hm_verdict *verdict,
			  uint8_t data[sizeof(struct hypermem_verdict)])
{
	hm_verdict_encode(verdict, data);
	call_prepare(call, op, session, id);
	call->sure = true;
	call_put(call, data, sizeof(struct hypermem_verdict));
}

int hm_client_hook_reply(struct hm_client *client, uint32_t session, uint64_t id,
			 const struct hm_verdict *verdict)
{
	uint8_t data[sizeof(struct hypermem_verdict)];
	struct hm_call call;

	reply_prepare(&call, HYPER_OP_HOOK_REPLY, session, id, verdict, data);
	return call_done(client, &call);
}

int hm_client_hook_post(struct hm_client *client, uint32_t session, uint64_t id,
			const struct hm_verdict *verdict)
{
	uint8_t data[sizeof(struct hypermem_verdict)];
	struct hm_call call;
	int rc;

	reply_prepare(&call, HYPER_OP_HOOK_POST, session, id, verdict, data);
	hm_call_init(&call);
	rc = hm_session_post(&client->session, &call);
	hm_call_deinit(&call);
	return rc;
}

int hm_client_hook_counts(struct hm_client *client, uint32_t session, uint32_t number,
			  struct hm_hook_counts *ret)
{
	uint8_t record[sizeof(struct hypermem_hook_counts)];
	struct hm_hook_counts counts;
	struct hm_call call;
	int rc;

	call_prepare(&call, HYPER_OP_HOOK_COUNTS, session, number);
	call.slow = true;
	call.limit = call.request.size = sizeof(record);
	call.in = record;
	rc = call_done(client, &call);
	if (rc)
		return rc;
	if (hm_hook_counts_decode(record, call.n, &counts))
		return hm_client_nonsense(client, &call, "has no counts");
	*ret = counts;
	return 0;
}

void hm_client_hook_complain(struct hm_client *client, const char *what)
{
	const struct hm_header request = { .op = HYPER_OP_HOOK_WAIT };

	hm_complain(&client->session.calls.complaints, &request, true, what);
}
