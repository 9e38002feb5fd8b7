// SPDX-License-Identifier: MIT
/*
 * filter: what a text means, by running its program on calls; and what is wrong with
 * those that are no filter, and where.
 *
 * The evaluator here follows guest/uapi/hypermem.h alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "fs/hook_filter.h"

/* -- a guest that looks at a call -------------------------------------------------------- */

enum truth { NO, YES, NEITHER };

struct call {
	uint64_t args[6];
	int64_t retval;
	bool returns;
	uint32_t pid, tid, uid, nr, compat;
	const char *comm;
	const char *strings[6];		/* NULL: not readable */
};

static enum truth compare_signed(const struct hm_test *test, int64_t x)
{
	int64_t a = (int64_t)test->a, b = (int64_t)test->b;

	switch (test->compare) {
	case HYPER_EQ: return x == a ? YES : NO;
	case HYPER_NE: return x != a ? YES : NO;
	case HYPER_LT: return x < a ? YES : NO;
	case HYPER_LE: return x <= a ? YES : NO;
	case HYPER_GT: return x > a ? YES : NO;
	case HYPER_GE: return x >= a ? YES : NO;
	case HYPER_IN: return x >= a && x <= b ? YES : NO;
	case HYPER_NOT_IN: return x < a || x > b ? YES : NO;
	}
	fail_msg("comparison %u", test->compare);
	return NO;
}

static enum truth compare_unsigned(const struct hm_test *test, uint64_t x)
{
	switch (test->compare) {
	case HYPER_EQ: return x == test->a ? YES : NO;
	case HYPER_NE: return x != test->a ? YES : NO;
	case HYPER_LT: return x < test->a ? YES : NO;
	case HYPER_LE: return x <= test->a ? YES : NO;
	case HYPER_GT: return x > test->a ? YES : NO;
	case HYPER_GE: return x >= test->a ? YES : NO;
	case HYPER_IN: return x >= test->a && x <= test->b ? YES : NO;
	case HYPER_NOT_IN: return x < test->a || x > test->b ? YES : NO;
	}
	fail_msg("comparison %u", test->compare);
	return NO;
}

static uint64_t field_of(const struct call *call, uint8_t field)
{
	switch (field) {
	case HYPER_FIELD_RETVAL: return (uint64_t)call->retval;
	case HYPER_FIELD_PID: return call->pid;
	case HYPER_FIELD_TID: return call->tid;
	case HYPER_FIELD_UID: return call->uid;
	case HYPER_FIELD_NR: return call->nr;
	case HYPER_FIELD_COMPAT: return call->compat;
	}
	assert_true(field <= HYPER_FIELD_ARG0 + 5);
	return call->args[field];
}

static enum truth test_number(const struct call *call, const struct hm_test *test)
{
	uint64_t x = field_of(call, test->field) & test->mask;

	if (test->field == HYPER_FIELD_RETVAL && !call->returns)
		return NEITHER;
	if (test->flags & HYPER_TEST_INT)
		return compare_signed(test, (int32_t)x);
	return test->flags & HYPER_TEST_SIGNED ? compare_signed(test, (int64_t)x) :
						 compare_unsigned(test, x);
}

static enum truth test_string(const struct call *call, const struct hm_filter *filter,
			      const struct hm_test *test)
{
	g_autofree char *want = g_strndup(filter->text + test->a, test->b);
	const char *have = test->field == HYPER_FIELD_COMM ? call->comm :
							     call->strings[test->field];

	assert_true(test->a + test->b <= filter->text_size);
	if (!have)
		return NEITHER;
	switch (test->compare) {
	case HYPER_EQ: return strcmp(have, want) == 0 ? YES : NO;
	case HYPER_NE: return strcmp(have, want) != 0 ? YES : NO;
	case HYPER_BEGINS: return g_str_has_prefix(have, want) ? YES : NO;
	case HYPER_ENDS: return g_str_has_suffix(have, want) ? YES : NO;
	case HYPER_CONTAINS: return strstr(have, want) ? YES : NO;
	}
	fail_msg("comparison %u", test->compare);
	return NO;
}

