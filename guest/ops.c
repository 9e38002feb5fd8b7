// SPDX-License-Identifier: GPL-2.0
/*
 * ops: the operations, and how they look on the wire.  See ops.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/string.h>
#include <linux/utsname.h>

#include "link.h"
#include "ops.h"

static bool readonly;
module_param(readonly, bool, 0444);
MODULE_PARM_DESC(readonly, "never write to a process, whatever the host asks (default: 0)");

static u64 hypermem_epoch;	/* this load of the module; not 0 */

#define OP(name)	[HYPER_OP_INDEX(HYPER_OP_##name)] = { .op = HYPER_OP_##name
#define WRITES		HYPERMEM_OP_WRITES
#define PROCESS		HYPERMEM_OP_PROCESS
#define LIMIT		HYPERMEM_OP_LIMIT
#define QUICK		HYPERMEM_OP_QUICK
#define SILENT		HYPERMEM_OP_SILENT
#define FRAME		HYPERMEM_OUT_FRAME

static const struct hypermem_op hypermem_ops[HYPER_OP_MAX] = {
	OP(HELLO) },
	OP(READ), PROCESS | LIMIT, 0, hypermem_read },
	OP(WRITE), PROCESS | WRITES, 0, hypermem_write },
	OP(READ_STR), PROCESS | LIMIT, 0, hypermem_read_str },
	OP(READ_PROCARGS), PROCESS | LIMIT, 0, hypermem_read_procargs },
	OP(READ_PROCENV), PROCESS | LIMIT, 0, hypermem_read_procenv },
	OP(READ_FD_NAME), PROCESS | LIMIT, 0, hypermem_read_fd_name },
	OP(LIST_PROCS), LIMIT, 0, hypermem_list_procs },
	OP(READ_PROC), PROCESS, sizeof(struct hypermem_proc), hypermem_read_proc },
	OP(LIST_FDS), PROCESS | LIMIT, 0, hypermem_list_fds },
	OP(LIST_MAPS), PROCESS | LIMIT, 0, hypermem_list_maps },
	OP(READ_LINK), PROCESS | LIMIT, 0, hypermem_read_link },
	OP(READ_PROC_FILE), PROCESS, FRAME, hypermem_read_proc_file },
#ifdef CONFIG_MMU_NOTIFIER
	OP(WINDOW), LIMIT, 0, hypermem_window },
	OP(TRANSLATE), PROCESS, HYPERMEM_TRANSLATE_OUT, hypermem_translate },
#endif
#ifdef HYPERMEM_HOOKS
	OP(HOOK_SET), WRITES, 0, hypermem_hook_set },
	OP(HOOK_REMOVE), 0, 0, hypermem_hook_remove },
	OP(HOOK_WAIT), LIMIT | QUICK, 0, hypermem_hook_wait },
	OP(HOOK_REPLY), WRITES | QUICK, 0, hypermem_hook_reply },
	OP(HOOK_POST), WRITES | QUICK | SILENT, 0, hypermem_hook_reply },
	OP(HOOK_COUNTS), 0, sizeof(struct hypermem_hook_counts), hypermem_hook_counts },
#endif
	OP(READ_PTR), PROCESS, sizeof(__le64), hypermem_read_ptr },
	OP(WRITE_PTR), PROCESS | WRITES, 0, hypermem_write_ptr },
};

const struct hypermem_op *hypermem_op_find(u32 op)
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
		if (hypermem_ops[i].op && (with_writes || !(hypermem_ops[i].flags & HYPERMEM_OP_WRITES)))
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

void hypermem_header_encode(const struct hypermem_header *request, u32 resp, u64 addr,
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

u32 hypermem_errno_encode(int error)
{
	switch (error) {
	case -EAGAIN:		/* 35 on alpha */
		return 11;
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
	bool writes = op && (op->flags & HYPERMEM_OP_WRITES);

	return hypermem_frame_status(request,
				     writes ? HYPER_RESP_WRITE_FAIL : HYPER_RESP_READ_FAIL,
				     hypermem_errno_encode(error), 0);
}

static void hypermem_hello_fill(struct hypermem_hello_reply *reply, bool ro, u32 max_data)
{
	u32 flags = ro ? HYPER_HELLO_READONLY : 0;

#ifdef __BIG_ENDIAN
	flags |= HYPER_HELLO_BIG_ENDIAN;
#endif
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
	strscpy(reply->module, HYPERMEM_MODULE_VERSION, sizeof(reply->module));
}

void hypermem_hello(struct hypermem_request *request)
{
	struct hypermem_link *link = request->link;
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;
	struct hypermem_frame *frame;
	bool ro;
	u32 max;

	memcpy(&hello, request->data, sizeof(hello));
	ro = readonly || (le32_to_cpu(hello.flags) & HYPER_HELLO_READONLY);
	max = min(le32_to_cpu(hello.max_data), link->data_max);
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

bool hypermem_get_number(const struct hypermem_request *request, u64 *ret)
{
	__le64 raw;

	if (request->header.size != sizeof(raw))
		return false;
	memcpy(&raw, request->data, sizeof(raw));
	*ret = le64_to_cpu(raw);
	return true;
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

bool hypermem_put_ram(struct hypermem_request *request, u64 start, u64 end, u64 proof)
{
	struct hypermem_ram raw = {
		.start = cpu_to_le64(start),
		.end = cpu_to_le64(end),
		.proof = cpu_to_le64(proof),
	};

	return hypermem_put(request, &raw, sizeof(raw));
}

void hypermem_proof_fill(void *page, u64 challenge, u64 addr)
{
	struct hypermem_proof raw = {
		.challenge = cpu_to_le64(challenge),
		.addr = cpu_to_le64(addr),
	};

	memcpy(page, &raw, sizeof(raw));
}

bool hypermem_put_run(struct hypermem_request *request, u64 addr, u32 pages)
{
	__le64 raw = cpu_to_le64(addr | (pages - 1));

	return hypermem_put(request, &raw, sizeof(raw));
}

void hypermem_hold_fill(struct hypermem_request *request, const struct hypermem_hold_record *rec)
{
	struct hypermem_hold raw = {
		.generation = cpu_to_le64(rec->generation),
		.word = cpu_to_le64(rec->word),
		.mm_addr = cpu_to_le64(rec->mm_addr),
		.mm_size = cpu_to_le32(sizeof(rec->mm)),
		.pages = cpu_to_le32(rec->pages),
	};

	memcpy(raw.mm, &rec->mm, sizeof(rec->mm));
	memcpy(request->out, &raw, sizeof(raw));
}

void hypermem_word_set(void *word, u64 value)
{
	WRITE_ONCE(*(__le64 *)word, cpu_to_le64(value));
}
