// SPDX-License-Identifier: MIT
/*
 * wire_hook: what is sent is what guest/uapi/hypermem.h says, and an event of the guest's
 * that cannot be one is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "bridge/wire_hook.h"

static void a_hook_is_little_endian_and_has_its_parts_in_order(void **state)
{
	static const uint8_t head[] = { 0x39, 0, 0, 0, 0x88, 0x13, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0 };
	static const uint8_t test[] = { 2, 12, 8, 1, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1,
					1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0x80 };
	struct hm_filter filter = {
		.flags = HYPER_HOOK_ENTER | HYPER_HOOK_REGS,
		.n_tests = 1, .names_size = 2, .text_size = 3, .names = "x", .text = "abc",
		.tests = { { HYPER_TEST_STRING, HYPER_FIELD_COMM, HYPER_BEGINS, HYPER_TEST_SIGNED,
			     0x0102030405060708, 1, 0x8000000000000002 } },
	};
	uint8_t buf[HM_HOOK_SIZE_MAX];
	size_t size = hm_hook_encode(&filter, HYPER_HOOK_ENABLED | HYPER_HOOK_ATTENDED, 5000, buf);

	assert_int_equal(size, sizeof(head) + sizeof(test) + 5);
	assert_memory_equal(buf, head, sizeof(head));
	assert_memory_equal(buf + sizeof(head), test, sizeof(test));
	assert_memory_equal(buf + sizeof(head) + sizeof(test), "x\0abc", 5);
}

static void the_largest_hook_has_room(void **state)
{
	g_autofree struct hm_filter *filter = g_new0(struct hm_filter, 1);
	uint8_t buf[HM_HOOK_SIZE_MAX];

	filter->n_tests = HYPER_TESTS_MAX;
	filter->names_size = filter->text_size = HYPER_HOOK_TEXT_MAX;
	assert_int_equal(hm_hook_encode(filter, 0, 1, buf), HM_HOOK_SIZE_MAX);
}

static void a_verdict_is_little_endian(void **state)
{
	const struct hm_verdict verdict = { HYPER_VERDICT_RETVAL | HYPER_VERDICT_ARG(1), (uint64_t)-2,
					    { 1, 0x0102, 0, 0, 0, 6 } };
	uint8_t buf[sizeof(struct hypermem_verdict)];
	static const uint8_t flags[] = { 2, 2, 0, 0, 0, 0, 0, 0, 0xfe, 0xff };

	hm_verdict_encode(&verdict, buf);
	assert_memory_equal(buf, flags, sizeof(flags));
	assert_int_equal(buf[16], 1);
	assert_int_equal(buf[24], 2);
	assert_int_equal(buf[25], 1);
	assert_int_equal(buf[56], 6);
}

/* An event with its registers. */
struct raw {
	struct hypermem_event event;
	struct hypermem_reg regs[2];
};

static struct raw raw_event(void)
{
	return (struct raw){
		.event = { .id = GUINT64_TO_LE(17), .hook = GUINT32_TO_LE(3),
			   .flags = GUINT32_TO_LE(HYPER_EVENT_RETURN | HYPER_EVENT_WAITS),
			   .pid = GUINT32_TO_LE(101), .tid = GUINT32_TO_LE(102),
			   .nr = GUINT32_TO_LE(16), .stamp = GUINT16_TO_LE(0xbeef),
			   .n_regs = GUINT16_TO_LE(2), .time = GUINT64_TO_LE(5),
			   .args = { GUINT64_TO_LE(1), 0, 0, 0, 0, GUINT64_TO_LE(6) },
			   .retval = GUINT64_TO_LE((uint64_t)-25), .lost = GUINT64_TO_LE(9),
			   .comm = "sh", .call = "ioctl" },
		.regs = { { "sp", GUINT64_TO_LE(0x7ffd) }, { "orig_rax", GUINT64_TO_LE(16) } },
	};
}

static void an_event_is_decoded_with_its_registers(void **state)
{
	struct raw two[2] = { raw_event(), raw_event() };
	g_autofree struct hm_event *event = NULL;
	size_t used = 0;

	assert_int_equal(hm_event_decode((const uint8_t *)two, sizeof(two), &event, &used), 0);
	assert_int_equal(used, sizeof(two[0]));
	assert_true(event->id == 17 && event->hook == 3 && event->pid == 101 && event->tid == 102);
	assert_true(event->nr == 16 && event->stamp == 0xbeef && event->time == 5);
	assert_true(event->args[0] == 1 && event->args[5] == 6 && event->retval == -25);
	assert_true(event->lost == 9 && event->n_regs == 2);
	assert_string_equal(event->comm, "sh");
	assert_string_equal(event->call, "ioctl");
	assert_string_equal(event->regs[0].name, "sp");
	assert_string_equal(event->regs[1].name, "orig_rax");
	assert_true(event->regs[0].value == 0x7ffd && event->regs[1].value == 16);
}