static enum truth both(enum truth a, enum truth b)
{
	return a == NO || b == NO ? NO : a == NEITHER || b == NEITHER ? NEITHER : YES;
}

static enum truth opposite(enum truth a)
{
	return a == NEITHER ? NEITHER : a == YES ? NO : YES;
}

static bool matches(const struct hm_filter *filter, const struct call *call)
{
	enum truth stack[HYPER_TESTS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < filter->n_tests; i++) {
		const struct hm_test *test = &filter->tests[i];

		switch (test->test) {
		case HYPER_TEST_NUMBER:
			stack[n++] = test_number(call, test);
			break;
		case HYPER_TEST_STRING:
			stack[n++] = test_string(call, filter, test);
			break;
		case HYPER_TEST_AND:
			assert_true(n-- >= 2);
			stack[n - 1] = both(stack[n - 1], stack[n]);
			break;
		case HYPER_TEST_OR:
			assert_true(n-- >= 2);
			stack[n - 1] = opposite(both(opposite(stack[n - 1]), opposite(stack[n])));
			break;
		case HYPER_TEST_NOT:
			assert_true(n >= 1);
			stack[n - 1] = opposite(stack[n - 1]);
			break;
		default:
			fail_msg("step %u", test->test);
		}
	}
	assert_int_equal(n, filter->n_tests ? 1 : 0);
	return n == 0 || stack[0] == YES;
}

static void parse(const char *text, struct hm_filter *ret)
{
	struct hmfs_filter_error error;

	if (hmfs_filter_parse(text, strlen(text), ret, &error) != 0)
		fail_msg("\"%s\": %zu: %s", text, error.offset, error.reason);
}

/* -- tests ----------------------------------------------------------------------------------- */

static void the_word_before_the_tests_says_which_calls_and_when(void **state)
{
	static const struct {
		const char *text, *names;
		uint32_t flags;
	} rows[] = {
		{ "ioctl", "ioctl|", HYPER_HOOK_ENTER },
		{ " ioctl \n", "ioctl|", HYPER_HOOK_ENTER },
		{ "ioctl enter", "ioctl|", HYPER_HOOK_ENTER },
		{ "ioctl return", "ioctl|", HYPER_HOOK_RETURN },
		{ "ioctl enter return", "ioctl|", HYPER_HOOK_ENTER | HYPER_HOOK_RETURN },
		{ "ioctl return enter trace regs", "ioctl|",
		  HYPER_HOOK_ENTER | HYPER_HOOK_RETURN | HYPER_HOOK_TRACE | HYPER_HOOK_REGS },
		{ "ioctl trace", "ioctl|", HYPER_HOOK_ENTER | HYPER_HOOK_TRACE },
		{ "open,openat,read regs", "open|openat|read|", HYPER_HOOK_ENTER | HYPER_HOOK_REGS },
		{ "open , openat trace", "open|openat|", HYPER_HOOK_ENTER | HYPER_HOOK_TRACE },
		{ "*", "*|", HYPER_HOOK_ENTER },
		{ "all return", "*|", HYPER_HOOK_RETURN },
		{ "allow,mmap2", "allow|mmap2|", HYPER_HOOK_ENTER },
		{ "ioctl\treturn\n\targ1==1", "ioctl|", HYPER_HOOK_RETURN },
	};
	struct hm_filter filter;

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		parse(rows[i].text, &filter);
		for (size_t j = 0; j < filter.names_size; j++)
			if (!filter.names[j])
				filter.names[j] = '|';
		filter.names[filter.names_size] = 0;
		assert_string_equal(filter.names, rows[i].names);
		assert_int_equal(filter.flags, rows[i].flags);
	}
}

