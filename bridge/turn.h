/* SPDX-License-Identifier: MIT */
/*
 * turn: whose turn it is to receive.
 *
 * One thread at a time receives.  It is a caller that waits for its answer, if there is
 * one: then no other thread has to be woken up for it.  When the caller has its answer it
 * passes the turn on to another one that waits, and the last one to the session's own
 * thread, which receives what comes while nobody waits, and does all that is not
 * receiving: when the session is over, whoever finds out passes it that on, too.
 *
 * The turn is always somebody's: a caller's, or the thread's.  It is passed, never
 * dropped, so that nobody has to look whether it is free.
 */
#ifndef HM_TURN_H
#define HM_TURN_H

#include "bridge/calls.h"

struct hm_turn {
	int epoll;		/* what the session's thread waits with: `wake`, and the connection */

	struct hm_calls *calls;

	GMutex lock;		/* protects what follows; calls->lock is taken under it */
	int fd;			/* the connection */
	GCond returned;		/* leader is NULL again */
	struct hm_call *leader;	/* the caller whose turn it is; NULL: the thread's */
	bool busy;		/* the thread is at work: only it can pass the turn on */
	int over;		/* why the session is over: from a caller, for the thread */
	GQueue waiting;		/* callers that wait for an answer, by their call's `link` ... */
				/* ... whose data is NULL when it is not in the queue any more */
};

/* wake: an eventfd that ends the thread's waits. */
int hm_turn_init(struct hm_turn *turn, struct hm_calls *calls, int wake);
void hm_turn_deinit(struct hm_turn *turn);

/* In the session's thread, whose turn it is: another connection is to be waited for. */
int hm_turn_watch(struct hm_turn *turn, int fd);
/*
 * In the session's thread: let callers have the turn, and take it back when something has
 * come and none of them wants it.  0 (also without anything to receive), -ETIMEDOUT (when
 * callers have had the turn, perhaps for no reason), -EINTR, -ENOTCONN (wake was written
 * to), or what hm_turn_pass() was told.
 */
int hm_turn_lend(struct hm_turn *turn, int64_t deadline);

/*
 * In a caller's thread.  True: it is this caller's turn.  If not it is in line, and
 * call->wake is posted when the turn comes, or before that the answer.
 */
bool hm_turn_enter(struct hm_turn *turn, struct hm_call *call);
/* The wait is over; true: it is this caller's turn now, and hm_turn_pass() is due. */
bool hm_turn_leave(struct hm_turn *turn, struct hm_call *call);
/*
 * The turn goes on.  over: 0, or why nobody can receive any more.  in_frame: the thread
 * must see to it that the rest of a frame comes.
 */
void hm_turn_pass(struct hm_turn *turn, int over, bool in_frame);

#endif
