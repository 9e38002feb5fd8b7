// SPDX-License-Identifier: MIT
/*
 * fake_guest_misbehave: the ways in which a guest can go wrong, one row each.
 *
 * A hostile guest may send anything at all; these are the classes of it that
 * the host must tell apart or survive.  The table is at the end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_guest_priv.h"

static bool is_list(const struct frame *frame)
{
	return frame->op == HYPER_OP_LIST_PROCS || frame->op == HYPER_OP_LIST_FDS ||
	       frame->op == HYPER_OP_LIST_MAPS;
}

static bool is_hello(const struct frame *frame)
{
	return frame->op == HYPER_OP_HELLO;
}

static bool is_write(const struct frame *frame)
{
	return frame->op == HYPER_OP_WRITE || frame->op == HYPER_OP_HOOK_SET ||
	       frame->op == HYPER_OP_HOOK_REPLY || frame->op == HYPER_OP_HOOK_POST;
}

/* The records of a reply, if `request` asks for some of `type`. */
#define RECORD(request, reply, operation, type)                                                    \
	((request)->frame.op == (operation) && (reply)->data->len >= sizeof(type) ?                \
		 (type *)(void *)(reply)->data->data :                                             \
		 NULL)

static struct hypermem_hello_reply *hello_reply(struct request *request, struct frame *reply)
{
	return RECORD(request, reply, HYPER_OP_HELLO, struct hypermem_hello_reply);
}

/* -- requests that get no answer ----------------------------------------- */

static bool ignore_all_but_hello(struct request *request, int64_t arg)
{
	return !is_hello(&request->frame);
}

static bool ignore_hello(struct request *request, int64_t arg)
{
	return is_hello(&request->frame);
}

static bool ignore_pid(struct request *request, int64_t arg)
{
	return request->frame.pid == arg;
}

static bool ignore_op(struct request *request, int64_t arg)
{
	return HYPER_OP_INDEX(request->frame.op) == arg;
}

static bool sleep_ms(struct request *request, int64_t arg)
{
	g_usleep(arg * 1000);
	return false;
}

static bool hang_up(struct request *request, int64_t arg)
{
	conn_hang_up(request->conn);
	return true;
}

/* -- answers with a wrong header ------------------------------------------ */

static void change_tag(struct request *request, struct frame *reply, int64_t arg)
{
	if (!is_hello(&request->frame))
		reply->tag ^= 0x5aa5;
}

static void change_pid(struct request *request, struct frame *reply, int64_t arg)
{
	if (!is_hello(&request->frame))
		reply->pid++;
}

static void change_stamp(struct request *request, struct frame *reply, int64_t arg)
{
	if (!is_hello(&request->frame))
		reply->stamp ^= 0x5aa5;
}

static void change_addr(struct request *request, struct frame *reply, int64_t arg)
{
	if (!is_hello(&request->frame))
		reply->addr += 0x1000;
}

static void change_response(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_hello(&request->frame))
		return;
	reply->op = arg;
	reply->size = 0;
	g_byte_array_set_size(reply->data, 0);
}

static void swap_read_and_write(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_hello(&request->frame))
		return;
	if (request->frame.op == HYPER_OP_WRITE) {
		reply->op = HYPER_RESP_READ_OK;
	} else {
		reply->op = HYPER_RESP_WRITE_OK;
		reply->size = reply->data->len;
		g_byte_array_set_size(reply->data, 0);
	}
}

static void fail_with(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_hello(&request->frame))
		return;
	reply->op = is_write(&request->frame) ? HYPER_RESP_WRITE_FAIL : HYPER_RESP_READ_FAIL;
	reply->addr = arg;
	reply->size = 0;
	g_byte_array_set_size(reply->data, 0);
}

/* -- answers with wrong contents ------------------------------------------- */

