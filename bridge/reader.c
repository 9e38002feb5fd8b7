// SPDX-License-Identifier: MIT
/*
 * reader: memory of one process, copied from guest RAM if that can be done.
 *
 * The guest is asked where the memory is (TRANSLATE), the bytes are copied from QEMU's
 * memory, and what was copied counts only if the translation was good to the end.  What
 * cannot be had so is asked of the guest byte for byte, which is also what finds out
 * where memory ends.
 *
 * A reader that goes on where it stopped is expected to go on: more and more is located
 * at a time, and the next translation is asked for while this one is copied.
 */
#include <errno.h>

#include "bridge/ram.h"
#include "bridge/request.h"

/* Less is sooner had from the guest, in one question, unless more of it is read in order. */
#define WINDOW_MIN (16 * 1024)

/* Of memory that is read in order, this much is located at a time, in the end. */
#define SPAN_SIZE (4 * 1024 * 1024)

/*
 * A translation is good as long as its word says so; but a machine that was reset leaves
 * its RAM as it was, so that its word is to be believed only for so long.
 */
#define SPAN_TIME (50 * G_TIME_SPAN_MILLISECOND)

/* A translation, of memory from addr on. */
struct span {
	uint64_t addr;		/* the first byte's */
	uint64_t offset;	/* of that byte in the hold */
	uint64_t size;		/* from there on; 0: none */
	int64_t time;		/* when it was asked for, or before */
	struct hm_hold hold;
};

struct hm_reader {
	struct hm_client *client;
	struct hm_who who;

	GMutex lock;		/* protects what follows */
	uint64_t next;		/* behind what was read last */
	uint64_t first;		/* what was read in order began there */
	uint64_t in_order;	/* bytes of it before the read under way */
	struct span span;
	bool ahead;		/* `pending` is a guess, and counted in client->ahead */
	bool pending;		/* another one has been asked for: */
	struct hm_call call;
	int64_t call_time;
	uint8_t data[HM_HOLD_SIZE_MAX];
};

struct hm_reader *hm_reader_new(struct hm_client *client, struct hm_who who)
{
	struct hm_reader *reader = g_new0(struct hm_reader, 1);

	reader->client = client;
	reader->who = who;
	g_mutex_init(&reader->lock);
	return reader;
}

static void reader_pending_over(struct hm_reader *reader)
{
	hm_call_deinit(&reader->call);
	reader->pending = false;
	if (reader->ahead)
		g_atomic_int_dec_and_test(&reader->client->ahead);
	reader->ahead = false;
}

static void reader_drop_pending(struct hm_reader *reader)
{
	if (!reader->pending)
		return;
	hm_session_give_up(&reader->client->session, &reader->call);
	reader_pending_over(reader);
}

void hm_reader_free(struct hm_reader *reader)
{
	if (!reader)
		return;
	reader_drop_pending(reader);
	g_mutex_clear(&reader->lock);
	g_free(reader);
}

/* Ask where `size` bytes are; the answer is waited for in reader_take(). */
static int reader_ask(struct hm_reader *reader, const struct hm_guest *guest, uint64_t addr,
		      uint64_t size)
{
	uint32_t limit = MIN(HM_HOLD_SIZE_MAX, guest->max_data);
	uint64_t pages = (limit - sizeof(struct hypermem_hold)) / 8 - 1;
	int rc;

	size = MIN(MIN(size, pages * guest->page_size), UINT64_MAX - addr);
	hm_call_prepare(&reader->call, HYPER_OP_TRANSLATE, reader->who, addr, reader->data, limit);
	reader->call.request.size = (uint32_t)size;
	hm_call_init(&reader->call);
	reader->call_time = g_get_monotonic_time();
	rc = hm_session_send(&reader->client->session, &reader->call);
	if (rc)
		hm_call_deinit(&reader->call);
	else
		reader->pending = true;
	return rc;
}

