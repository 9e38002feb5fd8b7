// SPDX-License-Identifier: GPL-2.0
/*
 * link: frames out of a stream of bytes, and sessions.  See link.h.
 *
 * The receiver is in one of two states.  Synced: the next byte continues a frame.
 * Not synced: nothing is believed until a HELLO header comes by; everything
 * before it is dropped, and the host is told once that it should say HELLO.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "compat.h"
#include "link.h"
#include "ops.h"

int hypermem_link_init(struct hypermem_link *link, const char *name, u32 data_max,
		       const struct hypermem_link_ops *ops)
{
	link->name = name;
	link->data_max = data_max;
	link->ops = ops;
	hypermem_lock_init(&link->send_lock);
	atomic_set(&link->inflight, 0);
	/*
	 * Bound, as the receiver is: the worker that has received goes on with the
	 * request without a switch to another.  When a request sleeps, the workqueue
	 * wakes another worker for the rest.  Of no higher priority than processes: on a
	 * lone processor they would get no time as long as somebody reads.
	 */
	link->wq = alloc_workqueue("hypermem", HYPERMEM_WQ_PERCPU, HYPERMEM_INFLIGHT_MAX);
	return link->wq ? 0 : -ENOMEM;
}

void hypermem_link_deinit(struct hypermem_link *link)
{
	hypermem_link_reset(link);
	destroy_workqueue(link->wq);
	hypermem_hooks_deinit(link);
	kvfree(link->spare);
}

int hypermem_link_rest(struct hypermem_link *link)
{
	int tries = 100;

	WRITE_ONCE(link->resting, true);
	while (atomic_read(&link->inflight) > hypermem_hooks_waiting(link)) {
		if (!tries--) {
			WRITE_ONCE(link->resting, false);
			return -EBUSY;
		}
		msleep(10);
	}
	return 0;
}

void hypermem_lock_take(struct hypermem_lock *lock)
{
	int spins = 100;	/* it is mostly held for a moment */

	while (spins--) {
		if (mutex_trylock(&lock->mutex))
			return;
		cpu_relax();
	}
	wait_event_idle_exclusive(lock->wait, mutex_trylock(&lock->mutex));
}

void hypermem_lock_release(struct hypermem_lock *lock)
{
	mutex_unlock(&lock->mutex);
	wake_up(&lock->wait);
}

void hypermem_link_reply(struct hypermem_link *link, u32 session, struct hypermem_frame *frame)
{
	bool current_session;

	hypermem_lock_take(&link->send_lock);
	current_session = link->open && link->session == session;
	if (current_session)
		link->ops->send(link, frame);
	else
		hypermem_frame_free(frame);
	hypermem_lock_release(&link->send_lock);
	/* It may have been a translation, of which the end of its session knew nothing. */
	if (!current_session)
		hypermem_translate_forget();
}

/* Not for translations, which an ended session would have to forget. */
bool hypermem_link_try_reply(struct hypermem_link *link, u32 session,
			     struct hypermem_frame *frame)
{
	bool sent = true;

	if (!link->ops->try_send || !mutex_trylock(&link->send_lock.mutex))
		return false;
	if (link->open && link->session == session)
		sent = link->ops->try_send(link, frame);
	else
		hypermem_frame_free(frame);
	hypermem_lock_release(&link->send_lock);
	return sent;
}

void hypermem_link_begin(struct hypermem_link *link, u32 max_data, bool readonly,
			 struct hypermem_frame *frame)
{
	hypermem_lock_take(&link->send_lock);
	link->session++;
	link->open = max_data;
	link->max_data = max_data;
	link->readonly = readonly;
	link->told = false;
	link->ops->send(link, frame);
	hypermem_lock_release(&link->send_lock);
	hypermem_translate_forget();
	hypermem_hooks_forget(link);
}

static void hypermem_link_end(struct hypermem_link *link)
{
	hypermem_lock_take(&link->send_lock);
	link->session++;
	link->open = false;
	hypermem_lock_release(&link->send_lock);
	hypermem_translate_forget();
	hypermem_hooks_forget(link);
	hypermem_frame_trim();
}

void hypermem_link_reset(struct hypermem_link *link)
{
	hypermem_link_end(link);
	if (link->request)
		hypermem_request_free(link->request);
	if (link->last)
		hypermem_request_free(link->last);
	link->request = NULL;
	link->last = NULL;
	link->header_n = 0;
	link->skip = 0;
	link->synced = false;
	link->told = false;
}

void hypermem_link_invite(struct hypermem_link *link)
{
	static const struct hypermem_header none;
	struct hypermem_frame *frame;

	if (link->told)
		return;
	frame = hypermem_frame_status(&none, HYPER_RESP_RESET, 0, 0);
	if (!frame)
		return;
	hypermem_lock_take(&link->send_lock);
	link->ops->send(link, frame);
	hypermem_lock_release(&link->send_lock);
	link->told = true;
}