static void add_bytes(struct request *request, struct frame *reply, int64_t arg)
{
	if (request->frame.op == HYPER_OP_WRITE) {
		reply->size += arg;
	} else if (!is_hello(&request->frame)) {
		guint old = reply->data->len;

		/* More than was asked for, still no more than HELLO agreed on. */
		g_byte_array_set_size(reply->data,
				      MIN(MAX(old, request->frame.size) + arg, HYPERMEM_DATA_MAX));
		memset(reply->data->data + old, 'x', reply->data->len - old);
	}
}

static void drop_last_byte(struct request *request, struct frame *reply, int64_t arg)
{
	if (!is_hello(&request->frame) && reply->data->len > 0)
		g_byte_array_set_size(reply->data, reply->data->len - 1);
}

static void zero_first_byte(struct request *request, struct frame *reply, int64_t arg)
{
	uint32_t op = request->frame.op;

	if ((op == HYPER_OP_READ_FD_NAME || op == HYPER_OP_READ_LINK) && reply->data->len > 0)
		reply->data->data[0] = 0;
}

static void empty_name(struct request *request, struct frame *reply, int64_t arg)
{
	uint32_t op = request->frame.op;

	if (op == HYPER_OP_READ_FD_NAME || op == HYPER_OP_READ_LINK)
		g_byte_array_set_size(reply->data, 0);
}

static void break_off(struct request *request, struct frame *reply, int64_t arg)
{
	uint32_t op = request->frame.op;

	if (op != HYPER_OP_READ_PROCARGS && op != HYPER_OP_READ_PROCENV)
		return;
	if (request->frame.addr == 0) {
		g_byte_array_set_size(reply->data, arg);
		reply->op = HYPER_RESP_READ_PARTIAL;
		reply->addr = EIO;
	} else {
		fail_with(request, reply, EIO);
	}
}

static void stand_still(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_list(&request->frame) || request->frame.op == HYPER_OP_READ_PROC_FILE)
		reply->addr = MAX(request->frame.addr, 1);
}

static void go_on_without_records(struct request *request, struct frame *reply, int64_t arg)
{
	if (!is_list(&request->frame) && request->frame.op != HYPER_OP_READ_PROC_FILE)
		return;
	reply->addr = request->frame.addr + 1;
	g_byte_array_set_size(reply->data, 0);
}

static void spoil_record(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_proc *proc = RECORD(request, reply, HYPER_OP_LIST_PROCS,
					    struct hypermem_proc);
	struct hypermem_fd *fd = RECORD(request, reply, HYPER_OP_LIST_FDS, struct hypermem_fd);
	struct hypermem_map *map = RECORD(request, reply, HYPER_OP_LIST_MAPS, struct hypermem_map);

	if (!proc)
		proc = RECORD(request, reply, HYPER_OP_READ_PROC, struct hypermem_proc);
	if (proc)
		proc->pid = GUINT32_TO_LE(HYPERMEM_PID_MAX + 1);
	if (fd)
		fd->fd = GUINT32_TO_LE(UINT32_MAX);
	if (map)
		map->end = map->start;
}

static void other_process(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_proc *proc = RECORD(request, reply, HYPER_OP_READ_PROC,
					    struct hypermem_proc);

	if (proc)
		proc->pid = GUINT32_TO_LE(GUINT32_FROM_LE(proc->pid) + 1);
}

static void swap_records(struct request *request, struct frame *reply, int64_t arg)
{
	uint32_t op = request->frame.op;
	size_t size = op == HYPER_OP_LIST_PROCS ? sizeof(struct hypermem_proc) :
		      op == HYPER_OP_LIST_FDS	? sizeof(struct hypermem_fd) :
						  sizeof(struct hypermem_map);
	uint8_t first[sizeof(struct hypermem_proc)];

	if (!is_list(&request->frame) || reply->data->len < 2 * size)
		return;
	memcpy(first, reply->data->data, size);
	memcpy(reply->data->data, reply->data->data + size, size);
	memcpy(reply->data->data + size, first, size);
}