/* The answer becomes the span. */
static int reader_take(struct hm_reader *reader, const struct hm_guest *guest)
{
	struct hm_call *call = &reader->call;
	struct span *span = &reader->span;
	int rc = hm_session_wait(&reader->client->session, call);

	reader_pending_over(reader);
	span->size = 0;
	if (rc)
		return rc;
	if (hm_hold_decode(reader->data, call->n, guest->page_size, &span->hold))
		return hm_client_nonsense(reader->client, call, "is no translation");
	span->addr = call->request.addr;
	span->offset = span->addr % guest->page_size;
	span->size = span->hold.size - span->offset;
	span->time = reader->call_time;
	return 0;
}

static bool span_has(const struct span *span, uint64_t addr)
{
	return addr >= span->addr && addr - span->addr < span->size &&
	       g_get_monotonic_time() - span->time < SPAN_TIME;
}

/* A span that has addr. */
static int reader_locate(struct hm_reader *reader, const struct hm_guest *guest, uint64_t addr,
			 uint64_t size)
{
	int rc;

	if (span_has(&reader->span, addr))
		return 0;
	if (reader->pending && reader->call.request.addr == addr) {
		rc = reader_take(reader, guest);
		if (rc == -EINTR || (rc == 0 && span_has(&reader->span, addr)))
			return rc;
		if (rc) {
			reader->first = addr;		/* too far: begin anew */
			reader->in_order = 0;
		}
	}
	reader_drop_pending(reader);
	rc = reader_ask(reader, guest, addr, size);
	if (rc == 0)
		rc = reader_take(reader, guest);
	if (rc == 0)
		reader->span.time = g_get_monotonic_time();	/* the answer has just come */
	return rc;
}

/* How much to locate ahead. */
static uint64_t reader_ahead_size(const struct hm_reader *reader)
{
	return MIN(2 * reader->in_order, SPAN_SIZE);
}

/* Ask for what comes behind the span, unless its end is far. */
static void reader_look_ahead(struct hm_reader *reader, const struct hm_guest *guest,
			      uint64_t addr)
{
	const struct span *span = &reader->span;
	gint *ahead = &reader->client->ahead;

	if (!reader->in_order || reader->pending || span->size > UINT64_MAX - span->addr ||
	    span->size - (addr - span->addr) >= reader_ahead_size(reader) / 2)
		return;
	/* Guesses that are never answered must leave room for questions. */
	if ((uint32_t)g_atomic_int_add(ahead, 1) < guest->max_inflight / 2 &&
	    reader_ask(reader, guest, span->addr + span->size, reader_ahead_size(reader)) == 0)
		reader->ahead = true;
	else
		g_atomic_int_dec_and_test(ahead);
}

/* What the guest, asked for the bytes themselves, would say as well, or nobody would. */
static bool is_guests_answer(int rc)
{
	return rc == -EINTR || rc == -ETIMEDOUT || rc == -ENOTCONN || rc == -ESTALE ||
	       rc == -ESRCH;
}

/*
 * Copy what can be had from the window in one go: bytes, or -errno.  *ret_skip: bytes
 * that cannot be had so, when it failed; 0: all of them.
 */
static ssize_t reader_copy(struct hm_reader *reader, struct hm_window *window,
			   const struct hm_guest *guest, uint64_t addr, void *buf, size_t size,
			   size_t *ret_skip)
{
	struct span *span = &reader->span;
	ssize_t n;
	int rc;

	*ret_skip = 0;
	rc = reader_locate(reader, guest, addr, size);
	if (rc)
		return rc;
	reader_look_ahead(reader, guest, addr + MIN(size, span->size - (addr - span->addr)));
	n = hm_window_read(window, &span->hold, span->offset + (addr - span->addr), buf, size,
			   ret_skip);
	/* Not before: asking ahead may have waited, and so may the copy. */
	if (n > 0 && g_get_monotonic_time() - span->time >= SPAN_TIME)
		n = -EAGAIN;
	if (n < 0 && n != -ENXIO)
		span->size = 0;
	if (n < 0 && n != -ENXIO && n != -EAGAIN)
		hm_client_window_lost(reader->client, window, (int)n);
	return n == -ESRCH || n == -EPERM ? -EFAULT : n;	/* QEMU's, not the guest's */
}