/* The stream makes no sense: drop the session, look for a HELLO. */
static void hypermem_link_lost(struct hypermem_link *link, const struct hypermem_header *header)
{
	pr_warn_ratelimited("%s: the host sent an impossible frame (operation %#x, size %u); waiting for a new HELLO\n",
			    link->name, header->op, header->size);
	hypermem_link_reset(link);
	hypermem_link_invite(link);
}

/* Data of this frame that will follow, or -EPROTO. */
static int hypermem_header_check(const struct hypermem_link *link,
				 const struct hypermem_header *header)
{
	u32 max = link->open ? link->max_data : HYPERMEM_CHUNK_SIZE;

	if (header->op & ~(HYPER_DATA | 0xff))
		return -EPROTO;
	if (!(header->op & HYPER_DATA))
		return 0;
	return header->size <= max ? (int)header->size : -EPROTO;
}

static bool hypermem_header_is_silent(const struct hypermem_header *header)
{
	const struct hypermem_op *op = hypermem_op_find(header->op);

	return op && (op->flags & HYPERMEM_OP_SILENT);
}

/* One more is taken on.  What is not answered must not be refused, and is done at once. */
static bool hypermem_link_takes(const struct hypermem_link *link,
				const struct hypermem_header *header)
{
	return (atomic_read(&link->inflight) < HYPERMEM_INFLIGHT_MAX &&
		!READ_ONCE(link->resting)) ||
	       hypermem_header_is_hello(header) || hypermem_header_is_silent(header);
}

/* Refuse without doing: the answer goes out from here, its data is skipped. */
static void hypermem_link_refuse(struct hypermem_link *link, const struct hypermem_header *header,
				 int error, u32 skip)
{
	struct hypermem_frame *frame = NULL;

	link->skip = skip;
	if (!hypermem_header_is_silent(header))
		frame = hypermem_frame_error(header, error);
	if (frame)
		hypermem_link_reply(link, link->session, frame);
}

static void hypermem_link_submit(struct hypermem_link *link)
{
	struct hypermem_request *request = link->request;

	link->request = NULL;
	hypermem_request_submit(request);
}

static void hypermem_link_header(struct hypermem_link *link, const struct hypermem_header *header)
{
	int size = hypermem_header_check(link, header);

	if (size < 0) {
		hypermem_link_lost(link, header);
		return;
	}
	if (!link->open && !hypermem_header_is_hello(header)) {
		hypermem_link_reset(link);
		hypermem_link_invite(link);
		return;
	}
	if (!hypermem_link_takes(link, header)) {
		hypermem_link_refuse(link, header, -EBUSY, size);
		return;
	}
	link->request = hypermem_request_new(link, header);
	if (!link->request) {
		hypermem_link_refuse(link, header, -ENOMEM, size);
		return;
	}
	link->data_n = 0;
	if (!size)
		hypermem_link_submit(link);
}

/* A header is complete: take it, or, when not synced, slide on by a byte. */
static void hypermem_link_header_bytes(struct hypermem_link *link)
{
	struct hypermem_header header;

	hypermem_header_decode(link->header, &header);
	if (!link->synced && !hypermem_header_is_hello(&header)) {
		memmove(link->header, link->header + 1, --link->header_n);
		hypermem_link_invite(link);
		return;
	}
	link->synced = true;
	link->header_n = 0;
	hypermem_link_header(link, &header);
}

/* Bytes of the next step that are taken from the n that there are. */
static size_t hypermem_link_step(struct hypermem_link *link, const u8 *bytes, size_t n)
{
	if (link->skip) {
		n = min_t(size_t, n, link->skip);
		link->skip -= n;
	} else if (link->request) {
		n = min_t(size_t, n, link->request->header.size - link->data_n);
		memcpy(link->request->data + link->data_n, bytes, n);
		link->data_n += n;
		if (link->data_n == link->request->header.size)
			hypermem_link_submit(link);
	} else {
		n = min_t(size_t, n, sizeof(link->header) - link->header_n);
		memcpy(link->header + link->header_n, bytes, n);
		link->header_n += n;
		if (link->header_n == sizeof(link->header))
			hypermem_link_header_bytes(link);
	}
	return n;
}

void hypermem_link_receive(struct hypermem_link *link, const u8 *bytes, size_t n)
{
	size_t done;

	for (; n; bytes += done, n -= done)
		done = hypermem_link_step(link, bytes, n);
}

size_t hypermem_link_receive_quick(struct hypermem_link *link, const u8 *bytes, size_t n)
{
	struct hypermem_request *request;
	const struct hypermem_op *op;
	struct hypermem_header header;
	int size;

	if (!link->synced || !link->open || link->header_n || link->request || link->skip ||
	    n < sizeof(link->header))
		return 0;
	hypermem_header_decode(bytes, &header);
	op = hypermem_op_find(header.op);
	if (!op || !(op->flags & HYPERMEM_OP_QUICK) || !hypermem_link_takes(link, &header))
		return 0;
	size = hypermem_header_check(link, &header);
	if (size < 0 || size > n - sizeof(link->header))
		return 0;
	request = hypermem_request_new(link, &header);
	if (!request)
		return 0;
	memcpy(request->data, bytes + sizeof(link->header), size);
	hypermem_request_submit(request);
	return sizeof(link->header) + size;
}
