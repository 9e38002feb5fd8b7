// SPDX-License-Identifier: MIT
/*
 * turn: whose turn it is to receive.  See turn.h.
 *
 * The thread waits with epoll, since what it waits for can be changed there while it
 * does: while a caller has the turn, what comes must not wake up the thread.
 */
#include "bridge/turn.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#define NO_EVENTS 0U

int hm_turn_init(struct hm_turn *turn, struct hm_calls *calls, int wake)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = wake };

	*turn = (struct hm_turn){
		.epoll = epoll_create1(EPOLL_CLOEXEC),
		.calls = calls,
		.busy = true,
	};
	g_mutex_init(&turn->lock);
	g_cond_init(&turn->returned);
	g_queue_init(&turn->waiting);
	if (turn->epoll < 0 || epoll_ctl(turn->epoll, EPOLL_CTL_ADD, wake, &event) < 0)
		return -errno;
	return 0;
}

void hm_turn_deinit(struct hm_turn *turn)
{
	if (turn->epoll >= 0)
		close(turn->epoll);
	g_cond_clear(&turn->returned);
	g_mutex_clear(&turn->lock);
}

/* What wakes the thread up, once: these events, or that the connection has ended. */
static void turn_set_events(struct hm_turn *turn, uint32_t events)
{
	struct epoll_event event = { .events = events | EPOLLONESHOT, .data.fd = turn->fd };

	/* It fails only without memory or without fd; then its end wakes up the thread. */
	if (epoll_ctl(turn->epoll, EPOLL_CTL_MOD, turn->fd, &event) < 0)
		g_warning("cannot wait for the guest: %s", g_strerror(errno));
}

int hm_turn_watch(struct hm_turn *turn, int fd)
{
	struct epoll_event event = { .events = EPOLLONESHOT, .data.fd = fd };

	g_mutex_lock(&turn->lock);
	turn->fd = fd;
	turn->over = 0;
	g_mutex_unlock(&turn->lock);
	if (epoll_ctl(turn->epoll, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

static struct hm_call *turn_pop(struct hm_turn *turn)
{
	GList *link = g_queue_pop_head_link(&turn->waiting);

	return link ? g_steal_pointer(&link->data) : NULL;
}

/* To the first one in line, if there is one; who has its answer is about to leave. */
static bool turn_give(struct hm_turn *turn)
{
	do {
		turn->leader = turn_pop(turn);
	} while (turn->leader && !hm_calls_is_in_flight(turn->calls, turn->leader));
	if (turn->leader)
		sem_post(&turn->leader->wake);
	return turn->leader;
}

/* To the thread, which waits for `events` by now, or for `returned`. */
static void turn_return(struct hm_turn *turn, uint32_t events)
{
	turn->leader = NULL;
	g_cond_signal(&turn->returned);
	turn_set_events(turn, events);
}

static int timeout_ms(int64_t deadline)
{
	int64_t left = deadline - g_get_monotonic_time();

	if (deadline == INT64_MAX)
		return -1;
	return (int)CLAMP(left / G_TIME_SPAN_MILLISECOND + 1, 0, G_MAXINT);
}

/* 0: something has come, or as hm_turn_lend(); whoever's turn it is. */
static int turn_poll(struct hm_turn *turn, int64_t deadline)
{
	struct epoll_event events[2];
	int n = epoll_wait(turn->epoll, events, G_N_ELEMENTS(events), timeout_ms(deadline));

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++)
		if (events[i].data.fd != turn->fd)
			return -ENOTCONN;
	return n ? 0 : -ETIMEDOUT;
}

int hm_turn_lend(struct hm_turn *turn, int64_t deadline)
{
	int rc;

	g_mutex_lock(&turn->lock);
	turn->busy = false;
	if (!turn_give(turn))
		turn_set_events(turn, EPOLLIN);
	do {
		g_mutex_unlock(&turn->lock);
		rc = turn_poll(turn, deadline);
		g_mutex_lock(&turn->lock);
		/* Whose turn it is looks at `wake` and at deadlines, too, and gives it back then. */
		while (turn->leader && (rc == -ENOTCONN || rc == -ETIMEDOUT))
			g_cond_wait(&turn->returned, &turn->lock);
	} while (turn->leader);
	turn->busy = true;
	if (turn->over)
		rc = turn->over;
	g_mutex_unlock(&turn->lock);
	return rc;
}

bool hm_turn_enter(struct hm_turn *turn, struct hm_call *call)
{
	bool mine;

	g_mutex_lock(&turn->lock);
	mine = !turn->leader && !turn->busy && !turn->over;
	if (mine) {
		turn->leader = call;
		turn_set_events(turn, NO_EVENTS);
	} else {
		call->link = (GList){ .data = call };
		g_queue_push_tail_link(&turn->waiting, &call->link);
	}
	g_mutex_unlock(&turn->lock);
	return mine;
}

bool hm_turn_leave(struct hm_turn *turn, struct hm_call *call)
{
	bool mine;

	g_mutex_lock(&turn->lock);
	mine = turn->leader == call;
	if (!mine && call->link.data)
		g_queue_unlink(&turn->waiting, &call->link);
	g_mutex_unlock(&turn->lock);
	return mine;
}

void hm_turn_pass(struct hm_turn *turn, int over, bool in_frame)
{
	g_mutex_lock(&turn->lock);
	turn->over = over;
	/* A connection can be written to most of the time: that wakes up the thread. */
	if (over || !turn_give(turn))
		turn_return(turn, over || in_frame ? EPOLLIN | EPOLLOUT : EPOLLIN);
	g_mutex_unlock(&turn->lock);
}
