/* SPDX-License-Identifier: MIT */
/*
 * stream: the bytes of a session's connection, for session.c and hello.c.
 *
 * Whole frames go out; what has come goes to the calls that it answers.  It does
 * not know how a connection is made, or made again.
 */
#ifndef HM_STREAM_H
#define HM_STREAM_H

#include <sys/uio.h>

#include "bridge/session.h"

/* The frame as a line, if lines were asked for. */
void hm_stream_trace(const struct hm_session *session, const struct hm_header *header,
		     bool to_guest);

/* Everybody away from fd. */
void hm_stream_break(struct hm_session *session);

/*
 * Wait until fd (-1: nothing) is ready for `events`: 0, -ETIMEDOUT, -EINTR (a
 * signal), -ENOTCONN (hm_stream_break() was called).
 */
int hm_stream_poll(struct hm_session *session, int fd, short events, int64_t deadline);

/*
 * Send a frame with send_lock held.  A frame that has been begun cannot be taken
 * back, not even by Ctrl-C: it is finished, or the session is, and nothing is sent behind it.
 */
int hm_stream_write(struct hm_session *session, struct iovec *iov, size_t n_iov,
		    int64_t deadline);

/* Bytes that have come and belong to nobody yet. */
size_t hm_input_size(const struct hm_input *input);

/* Bytes from fd: into the waiting call's memory as far as they are its, then into `input`. */
int hm_stream_read(struct hm_session *session);

/* In the session's thread, until the session is over: why. */
int hm_stream_serve(struct hm_session *session);

/*
 * In the thread of a caller whose turn it is, until the answer has come: 0.  Or why it
 * has not: -ETIMEDOUT, -EINTR, -ENOTCONN; then *ret_over says why the session is over, if
 * it is.
 */
int hm_stream_lead(struct hm_session *session, struct hm_call *call, int *ret_over);

/* hello.c */
/*
 * Begin a session.  When HELLO had to be said more than once, later answers may be
 * on their way, and of another boot than the first: ask again, in a way that those
 * do not answer, and with more patience, as the guest may be slow.
 */
int hm_session_hello(struct hm_session *session, int64_t deadline, struct hm_guest *ret);

#endif
