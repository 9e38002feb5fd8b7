// SPDX-License-Identifier: GPL-2.0
/*
 * hook_wire: hooks, verdicts and events as they are on the wire.  See hook.h.
 *
 * Only here are their bytes put in order; what comes from the host has the right size and
 * known flags when it leaves.
 */
#include <linux/kernel.h>
#include <linux/ptrace.h>
#include <linux/sched/task_stack.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "hook.h"
#include "hook_arch.h"

#define HOOK_FLAGS (HYPER_HOOK_ENTER | HYPER_HOOK_RETURN | HYPER_HOOK_TRACE | HYPER_HOOK_REGS | \
		    HYPER_HOOK_ENABLED | HYPER_HOOK_ATTENDED)
#define VERDICT_FLAGS (HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL | HOOK_VERDICT_ARGS)

/* Sizes and flags as they must be. */
static int hook_head_decode(const struct hypermem_request *request, struct hook *head)
{
	struct hypermem_hook raw;

	if (request->header.size < sizeof(raw))
		return -EINVAL;
	memcpy(&raw, request->data, sizeof(raw));
	head->number = request->header.addr;
	head->flags = le32_to_cpu(raw.flags);
	head->timeout_ms = le32_to_cpu(raw.timeout_ms);
	head->n_tests = le16_to_cpu(raw.tests);
	head->names_size = le16_to_cpu(raw.names_size);
	head->text_size = le16_to_cpu(raw.text_size);
	if (raw.reserved || !head->number || head->number != request->header.addr ||
	    head->flags & ~HOOK_FLAGS || !(head->flags & (HYPER_HOOK_ENTER | HYPER_HOOK_RETURN)) ||
	    !head->timeout_ms || head->timeout_ms > HYPER_TIMEOUT_MAX_MS ||
	    head->n_tests > HYPER_TESTS_MAX || !head->names_size ||
	    head->names_size > HYPER_HOOK_TEXT_MAX || head->text_size > HYPER_HOOK_TEXT_MAX)
		return -EINVAL;
	if (request->header.size != sizeof(raw) + head->n_tests * sizeof(struct hypermem_test) +
				    head->names_size + head->text_size)
		return -EINVAL;
	return 0;
}

static int hook_test_decode(const u8 *bytes, struct hook_test *ret)
{
	struct hypermem_test raw;

	memcpy(&raw, bytes, sizeof(raw));
	*ret = (struct hook_test){
		.test = raw.test,
		.field = raw.field,
		.compare = raw.compare,
		.flags = raw.flags,
		.mask = le64_to_cpu(raw.mask),
		.a = le64_to_cpu(raw.a),
		.b = le64_to_cpu(raw.b),
	};
	return raw.reserved ? -EINVAL : 0;
}

int hypermem_hook_decode(const struct hypermem_request *request, struct hook **ret)
{
	const u8 *bytes = request->data + sizeof(struct hypermem_hook);
	struct hook head = { }, *hook;
	int rc = 0;
	char *names;
	u32 i;

	if (hook_head_decode(request, &head))
		return -EINVAL;
	hook = kzalloc(struct_size(hook, tests, head.n_tests) + head.names_size + head.text_size,
		       GFP_KERNEL);
	if (!hook)
		return -ENOMEM;
	*hook = head;
	for (i = 0; i < hook->n_tests && !rc; i++, bytes += sizeof(struct hypermem_test))
		rc = hook_test_decode(bytes, &hook->tests[i]);
	names = (char *)&hook->tests[hook->n_tests];
	memcpy(names, bytes, hook->names_size + hook->text_size);
	hook->names = names;
	hook->text = names + hook->names_size;
	if (rc || hook->names[hook->names_size - 1]) {
		kfree(hook);
		return -EINVAL;
	}
	*ret = hook;
	return 0;
}

int hypermem_verdict_decode(const struct hypermem_request *request, struct hook_verdict *ret)
{
	struct hypermem_verdict raw;
	unsigned int i;

	if (request->header.size != sizeof(raw))
		return -EINVAL;
	memcpy(&raw, request->data, sizeof(raw));
	ret->flags = le32_to_cpu(raw.flags);
	ret->retval = le64_to_cpu(raw.retval);
	for (i = 0; i < ARRAY_SIZE(ret->args); i++)
		ret->args[i] = le64_to_cpu(raw.args[i]);
	return raw.reserved || ret->flags & ~VERDICT_FLAGS ? -EINVAL : 0;
}

void hypermem_put_counts(struct hypermem_request *request, const struct hook_counts *counts)
{
#define COUNT(name) .name = cpu_to_le64(atomic64_read(&counts->name))
	const struct hypermem_hook_counts raw = {
		COUNT(matched), COUNT(sent), COUNT(replied), COUNT(continued), COUNT(timed_out),
		COUNT(killed),
		COUNT(abandoned), COUNT(unattended), COUNT(dropped), COUNT(restarted),
		COUNT(missed),
	};

	memcpy(request->out, &raw, sizeof(raw));
	request->out_size = sizeof(raw);
}

static u16 event_put_regs(struct hypermem_reg *raw)
{
	const struct pt_regs *regs = current_pt_regs();
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hook_regs); i++, raw++) {
		memset(raw, 0, sizeof(*raw));
		strscpy(raw->name, hook_regs[i].name, sizeof(raw->name));
		raw->value = cpu_to_le64(hook_reg_value(regs, &hook_regs[i]));
	}
	return i;
}

u32 hypermem_event_encode(const struct hook_event *event, void *to)
{
	const struct hook_frame *frame = event->frame;
	struct hypermem_event *raw = to;
	u16 n_regs = 0;
	unsigned int i;

	BUILD_BUG_ON(ARRAY_SIZE(hook_regs) > HYPER_REGS_MAX);
	if (event->regs)
		n_regs = event_put_regs((struct hypermem_reg *)(raw + 1));
	*raw = (struct hypermem_event){
		.id = cpu_to_le64(event->id),
		.hook = cpu_to_le32(event->hook),
		.flags = cpu_to_le32(event->flags),
		.pid = cpu_to_le32(event->pid),
		.tid = cpu_to_le32(event->tid),
		.nr = cpu_to_le32(event->nr),
		.stamp = cpu_to_le16(event->stamp),
		.n_regs = cpu_to_le16(n_regs),
		.time = cpu_to_le64(event->time),
		.retval = cpu_to_le64(event->flags & HYPER_EVENT_RETURN ? frame->retval : 0),
		.lost = cpu_to_le64(event->lost),
	};
	for (i = 0; i < ARRAY_SIZE(raw->args); i++)
		raw->args[i] = cpu_to_le64(frame->args[i]);
	memcpy(raw->comm, event->comm, strnlen(event->comm, sizeof(raw->comm)));
	memcpy(raw->call, event->call, strnlen(event->call, sizeof(raw->call)));
	return sizeof(*raw) + n_regs * sizeof(struct hypermem_reg);
}

u32 hypermem_event_size(const void *from)
{
	const struct hypermem_event *raw = from;

	return sizeof(*raw) + le16_to_cpu(raw->n_regs) * sizeof(struct hypermem_reg);
}
