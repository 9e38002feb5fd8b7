// SPDX-License-Identifier: MIT
/*
 * guest: a scripted guest.  See guest.h.
 */
#include "tests/unit/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void wait_for(const gint *n, gint least)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;

	while (g_atomic_int_get(n) < least) {
		assert_true(g_get_monotonic_time() < until);
		g_usleep(1000);
	}
}

uint8_t guest_byte(uint64_t addr)
{
	return (uint8_t)(addr * 31 + (addr >> 12));
}

void guest_send(struct guest *guest, const void *buf, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = send(guest->fd, (const char *)buf + done, size - done, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		done += n;
	}
}

void guest_hang_up(struct guest *guest)
{
	shutdown(g_atomic_int_get(&guest->fd), SHUT_RDWR);
}

void guest_reply(struct guest *guest, const struct hm_header *request, uint32_t resp,
		 uint64_t addr, const void *data, uint32_t size)
{
	struct hm_header reply = *request;
	g_autofree uint8_t *frame = g_malloc(HYPERMEM_HEADER_SIZE + size);

	reply.op = resp;
	reply.addr = addr;
	reply.size = size;
	hm_header_encode(&reply, frame);
	if (hm_header_data_size(&reply) && size)
		memcpy(frame + HYPERMEM_HEADER_SIZE, data, size);
	guest_send(guest, frame, HYPERMEM_HEADER_SIZE + hm_header_data_size(&reply));
}

void guest_hello_fill(const struct guest *guest, struct hypermem_hello_reply *ret)
{
	*ret = (struct hypermem_hello_reply){
		.version = GUINT32_TO_LE(guest->version),
		.epoch = GUINT64_TO_LE(guest->epoch),
		.ops = GUINT64_TO_LE((1ULL << HYPER_OP_MAX) - 1),
		.allowed = GUINT64_TO_LE(guest->allowed),
		.max_data = GUINT32_TO_LE(guest->max_data),
		.max_inflight = GUINT32_TO_LE(guest->max_inflight),
		.page_size = GUINT32_TO_LE(4096),
		.word_bits = GUINT32_TO_LE(64),
		.release = "6.1.0",
		.machine = "mips",
		.module = "0.1",
	};
}

static void reply_hello(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;

	memcpy(&hello, data, sizeof(hello));
	guest_hello_fill(guest, &reply);
	guest_reply(guest, request, HYPER_RESP_READ_OK, GUINT64_FROM_LE(hello.nonce), &reply,
		    sizeof(reply));
}

static void reply_read(struct guest *guest, const struct hm_header *request)
{
	g_autofree uint8_t *bytes = g_malloc(request->size);

	for (uint32_t i = 0; i < request->size; i++)
		bytes[i] = guest_byte(request->addr + i);
	guest_reply(guest, request, HYPER_RESP_READ_OK, request->addr, bytes, request->size);
}

void guest_reply_well(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO) {
		reply_hello(guest, request, data);
	} else if (request->op == HYPER_OP_READ) {
		reply_read(guest, request);
	} else if (request->op == HYPER_OP_WRITE) {
		g_byte_array_append(guest->written, data, request->size);
		guest_reply(guest, request, HYPER_RESP_WRITE_OK, request->addr, NULL,
			    request->size);
	} else {
		guest_reply(guest, request, HYPER_RESP_READ_FAIL, HYPER_EOPNOTSUPP, NULL, 0);
	}
}

static bool take(struct guest *guest, void *buf, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = recv(guest->fd, (char *)buf + done, size - done, 0);

		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

static void serve(struct guest *guest)
{
	uint8_t bytes[HYPERMEM_HEADER_SIZE];
	struct hm_header header;

	while (take(guest, bytes, sizeof(bytes))) {
		g_autofree uint8_t *data = NULL;
		guest_answer answer = g_atomic_pointer_get(&guest->answer);

		hm_header_decode(bytes, &header);
		data = g_malloc(hm_header_data_size(&header) + 1);
		if (!take(guest, data, hm_header_data_size(&header)))
			return;
		data[hm_header_data_size(&header)] = 0;
		g_atomic_int_inc(header.op == HYPER_OP_HELLO ? &guest->hellos : &guest->requests);
		if (!answer || !answer(guest, &header, data))
			guest_reply_well(guest, &header, data);
	}
}

static gpointer guest_thread(gpointer arg)
{
	struct guest *guest = arg;

	int fd;

	while ((fd = accept(guest->listener, NULL, NULL)) >= 0) {
		g_atomic_int_set(&guest->fd, fd);
		serve(guest);
		close(fd);
	}
	return NULL;
}

void guest_script(struct guest *guest, guest_answer answer)
{
	g_atomic_int_set(&guest->n, 0);
	g_atomic_pointer_set(&guest->answer, answer);
}

struct guest *guest_new(void)
{
	struct guest *guest = g_new0(struct guest, 1);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	guest->dir = g_dir_make_tmp("hypermem-XXXXXX", NULL);
	guest->address = g_build_filename(guest->dir, "chardev", NULL);
	g_strlcpy(addr.sun_path, guest->address, sizeof(addr.sun_path));
	guest->epoch = GUEST_EPOCH;
	guest->allowed = UINT64_MAX;
	guest->version = HYPERMEM_VERSION;
	guest->max_data = HYPERMEM_CHUNK_SIZE;
	guest->max_inflight = 16;
	guest->written = g_byte_array_new();
	guest->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(guest->listener, (const struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(guest->listener, 4))
		g_error("%s", guest->address);
	guest->thread = g_thread_new("guest", guest_thread, guest);
	return guest;
}

/* Any client has been closed. */
void guest_free(struct guest *guest)
{
	shutdown(guest->listener, SHUT_RDWR);
	g_thread_join(guest->thread);
	close(guest->listener);
	g_unlink(guest->address);
	g_rmdir(guest->dir);
	g_byte_array_unref(guest->written);
	g_free(guest->address);
	g_free(guest->dir);
	g_free(guest);
}

struct hm_client *guest_connect(struct guest *guest, int timeout_ms, bool (*interrupted)(void))
{
	struct hm_client_config config = {
		.address = guest->address,
		.timeout_ms = timeout_ms,
		.interrupted = interrupted,
	};
	int64_t until = g_get_monotonic_time() + PATIENCE;
	struct hm_refusal refusal;
	struct hm_client *client;
	int rc;

	/* The deadline may be shorter than this machine needs for a HELLO. */
	do {
		rc = hm_client_open(&config, &refusal, &client);
	} while (rc == -ETIMEDOUT && g_get_monotonic_time() < until);
	if (rc == 0 && hm_client_start(client) == 0)
		return client;
	if (rc == 0)
		hm_client_close(client);
	return NULL;
}