static void a_name_may_fill_its_room(void **state)
{
	struct raw raw = raw_event();
	g_autofree struct hm_event *event = NULL;
	size_t used;

	memset(raw.event.comm, 'c', sizeof(raw.event.comm));
	memset(raw.event.call, 'x', sizeof(raw.event.call));
	assert_int_equal(hm_event_decode((const uint8_t *)&raw, sizeof(raw), &event, &used), 0);
	assert_int_equal(strlen(event->comm), 16);
	assert_int_equal(strlen(event->call), 32);
}

#define AT(member) offsetof(struct raw, member)

static void an_event_that_cannot_be_is_refused(void **state)
{
	static const struct {
		const char *what;
		size_t offset;
		const char *bytes;
		size_t size;
	} rows[] = {
		{ "no id", AT(event.id), "\0", 1 },
		{ "no pid", AT(event.pid), "\0", 1 },
		{ "a pid that cannot be", AT(event.pid), "\0\0\100", 3 },
		{ "no tid", AT(event.tid), "\0", 1 },
		{ "a tid that cannot be", AT(event.tid), "\0\0\0\377", 4 },
		{ "no stamp", AT(event.stamp), "\0\0", 2 },
		{ "registers beyond its data", AT(event.n_regs), "\3", 1 },
		{ "more registers than there are", AT(event.n_regs), "\51", 1 },
		{ "far more registers", AT(event.n_regs), "\377\377", 2 },
		{ "something behind comm", AT(event.comm[15]), "x", 1 },
		{ "no call", AT(event.call), "\0\0\0\0\0", 5 },
		{ "something behind the call", AT(event.call[31]), "x", 1 },
		{ "a call with a space", AT(event.call), "i o", 3 },
		{ "a call with a newline", AT(event.call), "i\n", 2 },
		{ "a call that a shell runs", AT(event.call), "$(a)", 4 },
		{ "a call of other letters", AT(event.call), "\303\244", 2 },
		{ "no register's name", AT(regs[0].name), "\0\0", 2 },
		{ "a register in capitals", AT(regs[0].name), "IFS", 3 },
		{ "a register that begins with a digit", AT(regs[0].name), "1x", 2 },
		{ "a register with an equals sign", AT(regs[1].name), "a=b", 3 },
		{ "something behind a register's name", AT(regs[0].name[7]), "x", 1 },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct raw raw = raw_event();
		struct hm_event *event = NULL;
		size_t used = 77;

		memcpy((uint8_t *)&raw + rows[i].offset, rows[i].bytes, rows[i].size);
		if (hm_event_decode((const uint8_t *)&raw, sizeof(raw), &event, &used) != -EPROTO)
			fail_msg("%s", rows[i].what);
		assert_null(event);
		assert_int_equal(used, 77);
	}
}

static void an_event_that_is_cut_is_refused(void **state)
{
	struct raw raw = raw_event();

	for (size_t size = 0; size < sizeof(raw); size++) {
		/* Of its own, so that a byte too many is noticed. */
		g_autofree uint8_t *data = g_malloc(size + 1);
		struct hm_event *event;
		size_t used;

		memcpy(data, &raw, size);
		assert_int_equal(hm_event_decode(data, size, &event, &used), -EPROTO);
	}
}

static void counts_are_ten_numbers(void **state)
{
	uint8_t data[sizeof(struct hypermem_hook_counts) + 1] = { 1 };
	struct hm_hook_counts counts;

	data[sizeof(struct hypermem_hook_counts) - 8] = 10;
	assert_int_equal(hm_hook_counts_decode(data, sizeof(struct hypermem_hook_counts), &counts), 0);
	assert_true(counts.matched == 1 && counts.sent == 0 && counts.missed == 10);
	assert_int_equal(hm_hook_counts_decode(data, sizeof(struct hypermem_hook_counts) - 1, &counts),
			 -EPROTO);
	assert_int_equal(hm_hook_counts_decode(data, sizeof(data), &counts), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_hook_is_little_endian_and_has_its_parts_in_order),
		cmocka_unit_test(the_largest_hook_has_room),
		cmocka_unit_test(a_verdict_is_little_endian),
		cmocka_unit_test(an_event_is_decoded_with_its_registers),
		cmocka_unit_test(a_name_may_fill_its_room),
		cmocka_unit_test(an_event_that_cannot_be_is_refused),
		cmocka_unit_test(an_event_that_is_cut_is_refused),
		cmocka_unit_test(counts_are_ten_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