static const struct call sample = {
	.args = { 3, 0x89f1, UINT64_MAX, 0xffffffff, 0x80000000, 0 },
	.retval = -25,
	.returns = true,
	.pid = 101, .tid = 102, .uid = 1000, .nr = 16, .compat = 1,
	.comm = "mtk7530_switch",
	.strings = { "/dev/mtd0", "", NULL, "a \"b\"\n\\c", NULL, "x" },
};

static void a_test_holds_for_the_calls_that_it_says(void **state)
{
	static const struct {
		const char *tests;
		bool holds;
	} rows[] = {
		{ "", true },
		{ "arg0==3", true }, { "arg0=3", true }, { "arg0 == 0x3", true }, { "arg0==4", false },
		{ "arg0!=3", false }, { "arg0!=4", true },
		{ "arg0<4", true }, { "arg0<3", false }, { "arg0<=3", true }, { "arg0<=2", false },
		{ "arg0>2", true }, { "arg0>3", false }, { "arg0>=3", true }, { "arg0>=4", false },
		{ "arg1==0x89f1", true }, { "arg1==35313", true }, { "arg1==0x89F1", true },
		{ "arg5==0", true },
		/* Arguments have no sign ... */
		{ "arg2>0", true }, { "arg2==18446744073709551615", true }, { "arg2>0x7fffffff", true },
		/* ... unless the value has one; and an int is one whatever is above it. */
		{ "arg2==-1", true }, { "arg3==-1", true }, { "arg3<0", false }, { "arg2<-1", false },
		{ "arg2<=-1", true }, { "arg4==-2147483648", true }, { "arg4<-5", true },
		{ "arg3==-4294967296", false }, { "arg0>-1", true }, { "arg3!=-1", false },
		{ "arg2==-5..-1", true }, { "arg3==-5..5", true }, { "arg0==-5..5", true },
		{ "arg1==-5..5", false }, { "arg3==-4294967296..4294967295", true },
		/* Ranges. */
		{ "arg0==3..3", true }, { "arg0==0..3", true }, { "arg0==3..9", true },
		{ "arg0==0..2", false }, { "arg0==4..9", false }, { "arg0!=0..2", true },
		{ "arg0!=0..3", false }, { "arg1 = 0x89f0..0x89ff", true },
		{ "arg2==0..0xffffffffffffffff", true },
		/* Masks. */
		{ "arg0 & 1", true }, { "arg0&2", true }, { "arg0 & 4", false }, { "arg0&0xc", false },
		{ "arg0 & 3 == 3", true }, { "arg0 & 1 == 1", true }, { "arg0 & 6 == 2", true },
		{ "arg0 & 6 == 6", false }, { "arg0 & 6 != 6", true }, { "arg1 & 0xff00 == 0x8900", true },
		{ "arg2 & -4096 == 0xfffffffffffff000", true }, { "arg0 & 6 < 3", true },
		{ "arg0 & 1 && arg1==0x89f1", true }, { "arg0 & 4 || arg0 & 1", true },
		{ "arg0 & 1 arg1 & 1", true }, { "arg0 & 3 == 1..3", true },
		/* The result has a sign. */
		{ "retval==-25", true }, { "retval<0", true }, { "retval>=0", false },
		{ "retval == -4095..-1", true }, { "retval!=-25", false }, { "retval & 1", true },
		{ "retval & 0x3 == 3", true },
		/* The others. */
		{ "pid==101", true }, { "pid==102", false }, { "tid==102", true }, { "uid==1000", true },
		{ "uid!=0", true }, { "nr==16", true }, { "nr==16..20", true }, { "compat==1", true },
		{ "compat==0", false }, { "pid>-1", true },
		/* Text. */
		{ "comm==mtk7530_switch", true }, { "comm=mtk7530_switch", true },
		{ "comm=\"mtk7530_switch\"", true }, { "comm!=sh", true }, { "comm==mtk", false },
		{ "comm^=mtk", true }, { "comm^=tk", false }, { "comm$=switch", true },
		{ "comm$=mtk", false }, { "comm*=7530", true }, { "comm*=7531", false },
		{ "comm^=\"\"", true }, { "comm==\"\"", false },
		{ "str(arg0)==/dev/mtd0", true }, { "str(arg0)^=/dev/", true },
		{ "str( arg0 ) ^= \"/dev/\"", true }, { "str(arg0)$=mtd0", true },
		{ "str(arg0)*=/mtd", true }, { "str(arg0)!=/dev/mtd0", false },
		{ "str(arg1)==\"\"", true }, { "str(arg5)==x", true },
		{ "str(arg3)==\"a \\\"b\\\"\\n\\\\c\"", true }, { "str(arg3)^=\"\\x61\\x20\"", true },
		/* What cannot be read is neither so nor not so. */
		{ "str(arg2)==x", false }, { "str(arg2)!=x", false }, { "not str(arg2)==x", false },
		{ "not str(arg2)!=x", false }, { "str(arg2)==x or arg0==3", true },
		{ "not (str(arg2)==x and arg0==3)", false }, { "not (str(arg2)==x and arg0==4)", true },
		/* Together. */
		{ "arg0==3 arg1==0x89f1", true }, { "arg0==3 arg1==1", false },
		{ "arg0==3 and arg1==0x89f1", true }, { "arg0==3 && arg1==1", false },
		{ "arg0==4 or arg1==0x89f1", true }, { "arg0==4 || arg1==1", false },
		{ "arg0==4||arg1==0x89f1", true }, { "not arg0==4", true }, { "!arg0==3", false },
		{ "! arg0==3", false }, { "not not arg0==3", true }, { "!!arg0==4", false },
		{ "(arg0==3)", true }, { "((arg0==3))(arg1==0x89f1)", true },
		{ "not (arg0==3 or arg0==4)", false },
		/* not before and, and before or. */
		{ "arg0==3 or arg0==4 and arg0==5", true }, { "(arg0==3 or arg0==4) and arg0==5", false },
		{ "arg0==3 or arg0==4 arg0==5", true }, { "arg0==5 and arg0==4 or arg0==3", true },
		{ "not arg0==4 or arg0==3", true }, { "not arg0==3 or arg0==3", true },
		{ "not arg0==3 and arg0==4", false }, { "not (arg0==3 and arg0==4)", true },
		{ "(arg0==1||arg0==3)&&!(comm==sh)", true },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *text = g_strdup_printf("ioctl return %s", rows[i].tests);
		struct hm_filter filter;

		parse(text, &filter);
		if (matches(&filter, &sample) != rows[i].holds)
			fail_msg("%s: %d", text, !rows[i].holds);
	}
}

