// SPDX-License-Identifier: MIT
/*
 * value: what is in memory as numbers, pointers and strings, and one question to the guest each.
 */
#include "bridge/client.h"

#include <errno.h>
#include <string.h>

#include "bridge/request.h"

/* If another guest is there when it matters, the call has failed with -ESTALE. */
static bool value_is_big_endian(struct hm_client *client)
{
	struct hm_guest guest;

	hm_client_guest(client, &guest);
	return guest.flags & HYPER_HELLO_BIG_ENDIAN;
}

int hm_client_read_number(struct hm_client *client, struct hm_who who, uint64_t addr, size_t size,
			  uint64_t *ret)
{
	bool big = value_is_big_endian(client);
	uint8_t bytes[8];
	ssize_t n;

	n = hm_client_read(client, who, addr, bytes, size);
	if (n < 0)
		return (int)n;
	if ((size_t)n < size)
		return -EIO;
	*ret = hm_number_decode(bytes, size, big);
	return 0;
}

/* Two calls at the same time; 0: both were answered. */
static int call_both(struct hm_client *client, struct hm_call calls[2])
{
	int rc = 0, sent = 0;

	while (rc == 0 && sent < 2) {
		hm_call_init(&calls[sent]);
		rc = hm_session_send(&client->session, &calls[sent]);
		if (rc)
			hm_call_deinit(&calls[sent]);
		else
			sent++;
	}
	for (int i = 0; i < sent; i++) {
		if (rc)
			hm_session_give_up(&client->session, &calls[i]);
		else
			rc = hm_session_wait(&client->session, &calls[i]);
		hm_call_deinit(&calls[i]);
	}
	return rc;
}

int hm_client_read_pointer(struct hm_client *client, struct hm_who who, uint64_t addr,
			   size_t *ret_size, uint64_t *ret)
{
	uint8_t record[sizeof(struct hypermem_proc)], bytes[8];
	bool big = value_is_big_endian(client);
	struct hm_call calls[2], *proc_call = &calls[0], *mem_call = &calls[1];
	struct hm_proc proc;
	size_t size;
	int rc;

	hm_call_prepare(proc_call, HYPER_OP_READ_PROC, who, 0, record, sizeof(record));
	hm_call_prepare(mem_call, HYPER_OP_READ, who, addr, bytes,
			(uint32_t)hm_size_clamp(addr, sizeof(bytes)));
	rc = call_both(client, calls);
	if (rc)
		return hm_fault_to_io(rc);
	if (proc_call->fault || hm_proc_decode(record, proc_call->n, &proc) ||
	    proc.pid != who.pid)
		return hm_client_nonsense(client, proc_call, "is not this process");
	size = hm_proc_pointer_size(&proc);
	if (mem_call->n < size)
		return -EIO;
	*ret_size = size;
	*ret = hm_number_decode(bytes, size, big);
	return 0;
}

int hm_client_write_number(struct hm_client *client, struct hm_who who, uint64_t addr,
			   size_t size, uint64_t number)
{
	uint8_t bytes[8];
	ssize_t n;

	hm_number_encode(number, size, value_is_big_endian(client), bytes);
	n = hm_client_write(client, who, addr, bytes, size);
	return n < 0 ? (int)n : (size_t)n < size ? -EIO : 0;
}

ssize_t hm_client_read_str(struct hm_client *client, struct hm_who who, uint64_t addr, char *buf,
			   size_t size)
{
	uint32_t max = hm_client_max_data(client);
	size_t done = 0;

	while (done < size) {
		/* Most strings are short, and the guest makes room for what it is asked for. */
		uint32_t want = (uint32_t)MIN(size - done, done ? max : HYPERMEM_CHUNK_SIZE);
		struct hm_call call;
		const char *nul;
		int rc;

		hm_call_prepare(&call, HYPER_OP_READ_STR, who, addr + done, buf + done, want);
		rc = hm_client_call(client, &call);
		if (rc)
			return hm_fault_to_io(rc);
		nul = memchr(buf + done, 0, call.n);
		if (nul && (call.fault || nul + 1 != buf + done + call.n))
			return hm_client_nonsense(client, &call, "goes on behind the NUL");
		if (nul)
			return nul - buf;
		if (call.fault)
			return hm_fault_to_io(call.fault);
		if (call.n != want)
			return hm_client_nonsense(client, &call, "is short and has no NUL");
		done += call.n;
	}
	return -E2BIG;
}
