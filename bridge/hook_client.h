/* SPDX-License-Identifier: MIT */
/*
 * hook_client: the operations on hooks, for hooks.c.
 *
 * They are of one session, by its number (0: any): a hook ends with its session, and an id
 * of one means nothing in another.  -ENOTCONN: that session is over; and the errors of
 * client.h.
 */
#ifndef HM_HOOK_CLIENT_H
#define HM_HOOK_CLIENT_H

#include <semaphore.h>

#include "bridge/calls.h"
#include "bridge/client.h"
#include "bridge/wire_hook.h"

#define HM_HOOK_WAITS 8

/*
 * Until there is a session other than `last` (0: any): *ret is its number.
 * -ECANCELED: the client has been stopped.
 */
int hm_client_wait_session(struct hm_client *client, uint32_t last, uint32_t *ret);

/* Why there can be no hooks in this guest: -EOPNOTSUPP, -EPERM, -EROFS. */
int hm_client_hook_check(struct hm_client *client);
/* Of config.interrupted(). */
bool hm_client_is_interrupted(struct hm_client *client);
/* Wait for a semaphore: 0, -ETIMEDOUT, -EINTR. */
int hm_client_sem_wait(struct hm_client *client, sem_t *sem, int64_t deadline);

/*
 * state: HYPER_HOOK_ENABLED, _ATTENDED.  -ENOENT: the guest has none of the calls;
 * -EINVAL: it does not take the filter; -E2BIG: it does not take so much.  -EROFS: the client is
 * read-only.
 */
int hm_client_hook_set(struct hm_client *client, uint32_t session, uint32_t number,
		       const struct hm_filter *filter, uint32_t state, uint32_t timeout_ms);
/* In whatever session there is. */
int hm_client_hook_remove(struct hm_client *client, uint32_t number);
/*
 * The same behind one that has not been answered: it may be done still, and then this is.
 * filter: NULL: the hook is removed.  After success hm_client_hook_undone() is due, before
 * the guest is told anything else of the hook: it may do in any order what it has at once.
 */
int hm_client_hook_undo(struct hm_client *client, struct hm_call *call, uint32_t number,
			const struct hm_filter *filter, uint32_t state, uint32_t timeout_ms);
/* -ETIMEDOUT, -EINTR: the guest has not answered this either. */
int hm_client_hook_undone(struct hm_client *client, struct hm_call *call);

/*
 * Waits of one session.  The guest answers one with each of its events, or with a few; it has
 * some at hand, so that it does not hear of a new one while a call waits for its reply.
 */
struct hm_hook_waits {
	struct hm_client *client;
	uint32_t session;
	struct hm_call calls[HM_HOOK_WAITS];
	void *data[HM_HOOK_WAITS];	/* of their answers */
	unsigned int first, n;		/* those that are under way: the oldest one */
};

void hm_hook_waits_init(struct hm_hook_waits *waits, struct hm_client *client, uint32_t session);
void hm_hook_waits_deinit(struct hm_hook_waits *waits);

/*
 * Until there are events, for ever if need be: struct hm_event *, which the array frees.
 * No other call waits for this one.
 */
int hm_hook_waits_next(struct hm_hook_waits *waits, GPtrArray **ret);

/* -ESRCH: no call waits for that. */
int hm_client_hook_reply(struct hm_client *client, uint32_t session, uint64_t id,
			 const struct hm_verdict *verdict);

/* The same without the guest's word on it: 0: it has been sent. */
int hm_client_hook_post(struct hm_client *client, uint32_t session, uint64_t id,
			const struct hm_verdict *verdict);

int hm_client_hook_counts(struct hm_client *client, uint32_t session, uint32_t number,
			  struct hm_hook_counts *ret);

/* The guest has sent something about hooks that cannot be. */
void hm_client_hook_complain(struct hm_client *client, const char *what);

#endif
