// SPDX-License-Identifier: MIT
/*
 * wire: frames and records of guest/uapi/hypermem.h, checked, to and from CPU order.
 *
 * A decoder reads nothing but the bytes that it is given, writes *ret only when
 * all of it makes sense, and says -EPROTO otherwise.  What is merely strange (a
 * uid that nobody has, flags that this version does not know) passes.
 */
#include "bridge/wire.h"

#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>

/* The part of a HELLO reply that is the same in all versions. */
#define HELLO_REPLY_COMMON 16

/* What a reply to an operation must be. */
struct wire_op {
	const char *name;
	uint32_t op;
	bool writes;	/* WRITE_*, not READ_* */
	bool echo;	/* success has the request's addr, not a cursor */
	bool whole;	/* READ_OK has all the bytes or none */
};

static const struct wire_op ops[HYPER_OP_MAX] = {
	[HYPER_OP_INDEX(HYPER_OP_HELLO)] = { "HELLO", HYPER_OP_HELLO },
	[HYPER_OP_READ] = { "READ", HYPER_OP_READ, .echo = true, .whole = true },
	[HYPER_OP_INDEX(HYPER_OP_WRITE)] = { "WRITE", HYPER_OP_WRITE, .writes = true,
					     .echo = true },
	[HYPER_OP_READ_STR] = { "READ_STR", HYPER_OP_READ_STR, .echo = true },
	[HYPER_OP_READ_PROCARGS] = { "READ_PROCARGS", HYPER_OP_READ_PROCARGS, .echo = true },
	[HYPER_OP_READ_PROCENV] = { "READ_PROCENV", HYPER_OP_READ_PROCENV, .echo = true },
	[HYPER_OP_READ_FD_NAME] = { "READ_FD_NAME", HYPER_OP_READ_FD_NAME, .echo = true },
	[HYPER_OP_LIST_PROCS] = { "LIST_PROCS", HYPER_OP_LIST_PROCS },
	[HYPER_OP_READ_PROC] = { "READ_PROC", HYPER_OP_READ_PROC, .echo = true },
	[HYPER_OP_LIST_FDS] = { "LIST_FDS", HYPER_OP_LIST_FDS },
	[HYPER_OP_LIST_MAPS] = { "LIST_MAPS", HYPER_OP_LIST_MAPS },
	[HYPER_OP_READ_LINK] = { "READ_LINK", HYPER_OP_READ_LINK, .echo = true },
	[HYPER_OP_INDEX(HYPER_OP_READ_PROC_FILE)] = { "READ_PROC_FILE", HYPER_OP_READ_PROC_FILE },
	[HYPER_OP_WINDOW] = { "WINDOW", HYPER_OP_WINDOW, .echo = true },
	[HYPER_OP_TRANSLATE] = { "TRANSLATE", HYPER_OP_TRANSLATE, .echo = true },
	[HYPER_OP_INDEX(HYPER_OP_HOOK_SET)] = { "HOOK_SET", HYPER_OP_HOOK_SET, .writes = true,
						.echo = true },
	[HYPER_OP_HOOK_REMOVE] = { "HOOK_REMOVE", HYPER_OP_HOOK_REMOVE, .echo = true },
	[HYPER_OP_HOOK_WAIT] = { "HOOK_WAIT", HYPER_OP_HOOK_WAIT, .echo = true },
	[HYPER_OP_INDEX(HYPER_OP_HOOK_REPLY)] = { "HOOK_REPLY", HYPER_OP_HOOK_REPLY,
						  .writes = true, .echo = true },
	[HYPER_OP_INDEX(HYPER_OP_HOOK_POST)] = { "HOOK_POST", HYPER_OP_HOOK_POST },
	[HYPER_OP_HOOK_COUNTS] = { "HOOK_COUNTS", HYPER_OP_HOOK_COUNTS, .echo = true },
	[HYPER_OP_READ_PTR] = { "READ_PTR", HYPER_OP_READ_PTR, .echo = true },
	[HYPER_OP_INDEX(HYPER_OP_WRITE_PTR)] = { "WRITE_PTR", HYPER_OP_WRITE_PTR, .writes = true,
						 .echo = true },
};

