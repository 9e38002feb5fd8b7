// SPDX-License-Identifier: GPL-2.0
/*
 * ops: a request from its header to its reply.  See ops.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/utsname.h>

#include "link.h"
#include "ops.h"

static bool readonly;
module_param(readonly, bool, 0444);
MODULE_PARM_DESC(readonly, "never write to a process, whatever the host asks (default: 0)");

static u64 hypermem_epoch;	/* this load of the module; not 0 */

enum {
	OP_WRITES = 0x1,	/* refused in a read-only session; replies are WRITE_* */
	OP_PROCESS = 0x2,	/* on a process: request->task is pinned */
	OP_LIMIT = 0x4,		/* size is the limit of the reply's data */
};

/**
 * struct hypermem_op - an operation
 * @op: its number, with HYPER_DATA if it comes with data
 * @flags: OP_*
 * @out: room for the reply's data, in bytes; with OP_LIMIT the host says; FRAME: as
 *	much as a frame of the session holds
 * @handle: does it; NULL for HELLO, which is not done in the workqueue
 */
struct hypermem_op {
	u32 op;
	u32 flags;
	u32 out;
	int (*handle)(struct hypermem_request *request);
};

#define OP(name) [HYPER_OP_INDEX(HYPER_OP_##name)] = { .op = HYPER_OP_##name
#define FRAME	U32_MAX

static const struct hypermem_op hypermem_ops[HYPER_OP_MAX] = {
	OP(HELLO) },
	OP(READ), OP_PROCESS | OP_LIMIT, 0, hypermem_read },
	OP(WRITE), OP_PROCESS | OP_WRITES, 0, hypermem_write },
	OP(READ_STR), OP_PROCESS | OP_LIMIT, 0, hypermem_read_str },
	OP(READ_PROCARGS), OP_PROCESS | OP_LIMIT, 0, hypermem_read_procargs },
	OP(READ_PROCENV), OP_PROCESS | OP_LIMIT, 0, hypermem_read_procenv },
	OP(READ_FD_NAME), OP_PROCESS | OP_LIMIT, 0, hypermem_read_fd_name },
	OP(LIST_PROCS), OP_LIMIT, 0, hypermem_list_procs },
	OP(READ_PROC), OP_PROCESS, sizeof(struct hypermem_proc), hypermem_read_proc },
	OP(LIST_FDS), OP_PROCESS | OP_LIMIT, 0, hypermem_list_fds },
	OP(LIST_MAPS), OP_PROCESS | OP_LIMIT, 0, hypermem_list_maps },
	OP(READ_LINK), OP_PROCESS | OP_LIMIT, 0, hypermem_read_link },
	OP(READ_PROC_FILE), OP_PROCESS, FRAME, hypermem_read_proc_file },
};

static const struct hypermem_op *hypermem_op_find(u32 op)
{
	u32 index = HYPER_OP_INDEX(op);

	if (index >= HYPER_OP_MAX || !hypermem_ops[index].op || hypermem_ops[index].op != op)
		return NULL;
	return &hypermem_ops[index];
}

/* Masks of the operations that there are, and of those that this session may do. */
static u64 hypermem_ops_mask(bool with_writes)
{
	u64 mask = 0;
	unsigned int i;

	for (i = 0; i < HYPER_OP_MAX; i++)
		if (hypermem_ops[i].op && (with_writes || !(hypermem_ops[i].flags & OP_WRITES)))
			mask |= 1ULL << i;
	return mask;
}

int hypermem_ops_init(void)
{
	unsigned int i;

	BUILD_BUG_ON(HYPER_OP_MAX > 64);
	for (i = 0; i < HYPER_OP_MAX; i++) {
		const struct hypermem_op *op = &hypermem_ops[i];

		if (op->op && (HYPER_OP_INDEX(op->op) != i ||
			       (op->op != HYPER_OP_HELLO && !op->handle)))
			return -EINVAL;
	}
	do {
		get_random_bytes(&hypermem_epoch, sizeof(hypermem_epoch));
	} while (!hypermem_epoch);
	return 0;
}