static void before_a_call_has_returned_no_test_of_its_result_holds(void **state)
{
	static const char *const tests[] = { "retval==0", "retval!=0", "not retval==0", "retval<1",
					     "retval & 1", "not (retval==0 and arg0==3)" };
	struct call entered = sample;

	entered.returns = false;
	entered.retval = 0;
	for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
		g_autofree char *text = g_strdup_printf("ioctl enter return %s", tests[i]);
		struct hm_filter filter;

		parse(text, &filter);
		if (matches(&filter, &entered))
			fail_msg("%s", text);
	}
}

static void what_is_no_filter_is_told_where_and_why(void **state)
{
	static const struct {
		const char *text;
		size_t column;
		const char *reason;	/* a part of it */
	} rows[] = {
		{ "", 1, "name is missing" },
		{ "  \n", 3, "name is missing" },
		{ "ioctl arg0\n", 11, "operator is missing" },
		{ "sys_ioctl", 1, "without sys_" },
		{ "open, sys_read return", 7, "without sys_" },
		{ "ioctl retval<0", 7, "put `return'" },
		{ "ioctl enter arg0==1 or not retval==0", 28, "put `return'" },
		{ ",open", 1, "name is missing" },
		{ "open,", 6, "name is missing" },
		{ "open,,read", 6, "name is missing" },
		{ "open,*", 6, "name is missing" },
		{ "*,open", 1, "stands alone" },
		{ " all,open", 2, "stands alone" },
		{ "op-en", 3, "not of a call's name" },
		{ "open(", 5, "not of a call's name" },
		{ "a234567890123456789012345678901234", 1, "so long a name" },
		{ "ioctl arg1==x", 13, "value is no number" },
		{ "ioctl arg1==", 13, "value is no number" },
		{ "ioctl arg1==1x", 13, "value is no number" },
		{ "ioctl arg1==0x", 13, "value is no number" },
		{ "ioctl arg1==010", 13, "leading 0" },
		{ "ioctl arg1==--1", 13, "value is no number" },
		{ "ioctl arg1==\"1\"", 13, "value is no number" },
		{ "ioctl arg1==18446744073709551616", 13, "too large" },
		{ "ioctl arg1==-9223372036854775809", 13, "too large" },
		{ "ioctl return retval==0xffffffffffffffff", 22, "sign" },
		{ "ioctl arg1==-1..0xffffffffffffffff", 17, "sign" },
		{ "ioctl arg1==5..1", 13, "ends before" },
		{ "ioctl arg1==1..-1", 13, "ends before" },
		{ "ioctl arg1<1..5", 12, "== and !=" },
		{ "ioctl arg1==1..", 16, "end is no number" },
		{ "ioctl arg1==..1", 13, "beginning is no number" },
		{ "ioctl arg1", 11, "operator is missing" },
		{ "ioctl arg1 5", 12, "operator is missing" },
		{ "ioctl arg1 ^= 5", 12, "for text" },
		{ "ioctl comm<x", 11, "for numbers" },
		{ "ioctl comm & 1", 12, "operator is missing" },
		{ "ioctl comm=", 12, "is missing" },
		{ "ioctl comm=(", 12, "is missing" },
		{ "ioctl comm==abcdefghijklmnop", 13, "15 bytes" },
		{ "ioctl comm=\"x", 12, "does not end" },
		{ "ioctl comm=\"x\\", 14, "does not end" },
		{ "ioctl comm=\"\\q\"", 13, "not one of" },
		{ "ioctl comm=\"\\x1\"", 13, "two hexadecimal" },
		{ "ioctl comm=\"\\x00\"", 13, "NUL" },
		{ "ioctl arg1 & 0", 14, "no bits" },
		{ "ioctl arg1 & x", 14, "mask is no number" },
		{ "ioctl arg6==1", 7, "'arg6' is nothing" },
		{ "ioctl foo", 7, "'foo' is nothing" },
		{ "ioctl str(comm)==x", 11, "arg0 to arg5" },
		{ "ioctl str(1)==x", 11, "arg0 to arg5" },
		{ "ioctl str arg1==x", 11, "needs an argument" },
		{ "ioctl str(arg1==x", 15, ") is missing" },
		{ "ioctl (arg1==1", 7, "not closed" },
		{ "ioctl arg1==1)", 14, "closes nothing" },
		{ "ioctl ()", 8, "test is missing" },
		{ "ioctl arg1==1 and", 18, "test is missing" },
		{ "ioctl arg1==1 or", 17, "test is missing" },
		{ "ioctl arg1==1 and or arg2==1", 19, "'or' is nothing" },
		{ "ioctl not", 10, "test is missing" },
		{ "ioctl and arg1==1", 7, "'and' is nothing" },
		{ "ioctl arg1==1 | arg2==1", 15, "test is missing" },
		{ "ioctl arg1==1 return", 15, "belongs before" },
		{ "ioctl return foo", 14, "'foo' is nothing" },
		{ "ioctl = 5", 7, "test is missing" },
		/* Columns are characters. */
		{ "ioctl comm=\303\244 x", 14, "'x' is nothing" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hmfs_filter_error error = {};
		g_autofree char *complaint = NULL, *end = NULL;
		struct hm_filter filter;
		const char *text = rows[i].text;

		if (hmfs_filter_parse(text, strlen(text), &filter, &error) != -EINVAL)
			fail_msg("\"%s\" is a filter", text);
		if (!strstr(error.reason, rows[i].reason))
			fail_msg("\"%s\": %s", text, error.reason);
		complaint = hmfs_filter_complaint(text, strlen(text), &error);
		end = g_strdup_printf("\n%*s^\nerror: column %zu: %s\n", (int)rows[i].column - 1, "",
				      rows[i].column, error.reason);
		if (!g_str_has_suffix(complaint, end))
			fail_msg("\"%s\": column %zu\n%s", text, rows[i].column, complaint);
	}
}

static char *repeat(const char *first, const char *more, unsigned int n)
{
	GString *text = g_string_new(first);

	while (n--)
		g_string_append(text, more);
	return g_string_free(text, FALSE);
}

static void what_is_too_much_is_told(void **state)
{
	static const struct {
		const char *first, *more;
		unsigned int fits, too_many;
		const char *last, *reason;
	} rows[] = {
		/* Each with its and, but the first. */
		{ "x arg0==1", " arg0==1", 63, 64, "", "more than 128 tests" },
		{ "x ", "(", 63, 64, "arg0==1", "in one another" },
		{ "x ", "!", 63, 64, "arg0==1", "in one another" },
		{ "x comm==a", " comm==a", 63, 64, "", "more than 128 tests" },
		{ "x str(arg0)==", "a", 1024, 1025, "", "1024 bytes of strings" },
		{ "x", ",abc", 255, 256, "", "1024 bytes of names" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
		for (unsigned int over = 0; over < 2; over++) {
			g_autofree char *text = repeat(rows[i].first, rows[i].more,
						       over ? rows[i].too_many : rows[i].fits);
			const char *close = rows[i].more[0] == '(' ? ")" : "";
			g_autofree char *all = g_strconcat(text, rows[i].last, NULL);
			g_autofree char *closed = repeat(all, close, over ? rows[i].too_many :
									    rows[i].fits);
			struct hmfs_filter_error error;
			struct hm_filter filter;
			int rc = hmfs_filter_parse(closed, strlen(closed), &filter, &error);

			if (rc != (over ? -EINVAL : 0))
				fail_msg("%zu: %d, %s", i, rc, rc ? error.reason : "");
			if (over && !strstr(error.reason, rows[i].reason))
				fail_msg("%zu: %s", i, error.reason);
		}
}

static void a_nul_is_no_part_of_a_filter_and_ends_no_complaint(void **state)
{
	static const char text[] = "ioctl\0arg1==1\033[2J";
	struct hmfs_filter_error error;
	g_autofree char *complaint = NULL;
	struct hm_filter filter;

	assert_int_equal(hmfs_filter_parse(text, sizeof(text) - 1, &filter, &error), -EINVAL);
	assert_int_equal(error.offset, 5);
	complaint = hmfs_filter_complaint(text, sizeof(text) - 1, &error);
	assert_string_equal(complaint, "ioctl arg1==1 [2J\n     ^\n"
				       "error: column 6: this is not of a call's name\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_word_before_the_tests_says_which_calls_and_when),
		cmocka_unit_test(a_test_holds_for_the_calls_that_it_says),
		cmocka_unit_test(before_a_call_has_returned_no_test_of_its_result_holds),
		cmocka_unit_test(what_is_no_filter_is_told_where_and_why),
		cmocka_unit_test(what_is_too_much_is_told),
		cmocka_unit_test(a_nul_is_no_part_of_a_filter_and_ends_no_complaint),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
