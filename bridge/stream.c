// SPDX-License-Identifier: MIT
/*
 * stream: the bytes of a connection.  See stream.h.
 *
 * stream_receive() takes what is there and never waits.  Around it are two loops: that of
 * the session's thread, and that of a caller whose turn it is.
 */
#include "bridge/stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "bridge/chardev.h"
#include "bridge/trace.h"

void hm_stream_trace(const struct hm_session *session, const struct hm_header *header,
			  bool to_guest)
{
	g_autofree char *line = NULL;

	if (!session->trace)
		return;
	line = hm_header_to_string(header, to_guest);
	g_debug("%s", line);
}

void hm_stream_break(struct hm_session *session)
{
	uint64_t one = 1;

	/* It cannot fail but for a counter that is full, and so readable. */
	if (write(session->wake, &one, sizeof(one)) < 0)
		return;
}

int hm_stream_poll(struct hm_session *session, int fd, short events, int64_t deadline)
{
	struct pollfd fds[] = {
		{ .fd = session->wake, .events = POLLIN },
		{ .fd = fd, .events = events },
	};
	struct timespec ts;
	int64_t left;
	int n;

	left = deadline == INT64_MAX ? 0 : MAX(deadline - g_get_monotonic_time(), 0);
	ts.tv_sec = left / G_TIME_SPAN_SECOND;
	ts.tv_nsec = left % G_TIME_SPAN_SECOND * 1000;
	n = ppoll(fds, G_N_ELEMENTS(fds), deadline == INT64_MAX ? NULL : &ts, NULL);
	if (n < 0)
		return -errno;
	if (fds[0].revents)
		return -ENOTCONN;
	return n ? 0 : -ETIMEDOUT;
}

static void iov_advance(struct iovec *iov, size_t n_iov, size_t n)
{
	for (size_t i = 0; i < n_iov; i++) {
		size_t part = MIN(n, iov[i].iov_len);

		iov[i].iov_base = (char *)iov[i].iov_base + part;
		iov[i].iov_len -= part;
		n -= part;
	}
}

static int stream_write(struct hm_session *session, struct iovec *iov, size_t n_iov,
			int64_t deadline)
{
	bool (*interrupted)(void) = session->calls.interrupted;
	size_t left = iov[0].iov_len + (n_iov > 1 ? iov[1].iov_len : 0);
	bool begun = false;
	int rc = 0;

	while (left && !rc) {
		ssize_t n = hm_chardev_send(session->fd, iov, n_iov);

		if (n >= 0) {
			begun = true;
			left -= n;
			iov_advance(iov, n_iov, n);
		} else if (n == -EAGAIN) {
			rc = hm_stream_poll(session, session->fd, POLLOUT, deadline);
			if (rc == -EINTR && (begun || !interrupted || !interrupted()))
				rc = 0;
		} else {
			begun = true;
			rc = -ENOTCONN;
		}
	}
	if (rc && begun) {
		session->torn = true;
		hm_stream_break(session);
	}
	return rc;
}

int hm_stream_write(struct hm_session *session, struct iovec *iov, size_t n_iov, int64_t deadline)
{
	g_autoptr(GByteArray) line = NULL;
	struct iovec whole;

	/* The guest would take it for the rest of the frame before. */
	if (session->torn)
		return -ENOTCONN;
	if (!session->serial)
		return stream_write(session, iov, n_iov, deadline);
	line = g_byte_array_new();
	hm_serial_encode(iov, n_iov, line);
	whole = (struct iovec){ line->data, line->len };
	return stream_write(session, &whole, 1, deadline);
}

size_t hm_input_size(const struct hm_input *input)
{
	return input->end - input->start;
}

/* Take bytes from `input` that belong to the current frame's data. */
static void stream_take_data(struct hm_session *session)
{
	struct hm_input *input = &session->input;
	struct hm_call *call = session->calls.filling;
	uint32_t n = MIN(hm_input_size(input), input->left);

	if (call)
		memcpy((char *)call->in + call->n - input->left, input->buf + input->start, n);
	input->start += n;
	input->left -= n;
	if (!input->left)
		hm_calls_filled(&session->calls);
}

/* -ENETRESET: the guest wants a HELLO; -EPROTO: it makes no sense. */
static int stream_take_header(struct hm_session *session)
{
	struct hm_input *input = &session->input;
	struct hm_calls *calls = &session->calls;
	struct hm_header header;

	hm_header_decode(input->buf + input->start, &header);
	input->start += HYPERMEM_HEADER_SIZE;
	hm_stream_trace(session, &header, false);
	if (hm_header_check(&header, calls->guest.max_data)) {
		hm_complain(&calls->complaints, &header, false, "is not a frame");
		return -EPROTO;
	}
	if (header.op == HYPER_RESP_RESET)
		return -ENETRESET;
	hm_calls_reply(calls, &header);
	input->left = hm_header_data_size(&header);
	return 0;
}