static const struct {
	const char *name;
	uint32_t resp;
} resps[] = {
	{ "READ_OK", HYPER_RESP_READ_OK },
	{ "READ_PARTIAL", HYPER_RESP_READ_PARTIAL },
	{ "READ_FAIL", HYPER_RESP_READ_FAIL },
	{ "WRITE_OK", HYPER_RESP_WRITE_OK },
	{ "WRITE_PARTIAL", HYPER_RESP_WRITE_PARTIAL },
	{ "WRITE_FAIL", HYPER_RESP_WRITE_FAIL },
	{ "RESET", HYPER_RESP_RESET },
};

/* 1 to 34 are the same everywhere and not here. */
static const struct {
	uint32_t wire;
	int host;
} errnos[] = {
	{ HYPER_ENAMETOOLONG, ENAMETOOLONG },
	{ HYPER_ELOOP, ELOOP },
	{ HYPER_EPROTO, EPROTO },
	{ HYPER_EOVERFLOW, EOVERFLOW },
	{ HYPER_EOPNOTSUPP, EOPNOTSUPP },
	{ HYPER_ETIMEDOUT, ETIMEDOUT },
	{ HYPER_ESTALE, ESTALE },
};

static const struct wire_op *op_find(uint32_t op)
{
	uint32_t index = HYPER_OP_INDEX(op);

	return index < HYPER_OP_MAX && ops[index].name && ops[index].op == op ? &ops[index] : NULL;
}

static const char *resp_name(uint32_t resp)
{
	for (size_t i = 0; i < G_N_ELEMENTS(resps); i++)
		if (resps[i].resp == resp)
			return resps[i].name;
	return NULL;
}

uint32_t hm_header_data_size(const struct hm_header *header)
{
	return header->op & HYPER_DATA ? header->size : 0;
}

void hm_header_encode(const struct hm_header *header, uint8_t buf[HYPERMEM_HEADER_SIZE])
{
	uint64_t raw[3] = {
		htole64((uint64_t)header->pid << HYPER_PID_SHIFT | header->op),
		htole64(header->addr),
		htole64((uint64_t)header->stamp << HYPER_STAMP_SHIFT |
			(uint64_t)header->tag << HYPER_TAG_SHIFT | header->size),
	};

	memcpy(buf, raw, sizeof(raw));
}

void hm_header_decode(const uint8_t buf[HYPERMEM_HEADER_SIZE], struct hm_header *ret)
{
	uint64_t raw[3], op, size;

	memcpy(raw, buf, sizeof(raw));
	op = le64toh(raw[0]);
	size = le64toh(raw[2]);
	ret->op = (uint32_t)op;
	ret->pid = op >> HYPER_PID_SHIFT;
	ret->addr = le64toh(raw[1]);
	ret->size = (uint32_t)size;
	ret->tag = (uint16_t)(size >> HYPER_TAG_SHIFT);
	ret->stamp = size >> HYPER_STAMP_SHIFT;
}

int hm_header_check(const struct hm_header *header, uint32_t max_data)
{
	return resp_name(header->op) && hm_header_data_size(header) <= max_data ? 0 : -EPROTO;
}

/* A reply with bytes, all or up to a fault: how many it may have. */
static const char *bytes_check(const struct hm_header *request, const struct wire_op *op,
			       uint32_t limit, const struct hm_header *reply, bool partial)
{
	if (reply->size > limit)
		return "has more bytes than were asked for";
	if (partial && reply->size == limit)
		return "says partial but is whole";
	if (partial)
		return NULL;
	if (op->whole && reply->size && reply->size < limit)
		return "says OK but is short";
	if (op->writes && reply->size < limit)
		return "says OK but is short";
	if (op->echo && reply->addr != request->addr)
		return "is for another address";
	return NULL;
}

