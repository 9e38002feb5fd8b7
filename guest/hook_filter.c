// SPDX-License-Identifier: GPL-2.0
/*
 * hook_filter: does a call match?  See hook.h.
 *
 * The host has compiled the user's words to a program; here it is checked once, and then
 * run for every call.  Truth has three values, as uapi/hypermem.h says of tests that
 * cannot be answered: Kleene's logic, with HOOK_PERHAPS in the middle.
 */
#include <linux/cred.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>

#include "compat.h"
#include "hook.h"

static int test_check(const struct hook *hook, const struct hook_test *test)
{
	if (test->flags & ~(HYPER_TEST_SIGNED | HYPER_TEST_INT))
		return -EINVAL;
	if (test->field >= HYPER_FIELD_MAX || test->compare >= HYPER_COMPARE_MAX)
		return -EINVAL;
	switch (test->test) {
	case HYPER_TEST_NUMBER:
		return test->compare < HYPER_COMPARE_NUMBERS && test->field != HYPER_FIELD_COMM ?
			0 : -EINVAL;
	case HYPER_TEST_STRING:
		if (test->compare > HYPER_NE && test->compare < HYPER_BEGINS)
			return -EINVAL;
		if (test->field > HYPER_FIELD_ARG0 + 5 && test->field != HYPER_FIELD_COMM)
			return -EINVAL;
		return test->a <= hook->text_size && test->b <= hook->text_size - test->a ?
			0 : -EINVAL;
	}
	return 0;
}

/* The program leaves one value, and never pops from an empty stack. */
int hook_filter_check(const struct hook *hook)
{
	unsigned int depth = 0, i;

	for (i = 0; i < hook->n_tests; i++) {
		const struct hook_test *test = &hook->tests[i];

		if (test_check(hook, test))
			return -EINVAL;
		switch (test->test) {
		case HYPER_TEST_NUMBER:
		case HYPER_TEST_STRING:
			depth++;
			break;
		case HYPER_TEST_AND:
		case HYPER_TEST_OR:
			if (depth < 2)
				return -EINVAL;
			depth--;
			break;
		case HYPER_TEST_NOT:
			if (!depth)
				return -EINVAL;
			break;
		default:
			return -EINVAL;
		}
	}
	return depth == 1 || !hook->n_tests ? 0 : -EINVAL;
}

static bool compare_unsigned(u8 compare, u64 value, u64 a, u64 b)
{
	switch (compare) {
	case HYPER_EQ:		return value == a;
	case HYPER_NE:		return value != a;
	case HYPER_LT:		return value < a;
	case HYPER_LE:		return value <= a;
	case HYPER_GT:		return value > a;
	case HYPER_GE:		return value >= a;
	case HYPER_IN:		return value >= a && value <= b;
	default:		return value < a || value > b;
	}
}

/* Signed numbers are in the order of unsigned ones when their sign bit is turned over. */
static bool test_compare(const struct hook_test *test, u64 value)
{
	const u64 sign = 1ULL << 63;

	if (test->flags & HYPER_TEST_INT)
		value = (s64)(s32)value;
	value &= test->mask;
	if (test->flags & (HYPER_TEST_SIGNED | HYPER_TEST_INT))
		return compare_unsigned(test->compare, value ^ sign, test->a ^ sign,
					test->b ^ sign);
	return compare_unsigned(test->compare, value, test->a, test->b);
}

static u64 number_of(const struct hook_test *test, const struct hook_frame *frame)
{
	switch (test->field) {
	case HYPER_FIELD_RETVAL:	return frame->retval;
	case HYPER_FIELD_PID:		return task_tgid_nr(current);
	case HYPER_FIELD_TID:		return task_pid_nr(current);
	case HYPER_FIELD_UID:		return from_kuid(&init_user_ns, current_euid());
	case HYPER_FIELD_NR:		return frame->nr;
	case HYPER_FIELD_COMPAT:	return frame->compat;
	default:			return frame->args[test->field - HYPER_FIELD_ARG0];
	}
}