void hypermem_header_decode(const u8 *bytes, struct hypermem_header *ret)
{
	__le64 raw[3];
	u64 op, size;

	memcpy(raw, bytes, sizeof(raw));
	op = le64_to_cpu(raw[0]);
	size = le64_to_cpu(raw[2]);
	ret->op = lower_32_bits(op);
	ret->pid = op >> HYPER_PID_SHIFT;
	ret->addr = le64_to_cpu(raw[1]);
	ret->size = lower_32_bits(size);
	ret->tag = size >> HYPER_TAG_SHIFT;
	ret->stamp = size >> HYPER_STAMP_SHIFT;
}

/* The header of a reply to `request`. */
static void hypermem_header_encode(const struct hypermem_header *request, u32 resp, u64 addr,
				   u32 size, u8 *bytes)
{
	__le64 raw[3];

	raw[0] = cpu_to_le64((u64)request->pid << HYPER_PID_SHIFT | resp);
	raw[1] = cpu_to_le64(addr);
	raw[2] = cpu_to_le64((u64)request->stamp << HYPER_STAMP_SHIFT |
			     (u64)request->tag << HYPER_TAG_SHIFT | size);
	memcpy(bytes, raw, sizeof(raw));
}

bool hypermem_header_is_hello(const struct hypermem_header *header)
{
	return header->op == HYPER_OP_HELLO && header->pid == 0 &&
	       header->addr == HYPERMEM_MAGIC && header->size >= sizeof(struct hypermem_hello) &&
	       header->size <= HYPERMEM_CHUNK_SIZE;
}

/* The wire's errno for this architecture's. */
static u32 hypermem_errno_encode(int error)
{
	switch (error) {
	case -ENAMETOOLONG:
		return HYPER_ENAMETOOLONG;
	case -ELOOP:
		return HYPER_ELOOP;
	case -EPROTO:
		return HYPER_EPROTO;
	case -EOVERFLOW:
		return HYPER_EOVERFLOW;
	case -EOPNOTSUPP:
		return HYPER_EOPNOTSUPP;
	case -ETIMEDOUT:
		return HYPER_ETIMEDOUT;
	case -ESTALE:
		return HYPER_ESTALE;
	}
	return error < 0 && error >= -34 ? -error : EIO;
}

struct hypermem_frame *hypermem_frame_status(const struct hypermem_header *request, u32 resp,
					     u64 addr, u32 size)
{
	struct hypermem_frame *frame = hypermem_frame_alloc(0);

	if (frame)
		hypermem_header_encode(request, resp, addr, size, frame->bytes);
	return frame;
}

struct hypermem_frame *hypermem_frame_error(const struct hypermem_header *request, int error)
{
	const struct hypermem_op *op = hypermem_op_find(request->op);
	bool writes = op && (op->flags & OP_WRITES);

	return hypermem_frame_status(request,
				     writes ? HYPER_RESP_WRITE_FAIL : HYPER_RESP_READ_FAIL,
				     hypermem_errno_encode(error), 0);
}

struct hypermem_request *hypermem_request_new(struct hypermem_link *link,
					      const struct hypermem_header *header)
{
	struct hypermem_request *request;
	size_t size = header->op & HYPER_DATA ? header->size : 0;

	request = kvmalloc(struct_size(request, data, size + 1), GFP_KERNEL);
	if (!request)
		return NULL;
	memset(request, 0, sizeof(*request));
	request->data[size] = 0;
	request->link = link;
	request->session = link->session;
	request->readonly = link->readonly || readonly;
	request->max_data = link->max_data;
	request->header = *header;
	request->out_addr = header->addr;
	atomic_inc(&link->inflight);
	return request;
}

void hypermem_request_free(struct hypermem_request *request)
{
	if (request->task)
		put_task_struct(request->task);
	hypermem_frame_free(request->frame);
	atomic_dec(&request->link->inflight);
	kvfree(request);
}

