// SPDX-License-Identifier: MIT
/*
 * reader: memory of one process, copied from guest RAM if that can be done.
 *
 * The guest is asked where the memory is (TRANSLATE), the bytes are copied from QEMU's
 * memory, and what was copied counts only if the translation was good to the end.  What
 * cannot be had so is asked of the guest byte for byte, which is also what finds out
 * where memory ends.
 *
 * A reader that goes on where it stopped is expected to go on: the next translation is
 * asked for while this one is copied.
 */
#include <errno.h>

#include "bridge/ram.h"
#include "bridge/request.h"

/* Less is sooner had from the guest, in one question. */
#define WINDOW_MIN (16 * 1024)

/* Of memory that is read in order, this much is located at a time. */
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
	struct span span;
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

static void reader_drop_pending(struct hm_reader *reader)
{
	if (!reader->pending)
		return;
	hm_session_give_up(&reader->client->session, &reader->call);
	hm_call_deinit(&reader->call);
	reader->pending = false;
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

	hm_call_deinit(call);
	reader->pending = false;
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
	int rc = 0;

	if (span_has(&reader->span, addr))
		return 0;
	if (reader->pending && reader->call.request.addr == addr &&
	    reader_take(reader, guest) == 0 && span_has(&reader->span, addr))
		return 0;
	reader_drop_pending(reader);
	rc = reader_ask(reader, guest, addr, size);
	if (rc == 0)
		rc = reader_take(reader, guest);
	return rc;
}

/* Ask for what comes behind the span, unless its end is far. */
static void reader_look_ahead(struct hm_reader *reader, const struct hm_guest *guest,
			      uint64_t addr)
{
	const struct span *span = &reader->span;

	if (!reader->pending && addr - span->addr + SPAN_SIZE / 2 > span->size &&
	    span->size <= UINT64_MAX - span->addr)
		reader_ask(reader, guest, span->addr + span->size, SPAN_SIZE);
}

/* What the guest, asked for the bytes themselves, would say as well. */
static bool is_final(int rc)
{
	return rc == -EINTR || rc == -ETIMEDOUT || rc == -ENOTCONN || rc == -ESTALE ||
	       rc == -ESRCH || rc == -EPERM;
}

/*
 * Copy what can be had from the window in one go: bytes, or -errno.  *ret_skip: bytes
 * that cannot be had so, when it failed; 0: all of them.
 */
static ssize_t reader_copy(struct hm_reader *reader, struct hm_window *window,
			   const struct hm_guest *guest, uint64_t addr, void *buf, size_t size,
			   bool in_order, size_t *ret_skip)
{
	struct span *span = &reader->span;
	ssize_t n;
	int rc;

	*ret_skip = 0;
	rc = reader_locate(reader, guest, addr, in_order ? SPAN_SIZE : size);
	if (rc)
		return rc;
	if (in_order)
		reader_look_ahead(reader, guest, addr + size);
	n = hm_window_read(window, &span->hold, span->offset + (addr - span->addr), buf, size,
			   ret_skip);
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
	bool in_order = reader->next == addr, again = true;
	struct hm_guest guest;
	size_t done = 0, skip, want;
	ssize_t n = 0;

	hm_client_guest(reader->client, &guest);
	if (reader->who.epoch && guest.epoch != reader->who.epoch)
		return -ESTALE;
	while (done < size && n >= 0) {
		n = reader_copy(reader, window, &guest, addr + done, buf + done, size - done,
				in_order, &skip);
		if (n == -EAGAIN && again) {
			again = false;
			n = 0;
			continue;
		}
		if (n < 0 && !is_final((int)n)) {
			want = skip ? skip : size - done;
			n = hm_client_read(reader->client, reader->who, addr + done, buf + done,
					   want);
			if (n >= 0 && (size_t)n < want)
				size = done + (size_t)n;	/* there it ends */
		}
		if (n > 0)
			done += (size_t)n;
	}
	reader->next = addr + done;
	return hm_short_or_failed(done, n < 0 ? (int)n : 0);
}

ssize_t hm_reader_read(struct hm_reader *reader, uint64_t addr, void *buf, size_t size)
{
	struct hm_client *client = reader->client;
	struct hm_reader *other = NULL;
	struct hm_window *window;
	ssize_t n;
	int rc;

	if (size < WINDOW_MIN || size - 1 > UINT64_MAX - addr)
		return hm_client_read(client, reader->who, addr, buf, size);
	rc = hm_client_window(client, &window);
	if (rc && client->ram == HM_RAM_REQUIRE)
		return rc == -ENOTCONN || rc == -ETIMEDOUT ? rc : -ENOTSUP;
	if (rc)
		return hm_client_read(client, reader->who, addr, buf, size);
	/* Nobody waits for somebody else's page fault. */
	if (!g_mutex_trylock(&reader->lock)) {
		reader = other = hm_reader_new(client, reader->who);
		g_mutex_lock(&reader->lock);
	}
	n = reader_read(reader, window, addr, buf, size);
	g_mutex_unlock(&reader->lock);
	hm_reader_free(other);
	hm_window_unref(window);
	return n;
}
