// SPDX-License-Identifier: MIT
/*
 * fake_guest: the protocol, answered from this host's /proc.
 *
 *	fake_guest_link.c	frames and connections
 *	fake_guest_proc.c	processes
 *	fake_guest_memory.c	their memory
 *	fake_guest_text.c	texts and links
 *	fake_guest_window.c	RAM that can be seen from outside
 *	fake_guest_hook.c	hooks (fake_guest_caller.c: who makes calls, fake_guest_event.c: events)
 *	fake_guest_misbehave.c	all that can be wrong
 *
 * The table `ops` names the operations; each handler fills in the reply and
 * returns 0 or -errno.  Nothing is cached: /proc is asked for each request.
 */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake_guest_priv.h"

#define MAX_INFLIGHT 64

enum {
	PROCESS = 0x1,	/* about a process: request->dir is open */
	LIMIT = 0x2,	/* size is the limit of the reply's data */
	WRITES = 0x4,	/* refused when read-only */
	SILENT = 0x8,	/* not answered */
};

/* No RAM can be seen from outside; fake_guest_window.c has some. */
static int op_window(struct request *request, struct frame *reply)
{
	return 0;
}

static int op_translate(struct request *request, struct frame *reply)
{
	return -EAGAIN;
}

#define OP(name) [HYPER_OP_INDEX(HYPER_OP_##name)] = { .op = HYPER_OP_##name

static const struct op {
	uint32_t op;
	unsigned int flags;
	int (*handle)(struct request *request, struct frame *reply);
} ops[HYPER_OP_MAX] = {
	OP(HELLO) },	/* never gets as far as the table */
	OP(READ),		PROCESS | LIMIT,	op_read },
	OP(WRITE),		PROCESS | WRITES,	op_write },
	OP(READ_STR),		PROCESS | LIMIT,	op_read_str },
	OP(READ_PROCARGS),	PROCESS | LIMIT,	op_read_procargs },
	OP(READ_PROCENV),	PROCESS | LIMIT,	op_read_procenv },
	OP(READ_FD_NAME),	PROCESS | LIMIT,	op_read_fd_name },
	OP(LIST_PROCS),		LIMIT,			op_list_procs },
	OP(READ_PROC),		PROCESS,		op_read_proc },
	OP(LIST_FDS),		PROCESS | LIMIT,	op_list_fds },
	OP(LIST_MAPS),		PROCESS | LIMIT,	op_list_maps },
	OP(READ_LINK),		PROCESS | LIMIT,	op_read_link },
	OP(READ_PROC_FILE),	PROCESS,		op_read_proc_file },
	OP(WINDOW),		LIMIT,			op_window },
	OP(TRANSLATE),		PROCESS,		op_translate },
	OP(HOOK_SET),		WRITES,			op_hook_set },
	OP(HOOK_REMOVE),	0,			op_hook_remove },
	OP(HOOK_WAIT),		LIMIT,			op_hook_wait },
	OP(HOOK_REPLY),		WRITES,			op_hook_reply },
	OP(HOOK_POST),		WRITES | SILENT,	op_hook_reply },
	OP(HOOK_COUNTS),	0,			op_hook_counts },
	OP(READ_PTR),		PROCESS,		op_read_ptr },
	OP(WRITE_PTR),		PROCESS | WRITES,	op_write_ptr },
};

/* -- from request to reply --------------------------------------------------------------- */

static uint64_t ops_mask(bool with_writes)
{
	uint64_t mask = 0;

	for (int i = 0; i < HYPER_OP_MAX; i++)
		if (ops[i].op && (with_writes || !(ops[i].flags & WRITES)))
			mask |= 1ULL << i;
	return mask;
}

static const struct op *op_find(uint32_t op)
{
	uint32_t index = HYPER_OP_INDEX(op);

	return index < HYPER_OP_MAX && ops[index].op == op && ops[index].handle ? &ops[index] :
										  NULL;
}

static void reply_init(const struct request *request, struct frame *reply)
{
	*reply = (struct frame){
		.op = HYPER_RESP_READ_OK,
		.pid = request->frame.pid,
		.addr = request->frame.addr,
		.tag = request->frame.tag,
		.stamp = request->frame.stamp,
		.data = g_byte_array_new(),
	};
}

