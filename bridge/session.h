/* SPDX-License-Identifier: MIT */
/*
 * session: the connection to the guest, from HELLO until it is lost, and again.
 *
 * Sends requests and receives replies.  Any thread sends, one frame at a time; a caller
 * that waits for its answer receives (turn.h).  The session's thread receives when nobody
 * waits, and makes the link again when it was lost.  While the link is up and nothing is
 * asked, that thread sleeps and no timer runs.
 *
 * A frame that was sent in part, or a header that cannot be, leaves no way to find
 * the next frame: the connection is given up.  What breaks a rule within a frame
 * only fails the request that it answers.
 */
#ifndef HM_SESSION_H
#define HM_SESSION_H

#include "bridge/calls.h"
#include "bridge/client.h"
#include "bridge/serial.h"
#include "bridge/turn.h"

/* Bytes that have come; larger data goes where it belongs without passing here. */
#define HM_INPUT_SIZE (16 * 1024)

struct hm_input {
	uint8_t buf[HM_INPUT_SIZE];
	size_t start, end;	/* what is in use of it */
	uint32_t left;		/* data of the current frame that has not come */
	uint64_t count;		/* bytes that have come on this connection */
	int64_t rest_by;	/* when more of a frame must have come; INT64_MAX: there is no part */
};

/* What has come on a serial line. */
struct hm_serial_input {
	struct hm_serial frames;
	uint8_t raw[4096];
};

struct hm_session {
	char *address;
	int timeout_ms;
	uint32_t flags;		/* HYPER_HELLO_* to the guest */
	bool trace;

	struct hm_calls calls;
	sem_t send_lock;	/* to send, to change fd; a signal ends the wait for it */
	int fd;			/* -1: not connected */
	bool torn;		/* part of a frame is out, and the rest never: under send_lock */
	gint peer;		/* atomic: hm_chardev_peer() of the last connection */
	int wake;		/* eventfd, readable: whoever uses fd must leave it */
	gint stop;		/* atomic: for good */
	GThread *thread;

	struct hm_turn turn;	/* to receive: whoever has it has these two */
	struct hm_input input;
	struct hm_serial_input *serial;	/* NULL: it is no serial line */

	/* The thread's own. */
	int64_t up_since;	/* g_get_monotonic_time() */
	int backoff_ms;		/* before the next attempt */
	int64_t patience;	/* with the next HELLO, microseconds */
	int trouble;		/* -errno that the user has been told of */
	struct hm_refusal refusal;
};

/* Errors as hm_client_open(). */
int hm_session_open(struct hm_session *session, const struct hm_client_config *config,
		    struct hm_refusal *refusal);
int hm_session_start(struct hm_session *session);
/* The end of all calls; may be called in a signal handler. */
void hm_session_stop(struct hm_session *session);
void hm_session_close(struct hm_session *session);

/*
 * A request on its way, deadline included; then wait for it or give it up.
 * After failure neither is due.  One that is patient does not receive while it waits: the
 * session's thread does it, or who waits for something else.
 */
int hm_session_send(struct hm_session *session, struct hm_call *call);
int hm_session_wait(struct hm_session *session, struct hm_call *call);
void hm_session_give_up(struct hm_session *session, struct hm_call *call);
/* One that the guest does not answer: nothing is due then. */
int hm_session_post(struct hm_session *session, struct hm_call *call);

#endif
