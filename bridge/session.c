// SPDX-License-Identifier: MIT
/*
 * session: one connection after another, and the thread that makes them.  See session.h.
 *
 * Locks, outermost first: send_lock, calls.fill_lock, turn.lock, calls.lock.
 */
#include "bridge/session.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bridge/chardev.h"
#include "bridge/stream.h"

/*
 * So long a connection waits for the answer to HELLO before it is made anew, and then
 * longer and longer.  The guest may be booting; but QEMU's port may also be stuck, when
 * the host before left while it was being written to, and only a new connection cures that.
 */
#define PATIENCE_MIN (1 * G_TIME_SPAN_SECOND)
#define PATIENCE_MAX (32 * G_TIME_SPAN_SECOND)

/* Fewer characters may be half a frame that looks like text. */
#define HEARD_MIN 8

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
/* A session that lasted so long was a good one: no need to wait. */
#define SESSION_GOOD (2 * G_TIME_SPAN_SECOND)

/* So many times the deadline of others has a call that is slow. */
#define SLOW 12

/* Of connecting in the background; closing waits for it. */
#define RECONNECT_MAX_MS 2000

/* 0: it is out, or the session is over and the call has been told. */
static int session_send_call(struct hm_session *session, struct hm_call *call)
{
	uint8_t header[HYPERMEM_HEADER_SIZE];
	struct iovec iov[] = {
		{ header, sizeof(header) },
		{ (void *)call->out, hm_header_data_size(&call->request) },
	};
	int rc = hm_sem_wait(&session->send_lock, call->deadline, session->calls.interrupted);

	if (rc)
		return rc;
	if (hm_calls_is_in_flight(&session->calls, call)) {
		hm_stream_trace(session, &call->request, true);
		hm_header_encode(&call->request, header);
		rc = hm_stream_write(session, iov, iov[1].iov_len ? 2 : 1, call->deadline);
	}
	sem_post(&session->send_lock);
	return rc;
}

int hm_session_send(struct hm_session *session, struct hm_call *call)
{
	int rc;

	call->deadline = g_get_monotonic_time() +
			 session->timeout_ms * G_TIME_SPAN_MILLISECOND * (call->slow ? SLOW : 1);
	rc = hm_calls_add(&session->calls, call);
	if (rc)
		return rc;
	rc = session_send_call(session, call);
	if (rc)
		hm_calls_cancel(&session->calls, call);
	if (call->patient)
		call->deadline = INT64_MAX;
	return rc;
}

int hm_session_post(struct hm_session *session, struct hm_call *call)
{
	int rc = hm_session_send(session, call);

	return rc ? rc : hm_calls_cancel(&session->calls, call);
}

static void session_check_owed(struct hm_session *session)
{
	if (hm_calls_owed(&session->calls) > HM_OWED_MAX)
		hm_stream_break(session);
}

/*
 * Receive until the answer is there, and pass the turn on.  If it is over, nobody may find
 * the session open any more once this caller knows.
 */
static int session_lead(struct hm_session *session, struct hm_call *call)
{
	int over = 0, rc = hm_stream_lead(session, call, &over);

	if (over)
		hm_calls_close(&session->calls);
	hm_turn_pass(&session->turn, over, session->input.rest_by != INT64_MAX);
	return rc;
}

/* In line for the turn until it comes, or the answer does. */
static int session_follow(struct hm_session *session, struct hm_call *call)
{
	int rc = hm_sem_wait(&call->wake, call->deadline,
			     call->sure ? NULL : session->calls.interrupted);

	if (!hm_turn_leave(&session->turn, call))
		return rc;
	if (!rc)
		return session_lead(session, call);
	hm_turn_pass(&session->turn, 0, session->input.rest_by != INT64_MAX);
	return rc;
}