/* -- a wrong HELLO ----------------------------------------------------------- */

static void hello_version(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_hello_reply *hello = hello_reply(request, reply);

	if (hello)
		hello->version = GUINT32_TO_LE(arg);
}

static void hello_nonce(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_hello(&request->frame))
		reply->addr ^= 1;
}

static void hello_short(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_hello(&request->frame))
		g_byte_array_set_size(reply->data, arg);
}

static void hello_max_data(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_hello_reply *hello = hello_reply(request, reply);

	if (hello)
		hello->max_data = GUINT32_TO_LE(arg);
}

static void hello_strings(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_hello_reply *hello = hello_reply(request, reply);

	if (hello) {
		memset(hello->release, '\n', sizeof(hello->release));
		memset(hello->machine, 0xff, sizeof(hello->machine));
	}
}

static void hello_lacks(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_hello_reply *hello = hello_reply(request, reply);

	if (hello) {
		hello->ops &= ~GUINT64_TO_LE(1ULL << arg);
		hello->allowed &= hello->ops;
	} else if (HYPER_OP_INDEX(request->frame.op) == arg) {
		fail_with(request, reply, HYPER_EOPNOTSUPP);
	}
}

static void hello_forbids(struct request *request, struct frame *reply, int64_t arg)
{
	struct hypermem_hello_reply *hello = hello_reply(request, reply);

	if (hello)
		hello->allowed &= ~GUINT64_TO_LE(1ULL << arg);
	else if (HYPER_OP_INDEX(request->frame.op) == arg)
		fail_with(request, reply, EPERM);
}

/* -- something else than an answer ---------------------------------------------- */

static void send_half(struct conn *conn, struct frame *reply, int64_t arg)
{
	g_autoptr(GByteArray) bytes = frame_encode(reply);

	conn_send_raw(conn, bytes->data, bytes->len / 2);
	conn_hang_up(conn);
}

/* What a guest does that is reset in the middle of an answer. */
static enum { ANSWERS, IS_SILENT, HAS_BOOTED } halfway;

static void halfway_begin(struct fake_guest *guest, struct conn *conn)
{
	g_atomic_int_set(&halfway, ANSWERS);
}

static void halfway_reply(struct request *request, struct frame *reply, int64_t arg)
{
	if (is_hello(&request->frame))
		g_atomic_int_compare_and_exchange(&halfway, IS_SILENT, HAS_BOOTED);
}

static void send_halfway(struct conn *conn, struct frame *reply, int64_t arg)
{
	g_autoptr(GByteArray) bytes = frame_encode(reply);

	if (g_atomic_int_get(&halfway) == HAS_BOOTED)
		conn_send(conn, reply);
	else if (g_atomic_int_compare_and_exchange(&halfway, ANSWERS, IS_SILENT))
		conn_send_raw(conn, bytes->data, bytes->len / 2);
}

static void send_oversize(struct conn *conn, struct frame *reply, int64_t arg)
{
	g_autoptr(GByteArray) bytes = NULL;
	uint32_t size = GUINT32_TO_LE(arg);

	reply->op = HYPER_RESP_READ_OK;
	bytes = frame_encode(reply);
	memcpy(bytes->data + 2 * sizeof(uint64_t), &size, sizeof(size));
	conn_send_raw(conn, bytes->data, bytes->len);
}

static void send_garbage(struct conn *conn, struct frame *reply, int64_t arg)
{
	g_autofree uint8_t *buf = g_malloc(arg);

	for (int64_t i = 0; i < arg; i++)
		buf[i] = g_random_int();
	conn_send_raw(conn, buf, arg);
}

static void send_twice(struct conn *conn, struct frame *reply, int64_t arg)
{
	conn_send(conn, reply);
	conn_send(conn, reply);
}

