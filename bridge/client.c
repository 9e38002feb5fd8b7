// SPDX-License-Identifier: MIT
/*
 * client: one function per operation.  See client.h.
 *
 * Each fills in a request, sends it through the session, and checks what is in the
 * reply's data; that the reply is one to this request, wire.c and calls.c have
 * checked already.
 */
#include "bridge/client.h"

#include <errno.h>
#include <string.h>

#include "bridge/request.h"

/* Chunks of one read in flight: the guest works on some while others are on their way. */
#define READ_AHEAD 8

int hm_client_open(const struct hm_client_config *config, struct hm_refusal *refusal,
		   struct hm_client **ret)
{
	struct hm_client *client = g_new0(struct hm_client, 1);
	int rc;

	client->readonly = config->readonly;
	client->ram = config->ram;
	hm_client_window_init(client);
	rc = hm_session_open(&client->session, config, refusal);
	if (rc) {
		hm_client_window_deinit(client);
		g_free(client);
		return rc;
	}
	*ret = client;
	return 0;
}

int hm_client_start(struct hm_client *client)
{
	return hm_session_start(&client->session);
}

void hm_client_stop(struct hm_client *client)
{
	hm_session_stop(&client->session);
}

void hm_client_close(struct hm_client *client)
{
	if (!client)
		return;
	hm_session_close(&client->session);
	hm_client_window_deinit(client);
	g_free(client);
}

int hm_client_guest(struct hm_client *client, struct hm_guest *ret)
{
	return hm_calls_guest(&client->session.calls, ret);
}

uint32_t hm_client_max_data(struct hm_client *client)
{
	struct hm_guest guest;

	hm_client_guest(client, &guest);
	return guest.max_data;
}

void hm_call_prepare(struct hm_call *call, uint32_t op, struct hm_who who, uint64_t addr,
			 void *in, uint32_t limit)
{
	*call = (struct hm_call){
		.request = { .op = op, .pid = who.pid, .stamp = who.stamp, .addr = addr,
			     .size = limit },
		.epoch = who.epoch,
		.limit = limit,
		.in = in,
	};
}

int hm_client_call(struct hm_client *client, struct hm_call *call)
{
	int rc;

	hm_call_init(call);
	rc = hm_session_send(&client->session, call);
	if (rc == 0)
		rc = hm_session_wait(&client->session, call);
	hm_call_deinit(call);
	return rc;
}

int hm_client_nonsense(struct hm_client *client, const struct hm_call *call, const char *what)
{
	hm_complain(&client->session.calls.complaints, &call->request, true, what);
	return -EPROTO;
}

int hm_fault_to_io(int rc)
{
	return rc == -EFAULT ? -EIO : rc;
}

/*
 * What to tell of `got` bytes and what came then.  Only where there is nothing more is
 * fewer bytes than asked for an answer: whoever gets them takes that for the end.
 */
ssize_t hm_short_or_failed(size_t got, int rc)
{
	rc = hm_fault_to_io(rc);
	return rc == 0 || (rc == -EIO && got) ? (ssize_t)got : rc;
}

/* A read in chunks, the first `sent` of which are on their way or done. */
struct read {
	struct hm_who who;
	uint64_t addr;
	uint8_t *buf;
	size_t size;
	uint32_t chunk;
	size_t n_chunks;
	struct hm_call calls[READ_AHEAD];
};

static struct hm_call *read_call(struct read *read, size_t i)
{
	return &read->calls[i % READ_AHEAD];
}

static int read_send(struct hm_client *client, struct read *read, size_t i)
{
	size_t offset = i * read->chunk;
	struct hm_call *call = read_call(read, i);
	int rc;

	hm_call_prepare(call, HYPER_OP_READ, read->who, read->addr + offset, read->buf + offset,
		     (uint32_t)MIN(read->size - offset, read->chunk));
	hm_call_init(call);
	rc = hm_session_send(&client->session, call);
	if (rc)
		hm_call_deinit(call);
	return rc;
}

/*
 * Wait for chunk i; *ret: its bytes, also if what came then is an error.  0 and fewer bytes than
 * asked for: the end.
 */
static int read_wait(struct hm_client *client, struct read *read, size_t i, uint32_t *ret)
{
	struct hm_call *call = read_call(read, i);
	int rc = hm_session_wait(&client->session, call);

	*ret = rc ? 0 : call->n;
	if (!rc && hm_fault_to_io(call->fault) != -EIO)
		rc = call->fault;
	hm_call_deinit(call);
	return rc;
}

/* All that comes without a gap; what lies behind a fault was asked for in vain. */
static ssize_t read_run(struct hm_client *client, struct read *read)
{
	size_t sent = 0, done = 0, got = 0;
	int rc, send_rc = 0;
	uint32_t n, want;

	do {
		while (send_rc == 0 && sent < read->n_chunks && sent - done < READ_AHEAD) {
			send_rc = read_send(client, read, sent);
			if (send_rc == 0)
				sent++;
		}
		if (done == sent) {
			rc = send_rc;
			break;
		}
		want = read_call(read, done)->limit;
		rc = read_wait(client, read, done++, &n);
		got += n;
	} while (rc == 0 && n == want && done < read->n_chunks);

	for (; done < sent; done++) {
		hm_session_give_up(&client->session, read_call(read, done));
		hm_call_deinit(read_call(read, done));
	}
	return hm_short_or_failed(got, rc);
}