const char *hm_reply_check(const struct hm_header *request, uint32_t limit,
			   const struct hm_header *reply)
{
	const struct wire_op *op = op_find(request->op);
	bool ok, partial, fail;

	if (!op)
		return "is to no operation";
	if (reply->pid != request->pid || reply->stamp != request->stamp)
		return "is for another process";
	ok = reply->op == (op->writes ? HYPER_RESP_WRITE_OK : HYPER_RESP_READ_OK);
	partial = reply->op == (op->writes ? HYPER_RESP_WRITE_PARTIAL : HYPER_RESP_READ_PARTIAL);
	fail = reply->op == (op->writes ? HYPER_RESP_WRITE_FAIL : HYPER_RESP_READ_FAIL);
	if (!ok && !partial && !fail)
		return "does not fit the operation";
	if ((partial || fail) && hm_errno_decode(reply->addr) == -EPROTO &&
	    reply->addr != HYPER_EPROTO)
		return "has an impossible errno";
	if (fail)
		return reply->size ? "has failed, with bytes" : NULL;
	return bytes_check(request, op, limit, reply, partial);
}

bool hm_reply_is_ok(const struct hm_header *reply)
{
	return reply->op == HYPER_RESP_READ_OK || reply->op == HYPER_RESP_WRITE_OK;
}

void hm_hello_encode(uint32_t flags, uint64_t nonce, uint32_t max_data,
		     uint8_t buf[sizeof(struct hypermem_hello)])
{
	struct hypermem_hello raw = {
		.version = htole32(HYPERMEM_VERSION),
		.flags = htole32(flags),
		.nonce = htole64(nonce),
		.max_data = htole32(max_data),
	};

	memcpy(buf, &raw, sizeof(raw));
}

/* The text is going to stand in a line of its own: nothing in it may end that line. */
static int text_decode(const char *raw, size_t size, char *ret)
{
	size_t n = strnlen(raw, size);

	if (n == size)
		return -EPROTO;
	memset(ret, 0, size);
	for (size_t i = 0; i < n; i++)
		ret[i] = g_ascii_isprint(raw[i]) ? raw[i] : '?';
	return 0;
}

static bool page_size_is_valid(uint32_t size)
{
	return size >= 1024 && size <= 1024 * 1024 && !(size & (size - 1));
}

/*
 * A wait for events takes as long as it pleases, and so may an answer that is late: with less
 * than a third one at a time hooks would keep everything else waiting.
 */
static uint64_t hello_ops(const struct hypermem_hello_reply *raw)
{
	const uint64_t hooks = 1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_SET) |
			       1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_WAIT);

	return le64toh(raw->ops) & ~(le32toh(raw->max_inflight) < 3 ? hooks : 0);
}

int hm_hello_reply_decode(const uint8_t *data, size_t size, struct hm_guest *ret)
{
	struct hypermem_hello_reply raw = { 0 };
	struct hm_guest guest;

	if (size < HELLO_REPLY_COMMON)
		return -EPROTO;
	memcpy(&raw, data, MIN(size, sizeof(raw)));
	guest = (struct hm_guest){
		.version = le32toh(raw.version),
		.flags = le32toh(raw.flags),
		.epoch = le64toh(raw.epoch),
		.ops = hello_ops(&raw),
		.allowed = le64toh(raw.allowed) & hello_ops(&raw),
		.max_data = MIN(le32toh(raw.max_data), HYPERMEM_DATA_MAX),
		.max_inflight = le32toh(raw.max_inflight),
		.page_size = le32toh(raw.page_size),
		.word_bits = le32toh(raw.word_bits),
	};
	if (guest.version != HYPERMEM_VERSION) {
		ret->version = guest.version;
		return -EPROTONOSUPPORT;
	}
	if (size < sizeof(raw) || !guest.epoch || guest.max_data < HYPERMEM_CHUNK_SIZE ||
	    !guest.max_inflight || !page_size_is_valid(guest.page_size) ||
	    (guest.word_bits != 32 && guest.word_bits != 64))
		return -EPROTO;
	if (text_decode(raw.release, sizeof(raw.release), guest.release) ||
	    text_decode(raw.machine, sizeof(raw.machine), guest.machine) ||
	    text_decode(raw.module, sizeof(raw.module), guest.module))
		return -EPROTO;
	*ret = guest;
	return 0;
}