/* Everything in `input`, but the beginning of a header. */
static int stream_take(struct hm_session *session)
{
	struct hm_input *input = &session->input;
	int rc = 0;

	while (!rc) {
		if (input->left && hm_input_size(input))
			stream_take_data(session);
		else if (!input->left && hm_input_size(input) >= HYPERMEM_HEADER_SIZE)
			rc = stream_take_header(session);
		else
			break;
	}
	return rc;
}

static void input_compact(struct hm_input *input)
{
	memmove(input->buf, input->buf + input->start, hm_input_size(input));
	input->end -= input->start;
	input->start = 0;
}

/* The frames among the bytes go into `input`, which has room for as many as can be. */
static int stream_read_serial(struct hm_session *session)
{
	struct hm_serial_input *serial = session->serial;
	struct hm_input *input = &session->input;
	struct iovec iov = { serial->raw, sizeof(serial->raw) };
	ssize_t n = hm_chardev_receive(session->fd, &iov, 1);
	size_t size;

	if (n < 0)
		return n == -EAGAIN ? 0 : n;
	input->count += n;
	for (ssize_t done = 0; done < n;) {
		done += hm_serial_decode(&serial->frames, serial->raw + done, n - done, &size);
		if (size > sizeof(input->buf) - input->end)
			return -EPROTO;
		memcpy(input->buf + input->end, serial->frames.bytes, size);
		input->end += size;
	}
	return 0;
}

int hm_stream_read(struct hm_session *session)
{
	struct hm_input *input = &session->input;
	struct hm_call *call = session->calls.filling;
	struct iovec iov[2];
	size_t direct = 0;
	ssize_t n;

	input_compact(input);
	if (session->serial)
		return stream_read_serial(session);
	if (call) {
		direct = input->left;
		iov[0] = (struct iovec){ (char *)call->in + call->n - direct, direct };
	}
	iov[!!call] = (struct iovec){ input->buf + input->end, sizeof(input->buf) - input->end };
	n = hm_chardev_receive(session->fd, iov, call ? 2 : 1);
	if (n < 0)
		return n == -EAGAIN ? 0 : n;
	input->count += n;
	direct = MIN(direct, (size_t)n);
	input->end += n - direct;
	if (direct) {
		input->left -= direct;
		if (!input->left)
			hm_calls_filled(&session->calls);
	}
	return 0;
}

/*
 * When more must have come of a frame of which there is a part: a guest that was reset in
 * the middle of it will not send it, and would not be understood any more.
 */
static void stream_set_rest_by(struct hm_session *session, bool more)
{
	struct hm_input *input = &session->input;

	if (!input->left && !hm_input_size(input))
		input->rest_by = INT64_MAX;
	else if (more || input->rest_by == INT64_MAX)
		/* A guest that is only slow may be so for longer than its caller waits. */
		input->rest_by = g_get_monotonic_time() + G_TIME_SPAN_SECOND +
				 2 * session->timeout_ms * G_TIME_SPAN_MILLISECOND;
}

/* What is there now; never waits. */
static int stream_receive(struct hm_session *session)
{
	uint64_t before = session->input.count;
	int rc;

	g_mutex_lock(&session->calls.fill_lock);
	rc = stream_take(session);
	if (!rc)
		rc = hm_stream_read(session);
	if (!rc)
		rc = stream_take(session);
	stream_set_rest_by(session, session->input.count != before);
	g_mutex_unlock(&session->calls.fill_lock);
	return rc;
}

int hm_stream_serve(struct hm_session *session)
{
	int rc = hm_turn_watch(&session->turn, session->fd);

	while (!rc) {
		rc = stream_receive(session);
		if (!rc)
			rc = hm_turn_lend(&session->turn, session->input.rest_by);
		/* Callers may have received the rest meanwhile. */
		if (rc == -EINTR ||
		    (rc == -ETIMEDOUT && g_get_monotonic_time() < session->input.rest_by))
			rc = 0;
	}
	return rc;
}

/* Wait for bytes and take them; rc and *ret_over as hm_stream_lead(). */
static int stream_lead_once(struct hm_session *session, const struct hm_call *call, int *ret_over)
{
	bool (*interrupted)(void) = session->calls.interrupted;
	int64_t rest_by = session->input.rest_by;
	int rc = hm_stream_poll(session, session->fd, POLLIN, MIN(call->deadline, rest_by));

	if (rc == -EINTR)
		return !call->sure && interrupted && interrupted() ? -EINTR : 0;
	if (rc == -ETIMEDOUT && g_get_monotonic_time() < rest_by)
		return rc;
	if (!rc)
		rc = stream_receive(session);
	*ret_over = rc;
	return rc ? -ENOTCONN : 0;
}

int hm_stream_lead(struct hm_session *session, struct hm_call *call, int *ret_over)
{
	int rc = 0;

	while (!rc && hm_calls_is_in_flight(&session->calls, call))
		rc = stream_lead_once(session, call, ret_over);
	return rc;
}
