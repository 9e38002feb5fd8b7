// SPDX-License-Identifier: MIT
/*
 * fake_guest_event: events, as they are and as they should not be.
 */
#include <string.h>
#include <time.h>

#include "tests/fake_guest_hook.h"

static const struct {
	const char *name;
	uint64_t value;
} regs[] = { { "sp", 0x7ffd12345678 }, { "pc", 0x401136 }, { "orig_rax", 16 } };

static void put_regs(GByteArray *data)
{
	for (size_t i = 0; i < G_N_ELEMENTS(regs); i++) {
		struct hypermem_reg reg = { .value = GUINT64_TO_LE(regs[i].value) };

		memcpy(reg.name, regs[i].name, strlen(regs[i].name));
		g_byte_array_append(data, (const guint8 *)&reg, sizeof(reg));
	}
}

/* ns since this host booted. */
static uint64_t boot_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void note_push(const struct caller *caller, uint64_t id, uint32_t flags, const uint64_t args[6],
	       int64_t retval)
{
	struct hook *hook = caller->hook;
	bool wants_regs = hook->flags & HYPER_HOOK_REGS;
	struct hypermem_event event = {
		.id = GUINT64_TO_LE(id),
		.hook = GUINT32_TO_LE(hook->number),
		.flags = GUINT32_TO_LE(flags),
		.pid = GUINT32_TO_LE(caller->pid),
		.tid = GUINT32_TO_LE(caller->pid + caller->thread),
		.nr = GUINT32_TO_LE(1000),
		.stamp = GUINT16_TO_LE(caller->stamp),
		.n_regs = GUINT16_TO_LE(wants_regs ? G_N_ELEMENTS(regs) : 0),
		.time = GUINT64_TO_LE(boot_time()),
		.retval = GUINT64_TO_LE((uint64_t)retval),
		.lost = GUINT64_TO_LE(hook->lost),
	};
	struct note *note = g_new(struct note, 1);

	for (size_t i = 0; i < G_N_ELEMENTS(event.args); i++)
		event.args[i] = GUINT64_TO_LE(args[i]);
	memcpy(event.comm, hook->comm, sizeof(event.comm));
	g_strlcpy(event.call, hook->name, sizeof(event.call));
	*note = (struct note){ hook, g_byte_array_new() };
	g_byte_array_append(note->data, (const guint8 *)&event, sizeof(event));
	if (wants_regs)
		put_regs(note->data);
	hook->refs++;
	hook->lost = 0;
	g_queue_push_tail(&the_hooks.notes, note);
	g_cond_broadcast(&the_hooks.changed);
}

void note_free(gpointer data)
{
	struct note *note = data;

	g_byte_array_unref(note->data);
	hook_unref(note->hook);
	g_free(note);
}

/* -- going wrong ------------------------------------------------------------------------------- */

/* The first event has registers, whether its hook wants any or not. */
static void event_add_regs(GByteArray *data, struct hypermem_event *event)
{
	g_autoptr(GByteArray) rest = g_byte_array_new();
	guint behind = sizeof(*event) + GUINT16_FROM_LE(event->n_regs) * sizeof(struct hypermem_reg);

	event->n_regs = GUINT16_TO_LE(G_N_ELEMENTS(regs));
	g_byte_array_append(rest, data->data + behind, data->len - behind);
	g_byte_array_set_size(data, sizeof(*event));
	put_regs(data);
	g_byte_array_append(data, rest->data, rest->len);
}

void hooks_spoil(struct request *request, struct frame *reply, int64_t how)
{
	struct hypermem_event event;

	if (request->frame.op != HYPER_OP_HOOK_WAIT || reply->data->len < sizeof(event))
		return;
	memcpy(&event, reply->data->data, sizeof(event));
	switch ((enum event_lie)how) {
	case EVENT_MANY_REGS:
		event.n_regs = GUINT16_TO_LE(HYPER_REGS_MAX + 1);
		break;
	case EVENT_REGS_BEYOND:
		event.n_regs = GUINT16_TO_LE(HYPER_REGS_MAX);
		break;
	case EVENT_COMM:
		event.comm[0] = 0;
		event.comm[15] = 'x';
		break;
	case EVENT_CALL:
		g_strlcpy(event.call, "$(reboot)", sizeof(event.call));
		break;
	case EVENT_NO_CALL:
		memset(event.call, 0, sizeof(event.call));
		break;
	case EVENT_HOOK:
		event.hook = GUINT32_TO_LE(0x5a5a5a5a);
		break;
	case EVENT_NO_ID:
		event.id = 0;
		break;
	case EVENT_PID:
		event.pid = GUINT32_TO_LE(HYPERMEM_PID_MAX);
		break;
	case EVENT_REGS:
		event_add_regs(reply->data, &event);
		break;
	case EVENT_TWICE:
		g_byte_array_append(reply->data, (const guint8 *)&event, sizeof(event));
		return;
	case EVENT_NONE:
		g_byte_array_set_size(reply->data, 0);
		return;
	}
	memcpy(reply->data->data, &event, sizeof(event));
}