/* From the window as far as possible, and from the guest what is not. */
static ssize_t reader_read(struct hm_reader *reader, struct hm_window *window, uint64_t addr,
			   uint8_t *buf, size_t size)
{
	struct hm_guest guest;
	size_t done = 0, skip, want;
	bool again = true;
	ssize_t n = 0;

	hm_client_guest(reader->client, &guest);
	if (reader->who.epoch && guest.epoch != reader->who.epoch)
		return -ESTALE;
	while (done < size && n >= 0) {
		n = reader_copy(reader, window, &guest, addr + done, buf + done, size - done,
				&skip);
		if (n == -EAGAIN && again) {
			again = false;
			n = 0;
			continue;
		}
		if (n < 0 && !is_guests_answer((int)n)) {
			want = skip ? skip : size - done;
			n = hm_client_read(reader->client, reader->who, addr + done, buf + done,
					   want);
			if (n >= 0 && (size_t)n < want)
				size = done + (size_t)n;	/* there it ends */
		}
		if (n > 0)
			done += (size_t)n;
	}
	return hm_short_or_failed(done, n < 0 ? (int)n : 0);
}

/* A read is about to begin.  Is the window the way to have it? */
static bool reader_begin(struct hm_reader *reader, uint64_t addr, size_t size)
{
	if (reader->next != addr)
		reader->first = addr;
	reader->in_order = addr - reader->first;
	reader->next = addr + size;
	return size >= WINDOW_MIN || reader->in_order >= WINDOW_MIN ||
	       span_has(&reader->span, addr);
}

/* Through the window if there is one. */
static ssize_t reader_read_window(struct hm_reader *reader, uint64_t addr, void *buf, size_t size)
{
	struct hm_client *client = reader->client;
	struct hm_window *window;
	ssize_t n;
	int rc;

	rc = hm_client_window(client, &window);
	if (rc == -EINTR)
		return rc;
	if (rc == -ESRCH)	/* QEMU has ended, and the link is about to */
		rc = -ENOTCONN;
	if (rc && client->ram == HM_RAM_REQUIRE)
		return rc == -ENOTCONN || rc == -ETIMEDOUT || rc == -ESTALE ? rc : -ENOTSUP;
	if (rc)
		return hm_client_read(client, reader->who, addr, buf, size);
	n = reader_read(reader, window, addr, buf, size);
	hm_window_unref(window);
	return n;
}

/* Nobody waits for somebody else's page fault: at the same time another reader does it. */
static ssize_t reader_read_beside(struct hm_reader *reader, uint64_t addr, void *buf, size_t size)
{
	struct hm_reader *other;
	ssize_t n;

	if (size < WINDOW_MIN)
		return hm_client_read(reader->client, reader->who, addr, buf, size);
	other = hm_reader_new(reader->client, reader->who);
	n = reader_read_window(other, addr, buf, size);
	hm_reader_free(other);
	return n;
}

ssize_t hm_reader_read(struct hm_reader *reader, uint64_t addr, void *buf, size_t size)
{
	bool window;
	ssize_t n;

	if (size == 0 || size - 1 > UINT64_MAX - addr)
		return hm_client_read(reader->client, reader->who, addr, buf, size);
	if (!g_mutex_trylock(&reader->lock))
		return reader_read_beside(reader, addr, buf, size);
	window = reader_begin(reader, addr, size);
	if (!window) {
		g_mutex_unlock(&reader->lock);
		return hm_client_read(reader->client, reader->who, addr, buf, size);
	}
	n = reader_read_window(reader, addr, buf, size);
	g_mutex_unlock(&reader->lock);
	return n;
}