static int request_handle(struct request *request, const struct op *op, struct frame *reply)
{
	if (!op)
		return -EOPNOTSUPP;
	if ((op->flags & WRITES) && request->readonly)
		return -EPERM;
	if ((op->flags & LIMIT) && request->frame.size > request->max_data)
		return -EINVAL;
	if (op->flags & PROCESS) {
		int rc = process_open(request->conn->guest, request->frame.pid,
				      request->frame.stamp, &request->dir);
		if (rc)
			return rc;
	}
	return op->handle(request, reply);
}

/* How it went: OK, partial, or failed. */
static void reply_finish(const struct op *op, int rc, struct frame *reply)
{
	bool writes = op && (op->flags & WRITES);
	bool nothing = (writes ? reply->size : reply->data->len) == 0;

	if (rc)
		reply->addr = -rc;
	if (rc && nothing)
		reply->op = writes ? HYPER_RESP_WRITE_FAIL : HYPER_RESP_READ_FAIL;
	else if (rc)
		reply->op = writes ? HYPER_RESP_WRITE_PARTIAL : HYPER_RESP_READ_PARTIAL;
	else
		reply->op = writes ? HYPER_RESP_WRITE_OK : HYPER_RESP_READ_OK;
}

static void hello_fill(struct request *request, struct frame *reply, uint32_t max_data)
{
	struct fake_guest *guest = request->conn->guest;
	struct hypermem_hello_reply hello = {
		.version = GUINT32_TO_LE(HYPERMEM_VERSION),
		.flags = GUINT32_TO_LE((request->readonly ? HYPER_HELLO_READONLY : 0) |
				       (G_BYTE_ORDER == G_BIG_ENDIAN ? HYPER_HELLO_BIG_ENDIAN : 0)),
		.ops = GUINT64_TO_LE(ops_mask(true)),
		.allowed = GUINT64_TO_LE(ops_mask(!request->readonly)),
		.max_data = GUINT32_TO_LE(max_data),
		.max_inflight = GUINT32_TO_LE(MAX_INFLIGHT),
		.page_size = GUINT32_TO_LE(sysconf(_SC_PAGESIZE)),
		.word_bits = GUINT32_TO_LE(sizeof(long) * 8),
		.module = "fake",
	};
	struct utsname name;

	g_mutex_lock(&guest->lock);
	hello.epoch = GUINT64_TO_LE(guest->epoch);
	g_mutex_unlock(&guest->lock);
	uname(&name);
	g_strlcpy(hello.release, name.release, sizeof(hello.release));
	g_strlcpy(hello.machine, name.machine, sizeof(hello.machine));
	g_byte_array_append(reply->data, (const guint8 *)&hello, sizeof(hello));
}

/* Another session: what the old one still waits for is never answered. */
static void hello_handle(struct request *request, struct frame *reply)
{
	static unsigned int sessions;	/* under conn->lock; one connection at a time */
	const struct fake_guest_config *config = &request->conn->guest->config;
	struct conn *conn = request->conn;
	struct hypermem_hello hello;

	memcpy(&hello, request->frame.data->data, sizeof(hello));
	request->readonly = config->readonly ||
			    (GUINT32_FROM_LE(hello.flags) & HYPER_HELLO_READONLY);
	g_mutex_lock(&conn->lock);
	conn->readonly = request->readonly;
	conn->max_data = MIN(GUINT32_FROM_LE(hello.max_data), config->max_data);
	conn->session = request->session = ++sessions ?: ++sessions;
	g_mutex_unlock(&conn->lock);
	hooks_session(request->session);
	reply->addr = GUINT64_FROM_LE(hello.nonce);
	hello_fill(request, reply, conn->max_data);
}

static void request_free(struct request *request)
{
	if (request->dir >= 0)
		close(request->dir);
	g_byte_array_unref(request->frame.data);
	conn_unref(request->conn);
	g_free(request);
}

/* What is wrong with the guest now, after a look at the control file. */
static const struct misbehaviour *misbehaviour_now(struct conn *conn, int64_t *ret_arg)
{
	struct fake_guest *guest = conn->guest;
	const struct misbehaviour *misbehaviour, *begun = NULL;
	g_autofree char *text = NULL;

	if (guest->config.control) {
		if (!g_file_get_contents(guest->config.control, &text, NULL, NULL))
			text = g_strdup("");
		g_strstrip(text);
	}
	g_mutex_lock(&guest->lock);
	if (text && g_strcmp0(text, guest->control) != 0) {
		g_free(guest->control);
		guest->control = g_steal_pointer(&text);
		guest->misbehaviour = misbehaviour_find(guest->control, &guest->arg);
		begun = guest->misbehaviour;
	}
	misbehaviour = guest->misbehaviour;
	*ret_arg = guest->arg;
	g_mutex_unlock(&guest->lock);
	if (begun && begun->begin)
		begun->begin(guest, conn);
	return misbehaviour;
}

