// SPDX-License-Identifier: GPL-2.0
/*
 * request: from its header to its reply.  See ops.h.
 *
 * What a handler may rely on is checked here, and only here is replied.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/errno.h>
#include <linux/mm.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "link.h"
#include "ops.h"

/* Data that any request has room for: one of them is kept for the next. */
#define SPARE_DATA	128

struct hypermem_request *hypermem_request_new(struct hypermem_link *link,
					      const struct hypermem_header *header)
{
	struct hypermem_request *request = NULL;
	size_t size = header->op & HYPER_DATA ? header->size : 0;

	if (size <= SPARE_DATA)
		request = xchg(&link->spare, NULL);
	if (!request)
		request = kvmalloc(struct_size(request, data, max_t(size_t, size, SPARE_DATA) + 1),
				   GFP_KERNEL);
	if (!request)
		return NULL;
	memset(request, 0, sizeof(*request));
	request->data[size] = 0;
	request->data_room = max_t(size_t, size, SPARE_DATA);
	request->link = link;
	request->session = link->session;
	request->readonly = link->readonly;
	request->max_data = link->max_data;
	request->header = *header;
	request->op = hypermem_op_find(header->op);
	request->out_addr = header->addr;
	atomic_inc(&link->inflight);
	return request;
}

void hypermem_request_free(struct hypermem_request *request)
{
	struct hypermem_link *link = request->link;

	if (request->task)
		put_task_struct(request->task);
	hypermem_frame_free(request->frame);
	if (request->data_room != SPARE_DATA || cmpxchg(&link->spare, NULL, request))
		kvfree(request);
	/* The last access to the link: who waits for the last request may free it. */
	atomic_dec(&link->inflight);
}

/* Everything that a handler may rely on. */
static int hypermem_request_check(struct hypermem_request *request)
{
	const struct hypermem_op *op = request->op;
	u32 out;

	if (!op)
		return -EOPNOTSUPP;
	if (!op->handle)
		return -EINVAL;		/* a HELLO that is none: no magic, odd size */
	if ((op->flags & HYPERMEM_OP_WRITES) && request->readonly)
		return -EPERM;
	if (op->flags & HYPERMEM_OP_LIMIT)
		out = request->header.size;
	else
		out = min(op->out, request->max_data);
	if (out > request->max_data)
		return -EINVAL;
	if (op->flags & HYPERMEM_OP_PROCESS) {
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
static struct hypermem_frame *hypermem_request_reply(struct hypermem_request *request, int rc)
{
	const struct hypermem_header *header = &request->header;
	struct hypermem_frame *frame = request->frame;
	u32 size = request->out_size;
	u32 resp;

	if (rc && !size)
		return hypermem_frame_error(header, rc);
	if (rc)
		request->out_addr = hypermem_errno_encode(rc);
	if (request->op->flags & HYPERMEM_OP_WRITES) {
		resp = rc ? HYPER_RESP_WRITE_PARTIAL : HYPER_RESP_WRITE_OK;
		return hypermem_frame_status(header, resp, request->out_addr, size);
	}
	request->frame = NULL;
	frame->size = HYPERMEM_HEADER_SIZE + size;
	resp = rc ? HYPER_RESP_READ_PARTIAL : HYPER_RESP_READ_OK;
	hypermem_header_encode(header, resp, request->out_addr, size, frame->bytes);
	return frame;
}

void hypermem_request_complete(struct hypermem_request *request, int rc)
{
	struct hypermem_frame *frame = hypermem_request_reply(request, rc);

	if (frame)
		hypermem_link_reply(request->link, request->session, frame);
	else
		pr_warn_ratelimited("%s: no memory for a reply\n", request->link->name);
	hypermem_request_free(request);
}

bool hypermem_request_try_complete(struct hypermem_request *request, int rc)
{
	struct hypermem_frame *own = request->frame, *frame = hypermem_request_reply(request, rc);

	if (frame && hypermem_link_try_reply(request->link, request->session, frame)) {
		hypermem_request_free(request);
		return true;
	}
	/* It is made anew by who has the time to wait. */
	if (frame != own)
		hypermem_frame_free(frame);
	request->frame = own;
	return false;
}

static void hypermem_request_late_work(struct work_struct *work)
{
	struct hypermem_request *request = container_of(work, struct hypermem_request, work);

	hypermem_request_complete(request, request->rc);
}

/* By a worker if the link would have to be waited for: whoever received it has else to do. */
static void hypermem_request_complete_quick(struct hypermem_request *request, int rc)
{
	if (hypermem_request_try_complete(request, rc))
		return;
	request->rc = rc;
	INIT_WORK(&request->work, hypermem_request_late_work);
	queue_work(request->link->wq, &request->work);
}

bool hypermem_request_alive(const struct hypermem_request *request)
{
	return pid_alive(request->task) && task_pid_nr(request->task) == request->header.pid;
}

/* A thread that executes a program has taken the task's pid, and its place: it is meant, too. */
static bool hypermem_request_follow(struct hypermem_request *request)
{
	struct task_struct *task;

	if (!request->task || hypermem_request_alive(request))
		return false;
	task = hypermem_task_get(&request->header);
	if (!task)
		return false;
	put_task_struct(request->task);
	request->task = task;
	request->out_size = 0;
	request->out_addr = request->header.addr;
	return true;
}

void hypermem_request_do(struct hypermem_request *request)
{
	int rc = hypermem_request_check(request);

	if (!rc) {
		do {
			rc = request->op->handle(request);
		} while (rc == -ESRCH && hypermem_request_follow(request));
	}
	if (rc == -EINPROGRESS)
		return;
	if (request->op && (request->op->flags & HYPERMEM_OP_SILENT))
		hypermem_request_free(request);
	else if (request->op && (request->op->flags & HYPERMEM_OP_QUICK))
		hypermem_request_complete_quick(request, rc);
	else
		hypermem_request_complete(request, rc);
}

static void hypermem_request_work(struct work_struct *work)
{
	hypermem_request_do(container_of(work, struct hypermem_request, work));
}

void hypermem_request_queue(struct hypermem_request *request)
{
	INIT_WORK(&request->work, hypermem_request_work);
	queue_work(request->link->wq, &request->work);
}

void hypermem_request_submit(struct hypermem_request *request)
{
	struct hypermem_link *link = request->link;

	if (link->last)
		hypermem_request_queue(link->last);
	link->last = NULL;
	if (hypermem_header_is_hello(&request->header)) {
		hypermem_hello(request);
		hypermem_request_free(request);
	} else if (request->op && (request->op->flags & HYPERMEM_OP_QUICK)) {
		hypermem_request_do(request);
	} else if (link->receiver_works) {
		link->last = request;
	} else {
		hypermem_request_queue(request);
	}
}

