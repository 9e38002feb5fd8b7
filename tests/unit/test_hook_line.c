// SPDX-License-Identifier: MIT
/*
 * hook_line: an event is one line that a shell may eval; a reply is done as it is written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/hook_line.h"

static struct hm_event *event_new(uint16_t n_regs)
{
	struct hm_event *event = g_malloc0(sizeof(*event) + n_regs * sizeof(event->regs[0]));

	*event = (struct hm_event){
		.id = 17, .hook = 1, .flags = HYPER_EVENT_WAITS, .pid = 101, .tid = 102,
		.nr = 16, .stamp = 48879, .n_regs = n_regs, .time = 12345678901,
		.args = { 3, 0x89f1, UINT64_MAX, 0, 1, 2 }, .comm = "sh", .call = "ioctl",
	};
	return event;
}

static char *line_of(const struct hm_event *event, const char *hook)
{
	GByteArray *text = g_byte_array_new();

	hmfs_event_print(event, hook, text);
	g_byte_array_append(text, (const guint8 *)"", 1);
	return (char *)g_byte_array_free(text, FALSE);
}

static void an_event_is_a_line_of_words(void **state)
{
	g_autofree struct hm_event *event = event_new(0);
	g_autofree char *line = line_of(event, "raeth");

	assert_string_equal(line, "id=17 hook='raeth' phase=enter call=ioctl nr=16 pid=101 tid=102 "
				  "stamp=48879 comm='sh' compat=0 time=12345678901 arg0=0x3 "
				  "arg1=0x89f1 arg2=0xffffffffffffffff arg3=0x0 arg4=0x1 arg5=0x2\n");
}

static void a_return_has_a_result(void **state)
{
	g_autofree struct hm_event *event = event_new(2);
	g_autofree char *line = NULL;

	event->flags = HYPER_EVENT_RETURN | HYPER_EVENT_SKIPPED | HYPER_EVENT_COMPAT;
	event->retval = -25;
	event->lost = 7;
	event->regs[0] = (struct hm_reg){ "sp", 0x7ffd };
	event->regs[1] = (struct hm_reg){ "pid", 1 };	/* the guest pretends */
	line = line_of(event, "x");
	assert_non_null(strstr(line, "id=0 "));
	assert_non_null(strstr(line, " phase=return "));
	assert_non_null(strstr(line, " compat=1 "));
	assert_true(g_str_has_suffix(line, " retval=-25 skipped=1 lost=7 sp=0x7ffd\n"));
}

static void what_the_guest_says_is_quoted(void **state)
{
	static const struct {
		const char *comm, *quoted;
	} rows[] = {
		{ "", "comm=''" },
		{ "it's", "comm='it'\\''s'" },
		{ "'", "comm=''\\'''" },
		{ "$(reboot)", "comm='$(reboot)'" },
		{ "`id`", "comm='`id`'" },
		{ "a\\b", "comm='a\\b'" },
		{ "a\nid=1", "comm='a?id=1'" },
		{ "\033[2J\177", "comm='?[2J?'" },
		{ "\303\244", "comm='\303\244'" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree struct hm_event *event = event_new(0);
		g_autofree char *line = NULL, *word = g_strdup_printf(" %s ", rows[i].quoted);

		g_strlcpy(event->comm, rows[i].comm, sizeof(event->comm));
		line = line_of(event, rows[i].comm);
		if (!strstr(line, word) || !strstr(line, word + 5))
			fail_msg("%s", line);
		assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	}
}

/* The longest that can be is within what a reader must have room for. */
static void a_line_is_never_longer_than_it_may_be(void **state)
{
	g_autofree struct hm_event *event = event_new(HYPER_REGS_MAX);
	char name[64];
	g_autofree char *line = NULL;

	memset(name, '\'', sizeof(name) - 1);
	name[63] = 0;
	memset(event->comm, '\'', 16);
	memset(event->call, 'x', 32);
	memset(event->args, 0xff, sizeof(event->args));
	event->flags = 0xff;
	event->id = event->time = event->lost = UINT64_MAX;
	event->retval = INT64_MIN;
	for (size_t i = 0; i < HYPER_REGS_MAX; i++)
		event->regs[i] = (struct hm_reg){ "abcdefgh", UINT64_MAX };
	line = line_of(event, name);
	assert_in_range(strlen(line), 1, HMFS_EVENT_LINE_MAX);
}

static void a_reply_says_how_the_call_goes_on(void **state)
{
	static const struct {
		const char *line;
		uint64_t id;
		struct hm_verdict verdict;
	} rows[] = {
		{ "17 continue", 17, {} },
		{ "0x11 continue", 17, {} },
		{ "  17\tcontinue  ", 17, {} },
		{ "17 skip", 17, { HYPER_VERDICT_SKIP } },
		{ "17 retval=0", 17, { HYPER_VERDICT_RETVAL } },
		{ "17 retval=-14", 17, { HYPER_VERDICT_RETVAL, (uint64_t)-14 } },
		{ "17 retval=0xffffffffffffffff", 17, { HYPER_VERDICT_RETVAL, UINT64_MAX } },
		{ "17 skip retval=5", 17, { HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL, 5 } },
		{ "17 arg0=1", 17, { HYPER_VERDICT_ARG(0), 0, { 1 } } },
		{ "17 arg5=-1 arg2=0x10", 17,
		  { HYPER_VERDICT_ARG(5) | HYPER_VERDICT_ARG(2), 0, { 0, 0, 16, 0, 0, UINT64_MAX } } },
		{ "18446744073709551615 continue", UINT64_MAX, {} },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hm_verdict verdict;
		uint64_t id;

		if (hmfs_reply_parse(rows[i].line, strlen(rows[i].line), &id, &verdict) != 0)
			fail_msg("%s", rows[i].line);
		assert_true(id == rows[i].id);
		assert_memory_equal(&verdict, &rows[i].verdict, sizeof(verdict));
	}
}

static void what_is_no_reply_is_einval(void **state)
{
	static const char *const lines[] = {
		"", " ", "17", "17 ", "continue", "x continue", "-1 continue", "17 go", "17 skip go",
		"17 arg6=1", "17 arg=1", "17 arg1", "17 arg1=", "17 arg1=x", "17 arg1=1x", "17 retval",
		"17 retval=", "17 retval=--1", "17 retval=18446744073709551616",
		"17 retval=-9223372036854775809", "17 continue skip", "17 arg0=1 continue", "17,continue",
		"17 skip=1", "id=17 continue", "017 continue", "17 continue\r", "17 arg0==1",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
		struct hm_verdict verdict;
		uint64_t id;

		if (hmfs_reply_parse(lines[i], strlen(lines[i]), &id, &verdict) != -EINVAL)
			fail_msg("%s", lines[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_is_a_line_of_words),
		cmocka_unit_test(a_return_has_a_result),
		cmocka_unit_test(what_the_guest_says_is_quoted),
		cmocka_unit_test(a_line_is_never_longer_than_it_may_be),
		cmocka_unit_test(a_reply_says_how_the_call_goes_on),
		cmocka_unit_test(what_is_no_reply_is_einval),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
