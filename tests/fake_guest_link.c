// SPDX-License-Identifier: MIT
/*
 * fake_guest_link: frames, and the connection that they come and go by.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fake_guest_priv.h"

/* -- frames ------------------------------------------------------------------ */

GByteArray *frame_encode(const struct frame *frame)
{
	uint32_t size = frame->op & HYPER_DATA ? frame->data->len : frame->size;
	uint64_t header[3] = {
		GUINT64_TO_LE((uint64_t)frame->pid << HYPER_PID_SHIFT | frame->op),
		GUINT64_TO_LE(frame->addr),
		GUINT64_TO_LE((uint64_t)frame->stamp << HYPER_STAMP_SHIFT |
			      (uint64_t)frame->tag << HYPER_TAG_SHIFT | size),
	};
	GByteArray *bytes = g_byte_array_new();

	g_byte_array_append(bytes, (const guint8 *)header, sizeof(header));
	if (frame->op & HYPER_DATA)
		g_byte_array_append(bytes, frame->data->data, frame->data->len);
	return bytes;
}

static void frame_decode(const uint8_t bytes[HYPERMEM_HEADER_SIZE], struct frame *ret)
{
	uint64_t header[3], size;

	memcpy(header, bytes, sizeof(header));
	size = GUINT64_FROM_LE(header[2]);
	ret->op = GUINT64_FROM_LE(header[0]);
	ret->pid = GUINT64_FROM_LE(header[0]) >> HYPER_PID_SHIFT;
	ret->addr = GUINT64_FROM_LE(header[1]);
	ret->size = size;
	ret->tag = size >> HYPER_TAG_SHIFT;
	ret->stamp = size >> HYPER_STAMP_SHIFT;
}

bool frame_is_hello(const struct frame *frame)
{
	return frame->op == HYPER_OP_HELLO && frame->addr == HYPERMEM_MAGIC &&
	       frame->size >= sizeof(struct hypermem_hello) && frame->size <= HYPERMEM_CHUNK_SIZE;
}

/* -- connections --------------------------------------------------------------- */

struct conn *conn_new(struct fake_guest *guest, int fd)
{
	struct conn *conn = g_new0(struct conn, 1);

	conn->guest = guest;
	conn->fd = fd;
	g_ref_count_init(&conn->refs);
	g_mutex_init(&conn->lock);
	g_mutex_lock(&guest->lock);
	guest->conns++;
	g_mutex_unlock(&guest->lock);
	return conn;
}

void conn_unref(struct conn *conn)
{
	struct fake_guest *guest = conn->guest;

	g_mutex_lock(&guest->lock);
	if (g_ref_count_dec(&conn->refs)) {
		close(conn->fd);
		g_mutex_clear(&conn->lock);
		g_free(conn);
		if (--guest->conns == 0)
			g_cond_broadcast(&guest->idle);
	}
	g_mutex_unlock(&guest->lock);
}

struct conn *conn_ref(struct conn *conn)
{
	g_mutex_lock(&conn->guest->lock);
	g_ref_count_inc(&conn->refs);
	g_mutex_unlock(&conn->guest->lock);
	return conn;
}

/* conn->lock is held. */
static void conn_send_locked(struct conn *conn, const uint8_t *buf, size_t size)
{
	while (size > 0 && !conn->closed) {
		ssize_t n = send(conn->fd, buf, size, MSG_NOSIGNAL);

		if (n < 0 && errno == ENOTSOCK)
			n = write(conn->fd, buf, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			conn->closed = true;
			return;
		}
		buf += n;
		size -= n;
	}
}

void conn_send_raw(struct conn *conn, const void *buf, size_t size)
{
	g_mutex_lock(&conn->lock);
	conn_send_locked(conn, buf, size);
	g_mutex_unlock(&conn->lock);
}

void conn_send(struct conn *conn, struct frame *frame)
{
	g_autoptr(GByteArray) bytes = frame_encode(frame);

	conn_send_raw(conn, bytes->data, bytes->len);
}

void conn_hang_up(struct conn *conn)
{
	g_mutex_lock(&conn->lock);
	conn->closed = true;
	shutdown(conn->fd, SHUT_RDWR);	/* wakes fake_guest_serve() */
	g_mutex_unlock(&conn->lock);
}

/* A reply, unless another HELLO has begun another session meanwhile. */
void conn_reply(struct request *request, struct frame *reply)
{
	g_autoptr(GByteArray) bytes = frame_encode(reply);
	struct conn *conn = request->conn;

	g_mutex_lock(&conn->lock);
	if (conn->session == request->session)
		conn_send_locked(conn, bytes->data, bytes->len);
	g_mutex_unlock(&conn->lock);
}

void conn_send_reset(struct conn *conn)
{
	g_autoptr(GByteArray) none = g_byte_array_new();
	struct frame reset = { .op = HYPER_RESP_RESET, .data = none };

	conn_send(conn, &reset);
}

void conn_forget_session(struct conn *conn)
{
	g_mutex_lock(&conn->lock);
	conn->session = 0;
	g_mutex_unlock(&conn->lock);
	hooks_session(0);
}

/* -- receiving ------------------------------------------------------------------------------ */

static bool read_all(int fd, void *buf, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, (char *)buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

/* Slide along the stream until there is a HELLO. */
static bool resync(int fd, uint8_t header[HYPERMEM_HEADER_SIZE], struct frame *frame)
{
	do {
		memmove(header, header + 1, HYPERMEM_HEADER_SIZE - 1);
		if (!read_all(fd, header + HYPERMEM_HEADER_SIZE - 1, 1))
			return false;
		frame_decode(header, frame);
	} while (!frame_is_hello(frame));
	return true;
}

static bool conn_accepts(struct conn *conn, const struct frame *frame)
{
	bool ok;

	g_mutex_lock(&conn->lock);
	ok = conn->session != 0 && !(frame->op & ~(HYPER_DATA | 0xff)) &&
	     (!(frame->op & HYPER_DATA) || frame->size <= conn->max_data);
	g_mutex_unlock(&conn->lock);
	return ok;
}

/* The next frame; one that cannot be, or is of no session, leads to RESET and to resync(). */
bool conn_receive(struct conn *conn, struct frame *frame)
{
	uint8_t header[HYPERMEM_HEADER_SIZE];
	uint32_t size;

	if (!read_all(conn->fd, header, sizeof(header)))
		return false;
	frame_decode(header, frame);
	if (!frame_is_hello(frame) && !conn_accepts(conn, frame)) {
		conn_forget_session(conn);
		conn_send_reset(conn);
		if (!resync(conn->fd, header, frame))
			return false;
	}
	size = frame->op & HYPER_DATA ? frame->size : 0;
	frame->data = g_byte_array_new();
	g_byte_array_set_size(frame->data, size);
	if (read_all(conn->fd, frame->data->data, size))
		return true;
	g_byte_array_unref(frame->data);
	return false;
}