static bool string_compare(const struct hook *hook, const struct hook_test *test,
			   const char *string, size_t size)
{
	const char *text = hook->text + test->a;
	size_t n = test->b;

	switch (test->compare) {
	case HYPER_EQ:		return size == n && !memcmp(string, text, n);
	case HYPER_NE:		return size != n || memcmp(string, text, n);
	case HYPER_BEGINS:	return size >= n && !memcmp(string, text, n);
	case HYPER_ENDS:	return size >= n && !memcmp(string + size - n, text, n);
	}
	for (; size >= n; string++, size--)
		if (!memcmp(string, text, n))
			return true;
	return false;
}

/* A string of the process: it may have to be fetched from where the machine has put it. */
static enum hook_match test_user_string(const struct hook *hook, const struct hook_test *test,
					const struct hook_frame *frame)
{
	const char __user *from = (const char __user *)(unsigned long)
				  frame->args[test->field - HYPER_FIELD_ARG0];
	char *string = kmalloc(HYPER_STRING_MAX, GFP_KERNEL);
	enum hook_match match = HOOK_PERHAPS;
	long n, mapped;

	if (!string)
		return match;
	/* A fault just below the stack would make it longer. */
	mapped = hypermem_mem_mapped(current->mm, hypermem_untagged((unsigned long)from),
				     HYPER_STRING_MAX);
	n = mapped ? strncpy_from_user(string, from, mapped) : -EFAULT;
	if (n >= 0 && n < mapped)
		match = string_compare(hook, test, string, n);
	kfree(string);
	cond_resched();		/* a millisecond's work, of which there may be many */
	return match;
}

/* It returns as somebody else, perhaps; what it is called by tells nothing of that. */
static bool test_is_early(const struct hook *hook, const struct hook_test *test,
			  const struct hook_frame *frame)
{
	return frame->probe->renames && (hook->flags & HYPER_HOOK_RETURN) &&
	       (test->field == HYPER_FIELD_COMM || test->field == HYPER_FIELD_UID);
}

static enum hook_match test_run(const struct hook *hook, const struct hook_test *test,
				const struct hook_frame *frame, bool deep)
{
	if (!deep && test_is_early(hook, test, frame))
		return HOOK_PERHAPS;
	if (test->test == HYPER_TEST_NUMBER) {
		if (test->field == HYPER_FIELD_RETVAL && !frame->returns)
			return HOOK_PERHAPS;
		return test_compare(test, number_of(test, frame));
	}
	if (test->field == HYPER_FIELD_COMM)
		return string_compare(hook, test, current->comm,
				      strnlen(current->comm, TASK_COMM_LEN));
	return deep ? test_user_string(hook, test, frame) : HOOK_PERHAPS;
}

static enum hook_match match_and(enum hook_match a, enum hook_match b)
{
	if (a == HOOK_NO || b == HOOK_NO)
		return HOOK_NO;
	return a == HOOK_YES && b == HOOK_YES ? HOOK_YES : HOOK_PERHAPS;
}

static enum hook_match match_not(enum hook_match a)
{
	return a == HOOK_PERHAPS ? a : a == HOOK_NO;
}

enum hook_match hook_filter(const struct hook *hook, const struct hook_frame *frame, bool deep)
{
	u8 stack[HYPER_TESTS_MAX];
	unsigned int depth = 0, i;

	for (i = 0; i < hook->n_tests; i++) {
		const struct hook_test *test = &hook->tests[i];

		switch (test->test) {
		case HYPER_TEST_AND:
			depth--;
			stack[depth - 1] = match_and(stack[depth - 1], stack[depth]);
			break;
		case HYPER_TEST_OR:	/* not (not a and not b) */
			depth--;
			stack[depth - 1] = match_not(match_and(match_not(stack[depth - 1]),
							       match_not(stack[depth])));
			break;
		case HYPER_TEST_NOT:
			stack[depth - 1] = match_not(stack[depth - 1]);
			break;
		default:
			stack[depth++] = test_run(hook, test, frame, deep);
		}
	}
	return hook->n_tests ? stack[0] : HOOK_YES;
}
