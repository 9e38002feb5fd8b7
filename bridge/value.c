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

int hm_client_read_pointer(struct hm_client *client, struct hm_who who, uint64_t addr,
			   uint64_t *ret)
{
	bool big = value_is_big_endian(client);
	struct hm_call call;
	uint8_t bytes[8];
	int rc;

	hm_call_prepare(&call, HYPER_OP_READ_PTR, who, addr, bytes, sizeof(bytes));
	rc = hm_client_call(client, &call);
	if (rc || call.fault)
		return hm_fault_to_io(rc ? rc : call.fault);
	if (call.n != 4 && call.n != 8)
		return hm_client_nonsense(client, &call, "is no pointer");
	*ret = hm_number_decode(bytes, call.n, big);
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

int hm_client_write_pointer(struct hm_client *client, struct hm_who who, uint64_t addr,
			    uint64_t pointer)
{
	struct hm_call call;
	uint8_t bytes[8];
	int rc;

	if (client->readonly)
		return -EROFS;
	hm_number_encode(pointer, sizeof(bytes), false, bytes);
	hm_call_prepare(&call, HYPER_OP_WRITE_PTR, who, addr, NULL, sizeof(bytes));
	call.out = bytes;
	call.sure = true;
	rc = hm_client_call(client, &call);
	return hm_fault_to_io(rc ? rc : call.fault);
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
