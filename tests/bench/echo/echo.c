// SPDX-License-Identifier: GPL-2.0
/*
 * hypermem_echo: the link of hypermem.ko and nothing behind it, for tests/bench.
 *
 * A request is answered at once, in the receiver's context, with as many bytes as it
 * asks for, whatever is in the frame.  So an answer takes what the link takes:
 * the least that any operation can.  Nothing of a process is read, and whoever
 * connects may ask: it is for guests that have nothing to hide.
 */
#include <linux/module.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "link.h"
#include "ops.h"

/* What guest/link.c asks of guest/request.c and guest/ops.c, as far as an echo needs it. */

void hypermem_header_decode(const u8 *bytes, struct hypermem_header *ret)
{
	__le64 raw[3];

	memcpy(raw, bytes, sizeof(raw));
	*ret = (struct hypermem_header){
		.op = le64_to_cpu(raw[0]),
		.pid = le64_to_cpu(raw[0]) >> HYPER_PID_SHIFT,
		.addr = le64_to_cpu(raw[1]),
		.size = le64_to_cpu(raw[2]),
		.tag = le64_to_cpu(raw[2]) >> HYPER_TAG_SHIFT,
		.stamp = le64_to_cpu(raw[2]) >> HYPER_STAMP_SHIFT,
	};
}

void hypermem_header_encode(const struct hypermem_header *request, u32 resp, u64 addr, u32 size,
			    u8 *bytes)
{
	const __le64 raw[3] = {
		cpu_to_le64((u64)request->pid << HYPER_PID_SHIFT | resp),
		cpu_to_le64(addr),
		cpu_to_le64((u64)request->stamp << HYPER_STAMP_SHIFT |
			    (u64)request->tag << HYPER_TAG_SHIFT | size),
	};

	memcpy(bytes, raw, sizeof(raw));
}

bool hypermem_header_is_hello(const struct hypermem_header *header)
{
	return header->op == HYPER_OP_HELLO && header->addr == HYPERMEM_MAGIC &&
	       header->size == sizeof(struct hypermem_hello);
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
	return hypermem_frame_status(request, HYPER_RESP_READ_FAIL, -error, 0);
}

static struct hypermem_frame *echo_frame(const struct hypermem_header *header, u64 addr, u32 size)
{
	struct hypermem_frame *frame = hypermem_frame_alloc(size);

	if (frame)
		hypermem_header_encode(header, HYPER_RESP_READ_OK, addr, size, frame->bytes);
	return frame;
}

static void echo_hello(struct hypermem_request *request)
{
	struct hypermem_hello_reply reply = { .version = cpu_to_le32(HYPERMEM_VERSION) };
	struct hypermem_hello hello;
	struct hypermem_frame *frame;
	u32 max;

	memcpy(&hello, request->data, sizeof(hello));
	max = min_t(u32, le32_to_cpu(hello.max_data), HYPERMEM_LINK_DATA_MAX);
	frame = echo_frame(&request->header, le64_to_cpu(hello.nonce), sizeof(reply));
	if (!frame)
		return;
	reply.max_data = cpu_to_le32(max);
	reply.max_inflight = cpu_to_le32(HYPERMEM_INFLIGHT);
	memcpy(frame->bytes + HYPERMEM_HEADER_SIZE, &reply, sizeof(reply));
	hypermem_link_begin(request->link, max, false, frame);
}

/* With an address, the data is copied first, as it must be when it is somebody's. */
static void echo_answer(struct hypermem_request *request)
{
	static u8 data[HYPERMEM_LINK_DATA_MAX];
	const struct hypermem_header *header = &request->header;
	bool ok = !(header->op & HYPER_DATA) && header->size <= request->link->max_data;
	struct hypermem_frame *frame = ok ? echo_frame(header, header->addr, header->size) :
					       hypermem_frame_error(header, -EINVAL);

	if (frame && ok && header->addr)
		memcpy(frame->bytes + HYPERMEM_HEADER_SIZE, data, header->size);
	if (frame)
		hypermem_link_reply(request->link, request->link->session, frame);
}

/* One at a time, since it is answered before the next one comes. */
static struct hypermem_request *the_request;

struct hypermem_request *hypermem_request_new(struct hypermem_link *link,
					      const struct hypermem_header *header)
{
	the_request->link = link;
	the_request->header = *header;
	return the_request;
}

void hypermem_request_free(struct hypermem_request *request)
{
}

void hypermem_request_submit(struct hypermem_request *request)
{
	if (hypermem_header_is_hello(&request->header))
		echo_hello(request);
	else
		echo_answer(request);
}

const struct hypermem_op *hypermem_op_find(u32 op)
{
	return NULL;
}

/* There is no request that has not been answered. */
void hypermem_request_do(struct hypermem_request *request)
{
}

void hypermem_request_queue(struct hypermem_request *request)
{
}

#ifdef CONFIG_MMU_NOTIFIER
void hypermem_translate_forget(void)
{
}
#endif

static int __init echo_init(void)
{
	int rc;

	the_request = vzalloc(struct_size(the_request, data, HYPERMEM_DATA_MAX));
	if (!the_request)
		return -ENOMEM;
	rc = hypermem_virtio_register();
	if (rc)
		vfree(the_request);
	return rc;
}

static void __exit echo_exit(void)
{
	hypermem_virtio_unregister();
	hypermem_frame_trim();
	vfree(the_request);
}

module_init(echo_init);
module_exit(echo_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Answers hypermem's host at once, to time the link");