static void send_reset(struct conn *conn, struct frame *reply, int64_t arg)
{
	g_autoptr(GByteArray) none = g_byte_array_new();
	struct frame reset = { .op = HYPER_RESP_RESET, .data = none };

	conn_send(conn, &reset);
}

/* -- the rest ---------------------------------------------------------------------- */

static uint16_t change_process_stamp(uint16_t stamp)
{
	return stamp == 0x5aa5 ? 1 : stamp ^ 0x5aa5;
}

static const struct misbehaviour table[] = {
	/* Never answers anything after HELLO. */
	{ .name = "silent", .request = ignore_all_but_hello },
	/* Never answers HELLO. */
	{ .name = "no-hello", .request = ignore_hello },
	/* Never answers requests about one process. */
	{ .name = "hang-pid", .arg = -1, .request = ignore_pid },
	/* Never answers one operation, by its index. */
	{ .name = "hang-op", .arg = -1, .request = ignore_op },
	/* Answers everything ARG ms late. */
	{ .name = "late", .arg = 1000, .request = sleep_ms },
	/* Closes the connection instead of answering. */
	{ .name = "close", .request = hang_up },

	/* The answer's tag is nobody's. */
	{ .name = "wrong-tag", .reply = change_tag },
	/* The answer is about another pid. */
	{ .name = "wrong-pid", .reply = change_pid },
	/* The answer is about another process of that pid. */
	{ .name = "wrong-stamp", .reply = change_stamp },
	/* The answer is about another address; in a list, another cursor. */
	{ .name = "wrong-addr", .reply = change_addr },
	/* The response is none that exists. */
	{ .name = "unknown-response", .arg = 0xf00000ff, .reply = change_response },
	/* The response is an operation. */
	{ .name = "operation-as-response", .arg = HYPER_OP_READ, .reply = change_response },
	/* Answers a READ with WRITE_OK and a WRITE with READ_OK. */
	{ .name = "wrong-kind", .reply = swap_read_and_write },
	/* Fails everything with errno ARG, which may be none. */
	{ .name = "fail", .arg = EIO, .reply = fail_with },

	/* ARG bytes more than were asked for, or written. */
	{ .name = "too-much", .arg = 1, .reply = add_bytes },
	/* The last byte is missing: READ_OK is short, a record is cut. */
	{ .name = "cut", .reply = drop_last_byte },
	/* Link texts have a NUL in them. */
	{ .name = "nul-in-name", .reply = zero_first_byte },
	/* Link texts are empty. */
	{ .name = "empty-name", .reply = empty_name },
	/* Of arguments and environment all but the first ARG bytes cannot be read. */
	{ .name = "breaks-off", .arg = 5, .reply = break_off },
	/* Lists and files never end: the cursor stands still. */
	{ .name = "endless-list", .reply = stand_still },
	/* Lists and files never end: empty parts, each with a new cursor. */
	{ .name = "endless-nothing", .reply = go_on_without_records },
	/* A pid, descriptor or mapping that cannot be. */
	{ .name = "bad-record", .reply = spoil_record },
	/* READ_PROC tells of another pid than was asked for. */
	{ .name = "other-process", .reply = other_process },
	/* The records of a list are not in order. */
	{ .name = "disorder", .reply = swap_records },

	/* HELLO says protocol version ARG. */
	{ .name = "old-version", .arg = 0, .reply = hello_version },
	/* HELLO answers somebody else's HELLO. */
	{ .name = "wrong-nonce", .reply = hello_nonce },
	/* HELLO's answer is ARG bytes. */
	{ .name = "short-hello", .arg = 100, .reply = hello_short },
	/* HELLO's answer agrees on frames of ARG bytes. */
	{ .name = "max-data", .arg = 0, .reply = hello_max_data },
	/* HELLO's strings have no end and are not text. */
	{ .name = "bad-strings", .reply = hello_strings },
	/* An older module, without the operation of index ARG. */
	{ .name = "lacks", .arg = HYPER_OP_INDEX(HYPER_OP_READ_STR), .reply = hello_lacks },
	/* A module whose owner forbids the operation of index ARG. */
	{ .name = "forbids", .arg = HYPER_OP_INDEX(HYPER_OP_WRITE), .reply = hello_forbids },

	/* Half an answer, then the connection is closed. */
	{ .name = "short-frame", .send = send_half },
	/* Half an answer, then none to anything until the next HELLO. */
	{ .name = "stops-halfway", .begin = halfway_begin, .reply = halfway_reply,
	  .send = send_halfway },
	/* The answer claims ARG bytes of data. */
	{ .name = "oversize", .arg = HYPERMEM_DATA_MAX + 1, .send = send_oversize },
	/* ARG random bytes instead of an answer. */
	{ .name = "garbage", .arg = 4096, .send = send_garbage },
	/* Each answer twice. */
	{ .name = "twice", .send = send_twice },
	/* RESET instead of an answer. */
	{ .name = "reset", .send = send_reset },

	/* Not wrong, but not the default: guest RAM can be seen from outside. */
	{ .name = "window", .arg = WINDOW_TRUE, .reply = window_answer },
	/* The same, and something about it is not true. */
	{ .name = "window-no-proof", .arg = WINDOW_NO_PROOF, .reply = window_answer },
	{ .name = "window-old-proof", .arg = WINDOW_OLD_PROOF, .reply = window_answer },
	{ .name = "window-bad-ram", .arg = WINDOW_BAD_RAM, .reply = window_answer },
	{ .name = "window-stale", .arg = WINDOW_STALE, .reply = window_answer },
	{ .name = "window-exec", .arg = WINDOW_EXEC, .reply = window_answer },
	{ .name = "window-outside", .arg = WINDOW_OUTSIDE, .reply = window_answer },
	{ .name = "window-far-outside", .arg = WINDOW_FAR_OUTSIDE, .reply = window_answer },
	{ .name = "window-bad-hold", .arg = WINDOW_BAD_HOLD, .reply = window_answer },

	/* Something about an event is not as it should be. */
	{ .name = "event-many-regs", .arg = EVENT_MANY_REGS, .reply = hooks_spoil },
	{ .name = "event-regs-beyond", .arg = EVENT_REGS_BEYOND, .reply = hooks_spoil },
	{ .name = "event-comm", .arg = EVENT_COMM, .reply = hooks_spoil },
	{ .name = "event-call", .arg = EVENT_CALL, .reply = hooks_spoil },
	{ .name = "event-no-call", .arg = EVENT_NO_CALL, .reply = hooks_spoil },
	{ .name = "event-hook", .arg = EVENT_HOOK, .reply = hooks_spoil },
	{ .name = "event-no-id", .arg = EVENT_NO_ID, .reply = hooks_spoil },
	{ .name = "event-pid", .arg = EVENT_PID, .reply = hooks_spoil },
	{ .name = "event-regs", .arg = EVENT_REGS, .reply = hooks_spoil },
	{ .name = "event-twice", .arg = EVENT_TWICE, .reply = hooks_spoil },
	{ .name = "event-none", .arg = EVENT_NONE, .reply = hooks_spoil },

	/* The guest has booted anew: RESET, another epoch, no session. */
	{ .name = "reboot", .begin = fake_guest_reboot },
	/* Every pid is another process's now. */
	{ .name = "reuse", .stamp = change_process_stamp },
};

const struct misbehaviour *misbehaviour_find(const char *text, int64_t *ret_arg)
{
	const char *equals = strchr(text, '=');
	size_t length = equals ? (size_t)(equals - text) : strlen(text);

	for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
		if (strlen(table[i].name) != length || memcmp(table[i].name, text, length) != 0)
			continue;
		*ret_arg = equals ? g_ascii_strtoll(equals + 1, NULL, 0) : table[i].arg;
		return &table[i];
	}
	return NULL;
}
