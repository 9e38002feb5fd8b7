// SPDX-License-Identifier: MIT
/*
 * hello: HELLO until the guest answers.  See stream.h.
 *
 * What comes before the answer belongs to an earlier session, or is noise; the answer
 * is known by the nonce that HELLO had.
 */
#include "bridge/stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>

#define HELLO_SIZE (HYPERMEM_HEADER_SIZE + sizeof(struct hypermem_hello))

/* HELLO is said again after 1 s, then every 2 s, and soon after a RESET. */
#define HELLO_FIRST (1 * G_TIME_SPAN_SECOND)
#define HELLO_AGAIN (2 * G_TIME_SPAN_SECOND)
#define HELLO_INVITED (10 * G_TIME_SPAN_MILLISECOND)
/* ... but later each time, up to 64 times that: a guest may say nothing but RESET. */
#define HELLO_INVITED_DOUBLINGS 6

/* A question to the guest who it is, until it has been answered. */
struct hello {
	uint64_t nonce;
	int64_t next;		/* when it is said again */
	int64_t interval;	/* and again */
	int64_t limit;		/* of the interval */
	int said;		/* times, with this nonce */
	int wrong;		/* -errno of an answer that was none, or 0 */
};

static int hello_say(struct hm_session *session, struct hello *hello, int64_t deadline)
{
	struct hm_header header = {
		.op = HYPER_OP_HELLO,
		.tag = HM_TAG_NONE,
		.addr = HYPERMEM_MAGIC,
		.size = sizeof(struct hypermem_hello),
	};
	uint8_t buf[HELLO_SIZE];
	struct iovec iov = { buf, sizeof(buf) };
	int rc;

	hello->next = g_get_monotonic_time() + hello->interval;
	/* The guest takes no bytes now: those that wait for it are HELLOs enough. */
	rc = hm_stream_poll(session, session->fd, POLLOUT, 0);
	if (rc)
		return rc == -ETIMEDOUT || rc == -EINTR ? 0 : rc;

	hm_header_encode(&header, buf);
	hm_hello_encode(session->flags, hello->nonce, HYPERMEM_DATA_MAX,
			buf + HYPERMEM_HEADER_SIZE);
	rc = hm_sem_wait(&session->send_lock, deadline, NULL);
	if (rc)
		return rc;
	hm_stream_trace(session, &header, true);
	rc = hm_stream_write(session, &iov, 1, MIN(deadline, hello->next));
	sem_post(&session->send_lock);
	if (rc == 0)
		hello->said++;
	return rc;
}

/* A header that only a guest that got this HELLO can have sent. */
static bool hello_is_answer(const struct hello *hello, const struct hm_header *header)
{
	return header->op == HYPER_RESP_READ_OK && header->addr == hello->nonce && !header->pid &&
	       header->tag == HM_TAG_NONE && !header->stamp;
}

static int64_t hello_invited(const struct hello *hello)
{
	return HELLO_INVITED << CLAMP(hello->said - 1, 0, HELLO_INVITED_DOUBLINGS);
}

static bool hello_is_invitation(const struct hm_header *header)
{
	return header->op == HYPER_RESP_RESET && !header->pid && !header->addr && !header->size &&
	       header->tag == HM_TAG_NONE && !header->stamp;
}

/* An answer's data: -EAGAIN: more must come; or as hm_hello_reply_decode(). */
static int hello_decode(struct hm_input *input, const struct hm_header *header,
			struct hm_guest *ret)
{
	int rc;

	if (header->size > HYPERMEM_CHUNK_SIZE)
		return -EPROTO;
	if (hm_input_size(input) < HYPERMEM_HEADER_SIZE + header->size)
		return -EAGAIN;
	rc = hm_hello_reply_decode(input->buf + input->start + HYPERMEM_HEADER_SIZE, header->size,
				   ret);
	if (!rc)
		input->start += HYPERMEM_HEADER_SIZE + header->size;
	return rc;
}

/*
 * Look for the answer at every byte: what is before it belongs to an earlier
 * session, or is noise.  Half an answer, whose rest was lost, is noise as well
 * when HELLO has been said again.
 */
static int hello_find(struct hm_session *session, struct hello *hello, struct hm_guest *ret)
{
	struct hm_input *input = &session->input;
	struct hm_header header;

	for (; hm_input_size(input) >= HYPERMEM_HEADER_SIZE; input->start++) {
		int rc;

		hm_header_decode(input->buf + input->start, &header);
		if (hello_is_invitation(&header)) {
			hm_stream_trace(session, &header, false);
			hello->next = MIN(hello->next,
					  g_get_monotonic_time() + hello_invited(hello));
		}
		if (!hello_is_answer(hello, &header))
			continue;
		rc = hello_decode(input, &header, ret);
		if (rc == -EAGAIN)
			return rc;
		hm_stream_trace(session, &header, false);
		if (rc == 0 || hello->said == 1)
			return rc;
		hello->wrong = rc;
	}
	return -EAGAIN;
}

/*
 * Keep how it begins, if it is text: then it is no guest's module that talks there.  The
 * last n bytes that were read are meant.
 */
static void hello_hear(struct hm_session *session, size_t n)
{
	const struct hm_input *input = &session->input;
	const uint8_t *bytes = session->serial ? session->serial->raw :
						 input->buf + input->end - n;
	char *heard = session->refusal.heard;
	size_t had = strlen(heard), max = sizeof(session->refusal.heard) - 1;

	if (had != session->input.count - n)
		return;		/* it was none */
	for (size_t i = 0; i < n && had < max; i++) {
		if (!g_ascii_isprint(bytes[i]) && !g_ascii_isspace(bytes[i]) && bytes[i] != '\033')
			return;
		heard[had++] = g_ascii_isprint(bytes[i]) ? (char)bytes[i] : ' ';
	}
}

static int hello_read(struct hm_session *session)
{
	uint64_t before = session->input.count;
	int rc = hm_stream_read(session);

	if (!rc)
		hello_hear(session, session->input.count - before);
	return rc;
}

/* Say HELLO until there is an answer. */
static int hello_ask(struct hm_session *session, struct hello *hello, int64_t deadline,
		     struct hm_guest *ret)
{
	int rc = -EAGAIN;

	hello->said = 0;
	hello->next = 0;
	if (getrandom(&hello->nonce, sizeof(hello->nonce), 0) < 0)
		return -errno;
	while (rc == -EAGAIN) {
		int64_t now = g_get_monotonic_time();

		if (now >= deadline)
			return hello->wrong ?: -ETIMEDOUT;
		if (now >= hello->next) {
			if (hello->said)
				hello->interval = MIN(hello->interval * 2, hello->limit);
			rc = hello_say(session, hello, deadline);
			if (rc)
				return rc;
		}
		rc = hm_stream_poll(session, session->fd, POLLIN, MIN(deadline, hello->next));
		if (!rc)
			rc = hello_read(session);
		if (!rc)
			rc = hello_find(session, hello, ret);
		if (rc == -ETIMEDOUT || rc == -EINTR)
			rc = -EAGAIN;
	}
	return rc;
}

int hm_session_hello(struct hm_session *session, int64_t deadline, struct hm_guest *ret)
{
	struct hello hello = { .interval = HELLO_FIRST, .limit = HELLO_AGAIN };
	int rc;

	for (;;) {
		rc = hello_ask(session, &hello, deadline, ret);
		if (rc || hello.said == 1)
			break;
		hello.interval = hello.limit;
		hello.limit *= 2;
	}
	if (rc)
		return rc;
	session->up_since = g_get_monotonic_time();
	hm_calls_open(&session->calls, ret);
	return 0;
}