int hm_session_wait(struct hm_session *session, struct hm_call *call)
{
	int rc = 0;

	/* Had it the turn, a call that is soon answered would have to wait for this thread. */
	if (call->patient)
		rc = hm_sem_wait(&call->wake, call->deadline, session->calls.interrupted);
	else if (hm_calls_is_in_flight(&session->calls, call))
		rc = hm_turn_enter(&session->turn, call) ? session_lead(session, call) :
							      session_follow(session, call);
	if (!rc)
		return call->rc;
	rc = hm_calls_give_up(&session->calls, call, rc);
	session_check_owed(session);
	return rc;
}

void hm_session_give_up(struct hm_session *session, struct hm_call *call)
{
	hm_calls_give_up(&session->calls, call, 0);
	session_check_owed(session);
}

/* Nobody sends while fd changes: a sender that waits is told by hm_stream_break(). */
static void session_set_fd(struct hm_session *session, int fd)
{
	int old;

	while (sem_wait(&session->send_lock) < 0)
		;
	old = session->fd;
	session->fd = fd;
	session->torn = false;
	sem_post(&session->send_lock);
	if (old >= 0)
		close(old);
}

static int session_connect(struct hm_session *session, int timeout_ms)
{
	int fd, rc;

	rc = hm_chardev_open(session->address, timeout_ms, &fd);
	if (rc)
		return rc;
	session->input = (struct hm_input){ .rest_by = INT64_MAX };
	if (session->serial)
		hm_serial_init(&session->serial->frames);
	g_atomic_int_set(&session->peer, hm_chardev_peer(fd));
	session_set_fd(session, fd);
	return 0;
}

static void session_disconnect(struct hm_session *session)
{
	uint64_t count;

	hm_calls_close(&session->calls);
	hm_stream_break(session);		/* senders let go of fd ... */
	session_set_fd(session, -1);
	if (!g_atomic_int_get(&session->stop) &&
	    read(session->wake, &count, sizeof(count)) < 0)	/* ... and may come again */
		g_debug("eventfd: %s", g_strerror(errno));
}

/* Say once why there is no session, not with each attempt. */
static void session_tell(struct hm_session *session, int rc, uint32_t version)
{
	if (rc == session->trouble)
		return;
	session->trouble = rc;
	if (rc == 0)
		g_message("%s: connected again", session->address);
	else if (rc == -EPROTONOSUPPORT)
		g_warning("%s: the guest's module speaks version %u of the protocol now, this hypermemfs version %u; use module and hypermemfs of one release",
			  session->address, version, HYPERMEM_VERSION);
	else
		g_warning("%s: no link to the guest (%s); waiting for it", session->address,
			  g_strerror(-rc));
}

/* Sleep before the next attempt; -ENOTCONN: to stop. */
static int session_back_off(struct hm_session *session)
{
	int64_t until = g_get_monotonic_time() +
			session->backoff_ms * G_TIME_SPAN_MILLISECOND;
	int rc;

	session->backoff_ms = MIN(session->backoff_ms * 2, BACKOFF_MAX_MS);
	do {
		rc = hm_stream_poll(session, -1, 0, until);
	} while (rc == -EINTR);
	return rc == -ETIMEDOUT ? 0 : rc;
}

/* HELLO on the connection that there is; the next one waits longer for the answer. */
static int session_renew(struct hm_session *session, int64_t deadline, struct hm_guest *ret)
{
	int64_t until = g_get_monotonic_time() + session->patience;
	int rc = hm_session_hello(session, MIN(until, deadline), ret);

	/* Who has answered, whatever it was, has not been waited for too shortly. */
	session->patience = rc == -ETIMEDOUT ? MIN(session->patience * 2, PATIENCE_MAX) :
						       PATIENCE_MIN;
	return rc;
}

/* The same in the background, where the user is told of what changes. */
static int session_renew_and_tell(struct hm_session *session)
{
	struct hm_guest guest = {};
	int rc = session_renew(session, INT64_MAX, &guest);

	session_tell(session, rc, guest.version);
	return rc;
}