/* One request from beginning to end, misbehaviour and all. */
static void request_serve(struct request *request)
{
	int64_t arg = 0;
	const struct misbehaviour *bad = misbehaviour_now(request->conn, &arg);
	bool hello = frame_is_hello(&request->frame);
	const struct op *op = op_find(request->frame.op);
	struct frame reply;

	if (bad && bad->request && bad->request(request, arg))
		return;
	reply_init(request, &reply);
	if (hello)
		hello_handle(request, &reply);
	else
		reply_finish(op, request_handle(request, op, &reply), &reply);
	if (bad && bad->reply)
		bad->reply(request, &reply, arg);
	if (op && (op->flags & SILENT))
		;
	else if (bad && bad->send && !hello)
		bad->send(request->conn, &reply, arg);
	else
		conn_reply(request, &reply);
	g_byte_array_unref(reply.data);
}

static void request_work(gpointer data, gpointer user_data)
{
	request_serve(data);
	request_free(data);
}

/* -- the guest -------------------------------------------------------------------------------- */

void fake_guest_serve(struct fake_guest *guest, int fd)
{
	struct conn *conn = conn_new(guest, fd);
	struct frame frame;

	while (conn_receive(conn, &frame)) {
		struct request *request = g_new0(struct request, 1);

		request->conn = conn_ref(conn);
		request->frame = frame;
		request->dir = -1;
		g_mutex_lock(&conn->lock);
		request->session = conn->session;
		request->max_data = conn->max_data;
		request->readonly = conn->readonly;
		g_mutex_unlock(&conn->lock);
		if (frame_is_hello(&frame)) {	/* what follows belongs to the new session */
			request_work(request, NULL);
			continue;
		}
		if (frame.op == HYPER_OP_HOOK_WAIT)
			hooks_wait_came(request);
		g_thread_pool_push(guest->workers, request, NULL);
	}
	hooks_session(0);
	conn_hang_up(conn);
	conn_unref(conn);
}

static uint64_t random_epoch(void)
{
	uint64_t epoch = (uint64_t)g_random_int() << 32 | g_random_int();

	return epoch ?: 1;
}

static uint64_t monotonic_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

void fake_guest_reboot(struct fake_guest *guest, struct conn *conn)
{
	g_mutex_lock(&guest->lock);
	guest->epoch = random_epoch();
	g_mutex_unlock(&guest->lock);
	conn_forget_session(conn);
	conn_send_reset(conn);
}

int fake_guest_misbehave(struct fake_guest *guest, const char *text)
{
	const struct misbehaviour *found = NULL;
	int64_t arg = 0;

	if (text && *text) {
		found = misbehaviour_find(text, &arg);
		if (!found)
			return -EINVAL;
	}
	g_mutex_lock(&guest->lock);
	guest->misbehaviour = found;
	guest->arg = arg;
	g_mutex_unlock(&guest->lock);
	return 0;
}

struct fake_guest *fake_guest_new(const struct fake_guest_config *config)
{
	struct fake_guest *guest = g_new0(struct fake_guest, 1);

	guest->config = *config;
	if (!guest->config.max_data)
		guest->config.max_data = HYPERMEM_DATA_MAX;
	guest->config.control = g_strdup(config->control);
	guest->control = g_strdup("");
	guest->workers = g_thread_pool_new(request_work, NULL, -1, false, NULL);
	guest->boot_ns = monotonic_ns(CLOCK_REALTIME) - monotonic_ns(CLOCK_BOOTTIME);
	guest->epoch = random_epoch();
	g_mutex_init(&guest->lock);
	g_cond_init(&guest->idle);
	return guest;
}

void fake_guest_free(struct fake_guest *guest)
{
	if (!guest)
		return;
	g_mutex_lock(&guest->lock);
	while (guest->conns > 0)
		g_cond_wait(&guest->idle, &guest->lock);
	g_mutex_unlock(&guest->lock);
	g_thread_pool_free(guest->workers, false, true);
	g_cond_clear(&guest->idle);
	g_mutex_clear(&guest->lock);
	g_free((char *)guest->config.control);
	g_free(guest->control);
	g_free(guest);
}
