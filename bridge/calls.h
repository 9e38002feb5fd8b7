/* SPDX-License-Identifier: MIT */
/*
 * calls: the requests in flight, from their callers' threads to their replies.
 *
 * Gives each request a slot and a tag, finds the request that a reply is to,
 * and wakes its caller.  It knows no connection: session.c opens and closes it.
 *
 * A caller that gives up (deadline, Ctrl-C) leaves its tag behind, owed: no other
 * request gets that tag until the late reply has come or the session has ended.
 * Requests in flight never exceed what HELLO said.  Owed ones count, as the guest
 * may still be at work on them, but for half of the slots at most: a guest that
 * answers some requests never must not keep others from being asked.
 */
#ifndef HM_CALLS_H
#define HM_CALLS_H

#include <glib.h>
#include <semaphore.h>

#include "bridge/complaints.h"
#include "bridge/wire.h"

/* Tag of HELLO and of what the guest says unasked; no call has it. */
#define HM_TAG_NONE 0

/* So many answers owed: they will never come. */
#define HM_OWED_MAX 4096

struct hm_calls;

enum hm_call_state {
	HM_CALL_IDLE = 0,
	HM_CALL_QUEUED,		/* waits for a slot */
	HM_CALL_FLIGHT,		/* has a slot and a tag */
	HM_CALL_DONE,		/* `rc` says how it went */
};

/* A request, in its caller's memory. */
struct hm_call {
	/* Set by the caller. */
	struct hm_header request;	/* but the tag */
	const void *out;		/* data behind it: request.size bytes if its op has data */
	uint32_t limit;			/* bytes that are asked for */
	void *in;			/* room for that many; NULL: *in_alloc gets them */
	void **in_alloc;		/* g_free() it */
	uint64_t epoch;			/* which boot is meant; 0: any.  Then: which it was */
	uint32_t session;		/* which session is meant; 0: any.  Then: which it was */
	bool slow;			/* the guest may take longer than for others */
	bool sure;			/* once it is sent it may be done: no signal ends the wait */
	bool patient;			/* once it is sent it waits for ever, and for its answer alone */
	int64_t deadline;		/* g_get_monotonic_time() */

	/* Valid after success. */
	uint32_t n;			/* bytes read or written */
	int fault;			/* why not all of them: 0 or -errno */
	uint64_t addr;			/* of the reply: next cursor */

	/* Private. */
	sem_t wake;			/* posted when `state` gets FLIGHT after QUEUED, and DONE ... */
	GList link;			/* ... and when it is the caller's turn: turn.h */
	enum hm_call_state state;
	int rc;
};

struct hm_calls {
	bool (*interrupted)(void);

	/*
	 * Held while bytes are put into `filling`'s memory, and outside `lock`: a
	 * caller that gives up takes it, and so has its memory for itself again.
	 */
	GMutex fill_lock;
	struct hm_call *filling;	/* whose reply's data is arriving; NULL: nobody's */

	GMutex lock;			/* protects what follows, and `state` and `rc` of calls */
	GCond changed;			/* open or ended is true */
	bool open;
	bool ended;			/* for good: there will be no session any more */
	uint32_t session;		/* counts them; not 0 when there has been one */
	struct hm_guest guest;		/* the last one, if not open */
	GHashTable *tags;		/* tag -> struct hm_call, or `owed` */
	GQueue queue;			/* calls that wait for a slot */
	uint32_t flight;		/* calls that have one */
	uint32_t owed;			/* tags of calls that were given up */
	uint16_t last_tag;

	struct hm_complaints complaints;
};

void hm_calls_init(struct hm_calls *calls, bool (*interrupted)(void));
void hm_calls_deinit(struct hm_calls *calls);

/* A session begins. */
void hm_calls_open(struct hm_calls *calls, const struct hm_guest *guest);
/* It is over: every call fails with -ENOTCONN. */
void hm_calls_close(struct hm_calls *calls);
/* There will be none any more. */
void hm_calls_end(struct hm_calls *calls);
/*
 * Until there is a session other than `last`: *ret is its number.  -ECANCELED: there will
 * be none any more.
 */
int hm_calls_wait_open(struct hm_calls *calls, uint32_t last, uint32_t *ret);
/* -ENOTCONN: there is no session; *ret is the last one's guest. */
int hm_calls_guest(struct hm_calls *calls, struct hm_guest *ret);

void hm_call_init(struct hm_call *call);
void hm_call_deinit(struct hm_call *call);

/* In the caller's thread.  After success, one of the next ones is due, or the answer. */
int hm_calls_add(struct hm_calls *calls, struct hm_call *call);
bool hm_calls_is_in_flight(struct hm_calls *calls, struct hm_call *call);
/* It was not sent, or is never answered.  -ENOTCONN: the session was over before. */
int hm_calls_cancel(struct hm_calls *calls, struct hm_call *call);
/*
 * The answer does not matter any more, or does not come because of rc.  rc, or if it has
 * come at the last moment how it went.
 */
int hm_calls_give_up(struct hm_calls *calls, struct hm_call *call, int rc);
uint32_t hm_calls_owed(struct hm_calls *calls);

/*
 * In the receiver's thread, with fill_lock held: the header of a reply has come.
 * Sets `filling` if its data is for somebody, otherwise it is to be skipped.
 */
void hm_calls_reply(struct hm_calls *calls, const struct hm_header *reply);
/* `filling` has all of it. */
void hm_calls_filled(struct hm_calls *calls);

/* Wait for `sem`: 0, -ETIMEDOUT or, if `interrupted` says so after a signal, -EINTR. */
int hm_sem_wait(sem_t *sem, int64_t deadline, bool (*interrupted)(void));

#endif