/* From here to the end of the connection. */
static void session_run(struct hm_session *session)
{
	int rc = session->up_since ? 0 : session_renew_and_tell(session);

	while (rc == 0) {
		rc = hm_stream_serve(session);
		if (g_get_monotonic_time() - session->up_since > SESSION_GOOD)
			session->backoff_ms = BACKOFF_MIN_MS;
		session->up_since = 0;
		hm_calls_close(&session->calls);
		if (rc == -ENETRESET) {
			/* The same connection, but not in a loop if the guest says nothing else. */
			rc = session->backoff_ms > BACKOFF_MIN_MS ? session_back_off(session) : 0;
			session->backoff_ms = MIN(session->backoff_ms * 2, BACKOFF_MAX_MS);
			session->input.left = 0;
			if (rc == 0)
				rc = session_renew_and_tell(session);
		}
	}
	if (!g_atomic_int_get(&session->stop))
		session_tell(session, rc, 0);
}

static gpointer session_thread(gpointer arg)
{
	struct hm_session *session = arg;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (!g_atomic_int_get(&session->stop)) {
		int rc = session->fd >= 0 ? 0 : session_connect(session, RECONNECT_MAX_MS);

		if (rc == 0)
			session_run(session);
		else
			session_tell(session, rc, 0);
		session_disconnect(session);
		if (!g_atomic_int_get(&session->stop))
			session_back_off(session);
	}
	/* Stopped before it has begun, it has not closed what was opened for it. */
	hm_calls_close(&session->calls);
	hm_calls_end(&session->calls);
	return NULL;
}

/* Connect and say HELLO, until the deadline. */
static int session_open(struct hm_session *session, int64_t deadline, struct hm_guest *ret)
{
	int64_t left;
	int rc;

	do {
		left = deadline - g_get_monotonic_time();
		rc = session_connect(session, (int)(left / G_TIME_SPAN_MILLISECOND));
		if (rc == 0)
			rc = session_renew(session, deadline, ret);
	} while (rc == -ETIMEDOUT && g_get_monotonic_time() < deadline);
	return rc;
}

int hm_session_open(struct hm_session *session, const struct hm_client_config *config,
		    struct hm_refusal *refusal)
{
	int64_t deadline = g_get_monotonic_time() +
			   config->timeout_ms * G_TIME_SPAN_MILLISECOND;
	struct hm_guest guest = {};
	int rc;

	*session = (struct hm_session){
		.address = g_strdup(config->address),
		.timeout_ms = config->timeout_ms,
		.flags = config->readonly ? HYPER_HELLO_READONLY : 0,
		.trace = config->trace,
		.fd = -1,
		.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.backoff_ms = BACKOFF_MIN_MS,
		.patience = PATIENCE_MIN,
	};
	if (hm_chardev_is_serial(config->address))
		session->serial = g_new0(struct hm_serial_input, 1);
	sem_init(&session->send_lock, 0, 1);
	hm_calls_init(&session->calls, config->interrupted);
	rc = hm_turn_init(&session->turn, &session->calls, session->wake);
	if (!rc)
		rc = session_open(session, deadline, &guest);
	if (rc == -ETIMEDOUT && strlen(session->refusal.heard) >= HEARD_MIN)
		rc = -EBADMSG;
	if (rc) {
		session->refusal.version = guest.version;
		*refusal = session->refusal;
		hm_session_close(session);
	}
	return rc;
}

int hm_session_start(struct hm_session *session)
{
	session->thread = g_thread_try_new("hypermem", session_thread, session, NULL);
	return session->thread ? 0 : -EAGAIN;
}

void hm_session_stop(struct hm_session *session)
{
	int saved = errno;

	g_atomic_int_set(&session->stop, 1);
	hm_stream_break(session);
	errno = saved;
}

void hm_session_close(struct hm_session *session)
{
	hm_session_stop(session);
	if (session->thread)
		g_thread_join(session->thread);
	hm_calls_close(&session->calls);
	if (session->fd >= 0)
		close(session->fd);
	if (session->wake >= 0)
		close(session->wake);
	hm_turn_deinit(&session->turn);
	hm_calls_deinit(&session->calls);
	sem_destroy(&session->send_lock);
	g_free(session->serial);
	g_free(session->address);
}