int hm_proc_decode(const uint8_t *data, size_t size, struct hm_proc *ret)
{
	struct hypermem_proc raw;
	struct hm_proc proc;

	if (size != sizeof(raw))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	proc = (struct hm_proc){
		.pid = le32toh(raw.pid),
		.ppid = le32toh(raw.ppid),
		.uid = le32toh(raw.uid),
		.gid = le32toh(raw.gid),
		.stamp = le16toh(raw.stamp),
		.state = (char)raw.state,
		.flags = raw.flags,
		.threads = le32toh(raw.threads),
		.start_time = le64toh(raw.start_time),
		.start_time_real = le64toh(raw.start_time_real),
		.arg_start = le64toh(raw.arg_start),
		.arg_end = le64toh(raw.arg_end),
		.env_start = le64toh(raw.env_start),
		.env_end = le64toh(raw.env_end),
		.task_size = le64toh(raw.task_size),
	};
	if (proc.pid < 1 || proc.pid >= HYPERMEM_PID_MAX || proc.ppid >= HYPERMEM_PID_MAX ||
	    !proc.stamp || (proc.state && !g_ascii_isalpha(proc.state)))
		return -EPROTO;
	memcpy(proc.comm, raw.comm, strnlen(raw.comm, sizeof(raw.comm)));
	*ret = proc;
	return 0;
}

int hm_fd_decode(const uint8_t *data, size_t size, struct hm_fd *ret)
{
	struct hypermem_fd raw;
	struct hm_fd fd;

	if (size != sizeof(raw))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	fd = (struct hm_fd){ .fd = le32toh(raw.fd), .mode = le32toh(raw.mode) };
	if (fd.fd > INT32_MAX || !S_ISLNK(fd.mode) || (fd.mode & ~(S_IFMT | 0777)))
		return -EPROTO;
	*ret = fd;
	return 0;
}

int hm_map_decode(const uint8_t *data, size_t size, struct hm_map *ret)
{
	struct hypermem_map raw;
	struct hm_map map;

	if (size != sizeof(raw))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	map = (struct hm_map){
		.start = le64toh(raw.start),
		.end = le64toh(raw.end),
		.offset = le64toh(raw.offset),
		.inode = le64toh(raw.inode),
		.dev_major = le32toh(raw.dev_major),
		.dev_minor = le32toh(raw.dev_minor),
		.flags = le32toh(raw.flags),
	};
	if (map.start >= map.end)
		return -EPROTO;
	*ret = map;
	return 0;
}

static size_t number_byte(size_t i, size_t size, bool big_endian)
{
	return big_endian ? size - 1 - i : i;
}

uint64_t hm_number_decode(const uint8_t *data, size_t size, bool big_endian)
{
	uint64_t number = 0;

	for (size_t i = 0; i < size; i++)
		number |= (uint64_t)data[number_byte(i, size, big_endian)] << 8 * i;
	return number;
}

void hm_number_encode(uint64_t number, size_t size, bool big_endian, uint8_t *buf)
{
	for (size_t i = 0; i < size; i++)
		buf[number_byte(i, size, big_endian)] = (uint8_t)(number >> 8 * i);
}

int hm_errno_decode(uint64_t wire)
{
	if (wire >= 1 && wire <= 34)
		return -(int)wire;
	for (size_t i = 0; i < G_N_ELEMENTS(errnos); i++)
		if (errnos[i].wire == wire)
			return -errnos[i].host;
	return -EPROTO;
}

const char *hm_op_name(uint32_t op)
{
	const struct wire_op *row = op_find(op);

	return row ? row->name : resp_name(op);
}