size_t hm_size_clamp(uint64_t addr, size_t size)
{
	return size - 1 > UINT64_MAX - addr ? (size_t)(UINT64_MAX - addr) + 1 : size;
}

ssize_t hm_client_read(struct hm_client *client, struct hm_who who, uint64_t addr, void *buf,
		       size_t size)
{
	struct read read = { .who = who, .addr = addr, .buf = buf,
			     .chunk = hm_client_max_data(client) };

	if (size == 0)
		return 0;
	read.size = hm_size_clamp(addr, size);
	read.n_chunks = (read.size - 1) / read.chunk + 1;
	return read_run(client, &read);
}

static int write_chunk(struct hm_client *client, struct hm_who who, uint64_t addr,
		       const void *buf, uint32_t size, uint32_t *ret)
{
	struct hm_call call;
	int rc;

	hm_call_prepare(&call, HYPER_OP_WRITE, who, addr, NULL, size);
	call.out = buf;
	/* Whoever is told that nothing was done, as EINTR does, does it again. */
	call.sure = true;
	rc = hm_client_call(client, &call);
	*ret = rc ? 0 : call.n;
	return hm_fault_to_io(rc);
}

ssize_t hm_client_write(struct hm_client *client, struct hm_who who, uint64_t addr,
			const void *buf, size_t size)
{
	uint32_t chunk = hm_client_max_data(client), want, n;
	size_t done = 0;
	int rc;

	if (client->readonly)
		return -EROFS;
	if (size == 0)
		return 0;
	size = hm_size_clamp(addr, size);
	/* One after the other: nothing is written behind bytes that could not be. */
	do {
		want = (uint32_t)MIN(size - done, chunk);
		rc = write_chunk(client, who, addr + done, (const uint8_t *)buf + done, want, &n);
		done += n;
	} while (rc == 0 && n == want && done < size);
	/* A count says that nothing behind it was done, which only EINTR is sure of. */
	return done && rc == -EINTR ? (ssize_t)done : hm_short_or_failed(done, rc);
}

static ssize_t client_read_area(struct hm_client *client, uint32_t op, struct hm_who who,
				uint64_t offset, void *buf, size_t size, bool *ret_ended)
{
	uint32_t chunk = hm_client_max_data(client);
	size_t done = 0;

	*ret_ended = false;
	while (done < size) {
		uint32_t want = (uint32_t)MIN(size - done, chunk);
		struct hm_call call;
		int rc;

		hm_call_prepare(&call, op, who, offset + done, (uint8_t *)buf + done, want);
		rc = hm_client_call(client, &call);
		if (rc)
			return hm_short_or_failed(done, rc);
		done += call.n;
		/* There is more, which cannot be read. */
		if (call.fault)
			return hm_short_or_failed(done, call.fault);
		*ret_ended = call.n < want;
		if (*ret_ended)
			break;
	}
	return (ssize_t)done;
}

ssize_t hm_client_read_procargs(struct hm_client *client, struct hm_who who, uint64_t offset,
				void *buf, size_t size, bool *ret_ended)
{
	return client_read_area(client, HYPER_OP_READ_PROCARGS, who, offset, buf, size,
				ret_ended);
}

ssize_t hm_client_read_procenv(struct hm_client *client, struct hm_who who, uint64_t offset,
			       void *buf, size_t size, bool *ret_ended)
{
	return client_read_area(client, HYPER_OP_READ_PROCENV, who, offset, buf, size,
				ret_ended);
}

/* A text without NUL from the guest, with one in buf. */
static ssize_t client_read_name(struct hm_client *client, uint32_t op, struct hm_who who,
				uint64_t addr, char *buf, size_t size)
{
	struct hm_call call;
	int rc;

	if (size == 0)
		return -ENAMETOOLONG;
	hm_call_prepare(&call, op, who, addr, buf,
		     (uint32_t)MIN(size - 1, hm_client_max_data(client)));
	rc = hm_client_call(client, &call);
	if (rc)
		return rc;
	if (call.fault || call.n == 0 || memchr(buf, 0, call.n))
		return hm_client_nonsense(client, &call, "is not the text of a link");
	buf[call.n] = 0;
	return call.n;
}

ssize_t hm_client_read_fd_name(struct hm_client *client, struct hm_who who, uint32_t fd,
			       char *buf, size_t size)
{
	return client_read_name(client, HYPER_OP_READ_FD_NAME, who, fd, buf, size);
}

ssize_t hm_client_read_link(struct hm_client *client, struct hm_who who, enum HYPER_LINK which,
			    char *buf, size_t size)
{
	return client_read_name(client, HYPER_OP_READ_LINK, who, which, buf, size);
}

int hm_client_read_proc_file(struct hm_client *client, struct hm_who who, const char *name,
			     uint64_t *cursor, GByteArray *text)
{
	g_autofree void *part = NULL;
	struct hm_call call;
	int rc;

	hm_call_prepare(&call, HYPER_OP_READ_PROC_FILE, who, *cursor, NULL, hm_client_max_data(client));
	call.request.size = (uint32_t)strlen(name);
	call.out = name;
	call.in_alloc = &part;
	rc = hm_client_call(client, &call);
	if (rc)
		return rc;
	/* It must get on: a part that is not the last has text and another cursor. */
	if (call.fault || (call.addr != 0 && (call.n == 0 || call.addr == *cursor)))
		return hm_client_nonsense(client, &call, "does not get on");
	if (call.n)
		g_byte_array_append(text, part, call.n);
	*cursor = call.addr;
	return 0;
}