/* Everything that a handler may rely on. */
static int hypermem_request_check(struct hypermem_request *request, const struct hypermem_op *op)
{
	u32 out = op->out;

	if (!op->handle)
		return -EINVAL;		/* a HELLO that is none: no magic, odd size */
	if ((op->flags & OP_WRITES) && request->readonly)
		return -EPERM;
	if (op->flags & OP_LIMIT)
		out = request->header.size;
	else if (out == FRAME)
		out = request->max_data;
	if (out > request->max_data)
		return -EINVAL;
	if (op->flags & OP_PROCESS) {
		request->task = hypermem_task_get(&request->header);
		if (!request->task)
			return -ESRCH;
	}
	request->frame = hypermem_frame_alloc(out);
	if (!request->frame)
		return -ENOMEM;
	request->out = request->frame->bytes + HYPERMEM_HEADER_SIZE;
	request->out_max = out;
	return 0;
}

/* The frame that says how it went. */
static struct hypermem_frame *hypermem_request_reply(struct hypermem_request *request,
						     const struct hypermem_op *op, int rc)
{
	const struct hypermem_header *header = &request->header;
	struct hypermem_frame *frame = request->frame;
	u32 size = request->out_size;
	u32 resp;

	if (rc && !size)
		return hypermem_frame_error(header, rc);
	if (rc)
		request->out_addr = hypermem_errno_encode(rc);
	if (op->flags & OP_WRITES) {
		resp = rc ? HYPER_RESP_WRITE_PARTIAL : HYPER_RESP_WRITE_OK;
		return hypermem_frame_status(header, resp, request->out_addr, size);
	}
	request->frame = NULL;
	frame->size = HYPERMEM_HEADER_SIZE + size;
	resp = rc ? HYPER_RESP_READ_PARTIAL : HYPER_RESP_READ_OK;
	hypermem_header_encode(header, resp, request->out_addr, size, frame->bytes);
	return frame;
}

static void hypermem_request_work(struct work_struct *work)
{
	struct hypermem_request *request = container_of(work, struct hypermem_request, work);
	const struct hypermem_op *op = hypermem_op_find(request->header.op);
	struct hypermem_frame *frame;
	int rc;

	if (op) {
		rc = hypermem_request_check(request, op);
		if (!rc)
			rc = op->handle(request);
		frame = hypermem_request_reply(request, op, rc);
	} else {
		frame = hypermem_frame_error(&request->header, -EOPNOTSUPP);
	}
	if (frame)
		hypermem_link_reply(request->link, request->session, frame);
	else
		pr_warn_ratelimited("%s: no memory for a reply\n", request->link->name);
	hypermem_request_free(request);
}

static void hypermem_hello_fill(struct hypermem_hello_reply *reply, bool ro, u32 max_data)
{
	u32 flags = ro ? HYPER_HELLO_READONLY : 0;

	if (IS_ENABLED(CONFIG_CPU_BIG_ENDIAN))
		flags |= HYPER_HELLO_BIG_ENDIAN;
	memset(reply, 0, sizeof(*reply));
	reply->version = cpu_to_le32(HYPERMEM_VERSION);
	reply->flags = cpu_to_le32(flags);
	reply->epoch = cpu_to_le64(hypermem_epoch);
	reply->ops = cpu_to_le64(hypermem_ops_mask(true));
	reply->allowed = cpu_to_le64(hypermem_ops_mask(!ro));
	reply->max_data = cpu_to_le32(max_data);
	reply->max_inflight = cpu_to_le32(HYPERMEM_INFLIGHT);
	reply->page_size = cpu_to_le32(PAGE_SIZE);
	reply->word_bits = cpu_to_le32(BITS_PER_LONG);
	strscpy(reply->release, init_utsname()->release, sizeof(reply->release));
	strscpy(reply->machine, init_utsname()->machine, sizeof(reply->machine));
	strscpy(reply->module, THIS_MODULE->version ?: "", sizeof(reply->module));
}

