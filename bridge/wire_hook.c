// SPDX-License-Identifier: MIT
/*
 * wire_hook: hooks, events and verdicts.  See wire_hook.h, and wire.c for the rules.
 */
#include "bridge/wire_hook.h"

#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

static void test_encode(const struct hm_test *test, uint8_t *buf)
{
	struct hypermem_test raw = {
		.test = test->test,
		.field = test->field,
		.compare = test->compare,
		.flags = test->flags,
		.mask = htole64(test->mask),
		.a = htole64(test->a),
		.b = htole64(test->b),
	};

	memcpy(buf, &raw, sizeof(raw));
}

size_t hm_hook_encode(const struct hm_filter *filter, uint32_t state, uint32_t timeout_ms,
		      uint8_t buf[HM_HOOK_SIZE_MAX])
{
	struct hypermem_hook raw = {
		.flags = htole32(filter->flags | state),
		.timeout_ms = htole32(timeout_ms),
		.tests = htole16(filter->n_tests),
		.names_size = htole16(filter->names_size),
		.text_size = htole16(filter->text_size),
	};
	uint8_t *end = buf;

	memcpy(end, &raw, sizeof(raw));
	end += sizeof(raw);
	for (uint16_t i = 0; i < filter->n_tests; i++, end += sizeof(struct hypermem_test))
		test_encode(&filter->tests[i], end);
	memcpy(end, filter->names, filter->names_size);
	end += filter->names_size;
	memcpy(end, filter->text, filter->text_size);
	return (size_t)(end + filter->text_size - buf);
}

void hm_verdict_encode(const struct hm_verdict *verdict,
		       uint8_t buf[sizeof(struct hypermem_verdict)])
{
	struct hypermem_verdict raw = {
		.flags = htole32(verdict->flags),
		.retval = htole64(verdict->retval),
	};

	for (size_t i = 0; i < G_N_ELEMENTS(raw.args); i++)
		raw.args[i] = htole64(verdict->args[i]);
	memcpy(buf, &raw, sizeof(raw));
}

/* Bytes behind which there is nothing but NUL: how many; -1 if they are not so. */
static ssize_t padded_length(const char *raw, size_t size)
{
	size_t n = strnlen(raw, size);

	for (size_t i = n; i < size; i++)
		if (raw[i])
			return -1;
	return (ssize_t)n;
}

/* What stands in a line of text without quotes; *ret has room for `size` and a NUL. */
static int name_decode(const char *raw, size_t size, char *ret)
{
	ssize_t n = padded_length(raw, size);

	if (n <= 0)
		return -EPROTO;
	for (ssize_t i = 0; i < n; i++)
		if (!g_ascii_isalnum(raw[i]) && raw[i] != '_')
			return -EPROTO;
	memcpy(ret, raw, (size_t)n);
	ret[n] = 0;
	return 0;
}

/* A register's name becomes a variable of a shell: those in capitals are the shell's own. */
static int reg_decode(const uint8_t *data, struct hm_reg *ret)
{
	struct hypermem_reg raw;

	memcpy(&raw, data, sizeof(raw));
	if (name_decode(raw.name, sizeof(raw.name), ret->name) || !g_ascii_islower(raw.name[0]))
		return -EPROTO;
	for (const char *c = ret->name; *c; c++)
		if (g_ascii_isupper(*c))
			return -EPROTO;
	ret->value = le64toh(raw.value);
	return 0;
}

static int event_check(const struct hm_event *event)
{
	if (!event->id || event->pid < 1 || event->pid >= HYPERMEM_PID_MAX || event->tid < 1 ||
	    event->tid >= HYPERMEM_PID_MAX || !event->stamp)
		return -EPROTO;
	return 0;
}

static int event_names_decode(const struct hypermem_event *raw, struct hm_event *event)
{
	ssize_t n = padded_length(raw->comm, sizeof(raw->comm));

	if (n < 0)
		return -EPROTO;
	memcpy(event->comm, raw->comm, (size_t)n);
	event->comm[n] = 0;
	return name_decode(raw->call, sizeof(raw->call), event->call);
}

static void event_numbers_decode(const struct hypermem_event *raw, struct hm_event *event)
{
	*event = (struct hm_event){
		.id = le64toh(raw->id),
		.hook = le32toh(raw->hook),
		.flags = le32toh(raw->flags),
		.pid = le32toh(raw->pid),
		.tid = le32toh(raw->tid),
		.nr = le32toh(raw->nr),
		.stamp = le16toh(raw->stamp),
		.n_regs = le16toh(raw->n_regs),
		.time = le64toh(raw->time),
		.retval = (int64_t)le64toh(raw->retval),
		.lost = le64toh(raw->lost),
	};
	for (size_t i = 0; i < G_N_ELEMENTS(event->args); i++)
		event->args[i] = le64toh(raw->args[i]);
}

int hm_event_decode(const uint8_t *data, size_t size, struct hm_event **ret, size_t *ret_size)
{
	g_autofree struct hm_event *event = NULL;
	struct hypermem_event raw;
	size_t n_regs;

	if (size < sizeof(raw))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	n_regs = le16toh(raw.n_regs);
	if (n_regs > HYPER_REGS_MAX ||
	    n_regs * sizeof(struct hypermem_reg) > size - sizeof(raw))
		return -EPROTO;
	event = g_malloc(sizeof(*event) + n_regs * sizeof(event->regs[0]));
	event_numbers_decode(&raw, event);
	if (event_check(event) || event_names_decode(&raw, event))
		return -EPROTO;
	data += sizeof(raw);
	for (size_t i = 0; i < n_regs; i++, data += sizeof(struct hypermem_reg))
		if (reg_decode(data, &event->regs[i]))
			return -EPROTO;
	*ret_size = sizeof(raw) + n_regs * sizeof(struct hypermem_reg);
	*ret = g_steal_pointer(&event);
	return 0;
}

int hm_hook_counts_decode(const uint8_t *data, size_t size, struct hm_hook_counts *ret)
{
	struct hypermem_hook_counts raw;

	if (size != sizeof(raw))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	*ret = (struct hm_hook_counts){
		.matched = le64toh(raw.matched),
		.sent = le64toh(raw.sent),
		.replied = le64toh(raw.replied),
		.continued = le64toh(raw.continued),
		.timed_out = le64toh(raw.timed_out),
		.killed = le64toh(raw.killed),
		.abandoned = le64toh(raw.abandoned),
		.unattended = le64toh(raw.unattended),
		.dropped = le64toh(raw.dropped),
		.restarted = le64toh(raw.restarted),
		.missed = le64toh(raw.missed),
	};
	return 0;
}