/* HELLO: answered in the receiver's context, so that what follows meets the new session. */
static void hypermem_hello(struct hypermem_request *request)
{
	struct hypermem_link *link = request->link;
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;
	struct hypermem_frame *frame;
	bool ro;
	u32 max;

	memcpy(&hello, request->data, sizeof(hello));
	ro = readonly || (le32_to_cpu(hello.flags) & HYPER_HELLO_READONLY);
	max = min_t(u32, le32_to_cpu(hello.max_data), HYPERMEM_LINK_DATA_MAX);
	frame = hypermem_frame_alloc(sizeof(reply));
	if (!frame)
		return;		/* the host asks again */
	hypermem_hello_fill(&reply, ro, max);
	hypermem_header_encode(&request->header, HYPER_RESP_READ_OK, le64_to_cpu(hello.nonce),
			       sizeof(reply), frame->bytes);
	memcpy(frame->bytes + HYPERMEM_HEADER_SIZE, &reply, sizeof(reply));
	if (le32_to_cpu(hello.version) != HYPERMEM_VERSION || max < HYPERMEM_CHUNK_SIZE) {
		pr_warn_ratelimited("%s: the host speaks version %u of the protocol, this module %u\n",
				    link->name, le32_to_cpu(hello.version), HYPERMEM_VERSION);
		max = 0;
	}
	hypermem_link_begin(link, max, ro, frame);
}

void hypermem_request_submit(struct hypermem_request *request)
{
	if (hypermem_header_is_hello(&request->header)) {
		hypermem_hello(request);
		hypermem_request_free(request);
		return;
	}
	INIT_WORK(&request->work, hypermem_request_work);
	queue_work(request->link->wq, &request->work);
}

static bool hypermem_put(struct hypermem_request *request, const void *record, size_t size)
{
	if (size > request->out_max - request->out_size)
		return false;
	memcpy(request->out + request->out_size, record, size);
	request->out_size += size;
	return true;
}

bool hypermem_put_proc(struct hypermem_request *request, const struct hypermem_proc_record *rec)
{
	struct hypermem_proc raw = {
		.pid = cpu_to_le32(rec->pid),
		.ppid = cpu_to_le32(rec->ppid),
		.uid = cpu_to_le32(rec->uid),
		.gid = cpu_to_le32(rec->gid),
		.stamp = cpu_to_le16(rec->stamp),
		.state = rec->state,
		.flags = rec->flags,
		.threads = cpu_to_le32(rec->threads),
		.start_time = cpu_to_le64(rec->start_time),
		.start_time_real = cpu_to_le64(rec->start_time_real),
		.arg_start = cpu_to_le64(rec->arg_start),
		.arg_end = cpu_to_le64(rec->arg_end),
		.env_start = cpu_to_le64(rec->env_start),
		.env_end = cpu_to_le64(rec->env_end),
		.task_size = cpu_to_le64(rec->task_size),
	};

	memcpy(raw.comm, rec->comm, sizeof(raw.comm));
	return hypermem_put(request, &raw, sizeof(raw));
}

bool hypermem_put_fd(struct hypermem_request *request, u32 fd, u32 mode)
{
	struct hypermem_fd raw = {
		.fd = cpu_to_le32(fd),
		.mode = cpu_to_le32(mode),
	};

	return hypermem_put(request, &raw, sizeof(raw));
}

bool hypermem_put_map(struct hypermem_request *request, const struct hypermem_map_record *rec)
{
	struct hypermem_map raw = {
		.start = cpu_to_le64(rec->start),
		.end = cpu_to_le64(rec->end),
		.offset = cpu_to_le64(rec->offset),
		.inode = cpu_to_le64(rec->inode),
		.dev_major = cpu_to_le32(rec->dev_major),
		.dev_minor = cpu_to_le32(rec->dev_minor),
		.flags = cpu_to_le32(rec->flags),
	};

	return hypermem_put(request, &raw, sizeof(raw));
}
