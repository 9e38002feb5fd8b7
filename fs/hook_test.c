// SPDX-License-Identifier: MIT
/*
 * hook_test: the tests of a filter, by recursive descent.  See hook_parser.h.
 *
 * The program is postfix, so each rule appends to it when it has been read.
 */
#include <glib.h>

#include "fs/hook_parser.h"

#define DEPTH_MAX 64	/* parentheses and nots within one another */

/* What a test can look at. */
static const struct hmfs_field fields[] = {
	{ "arg0", HYPER_FIELD_ARG0 },
	{ "arg1", HYPER_FIELD_ARG0 + 1 },
	{ "arg2", HYPER_FIELD_ARG0 + 2 },
	{ "arg3", HYPER_FIELD_ARG0 + 3 },
	{ "arg4", HYPER_FIELD_ARG0 + 4 },
	{ "arg5", HYPER_FIELD_ARG0 + 5 },
	{ "retval", HYPER_FIELD_RETVAL, .is_signed = true },
	{ "pid", HYPER_FIELD_PID },
	{ "tid", HYPER_FIELD_TID },
	{ "uid", HYPER_FIELD_UID },
	{ "nr", HYPER_FIELD_NR },
	{ "compat", HYPER_FIELD_COMPAT },
	{ "comm", HYPER_FIELD_COMM, .is_text = true },
};

/* How it is compared; the longer ones first. */
static const struct operator {
	const char *sign;
	uint8_t compare;	/* enum HYPER_COMPARE */
	bool numbers, texts;
} operators[] = {
	{ "==", HYPER_EQ, true, true },
	{ "!=", HYPER_NE, true, true },
	{ "<=", HYPER_LE, true, false },
	{ ">=", HYPER_GE, true, false },
	{ "^=", HYPER_BEGINS, false, true },
	{ "$=", HYPER_ENDS, false, true },
	{ "*=", HYPER_CONTAINS, false, true },
	{ "=", HYPER_EQ, true, true },
	{ "<", HYPER_LT, true, false },
	{ ">", HYPER_GT, true, false },
};

/* -- the program --------------------------------------------------------------------------- */

static int emit(struct hmfs_parser *p, const char *at, const struct hm_test *test)
{
	if (p->filter->n_tests == HYPER_TESTS_MAX)
		return hmfs_parser_fail(p, at, "more than %d tests, ands, ors and nots", HYPER_TESTS_MAX);
	p->filter->tests[p->filter->n_tests++] = *test;
	return 0;
}

static int emit_step(struct hmfs_parser *p, const char *at, enum HYPER_TEST step)
{
	const struct hm_test test = { .test = (uint8_t)step };

	return emit(p, at, &test);
}

/* -- tests ----------------------------------------------------------------------------------- */

static const struct operator *take_operator(struct hmfs_parser *p)
{
	hmfs_parser_skip_space(p);
	for (size_t i = 0; i < G_N_ELEMENTS(operators); i++)
		if (hmfs_parser_take_sign(p, operators[i].sign))
			return &operators[i];
	return NULL;
}

/* FIELD OP: of *ret, the comparison. */
static int parse_operator(struct hmfs_parser *p, const char *name, bool is_text,
			  struct hm_test *ret)
{
	const struct operator *operator;
	const char *at;

	hmfs_parser_skip_space(p);
	at = p->at;
	operator = take_operator(p);
	if (!operator)
		return hmfs_parser_fail(p, at, "an operator is missing behind %s", name);
	if (is_text && !operator->texts)
		return hmfs_parser_fail(p, at, "%s is for numbers, and %s is text", operator->sign, name);
	if (!is_text && !operator->numbers)
		return hmfs_parser_fail(p, at, "%s is for text, and %s is a number", operator->sign, name);
	ret->compare = operator->compare;
	hmfs_parser_skip_space(p);
	return 0;
}

/* `FIELD &' has been read.  A mask alone: any of its bits. */
static int parse_mask(struct hmfs_parser *p, const struct hmfs_field *field, struct hm_test *test)
{
	int rc = hmfs_parser_mask(p, test);

	if (rc < 0)
		return rc;
	hmfs_parser_skip_space(p);
	for (size_t i = 0; i < G_N_ELEMENTS(operators); i++)
		if (hmfs_parser_starts_with(p, operators[i].sign)) {
			rc = parse_operator(p, field->name, false, test);
			return rc < 0 ? rc : hmfs_parser_number(p, field, test);
		}
	test->compare = HYPER_NE;
	return 0;
}

static int parse_number_test(struct hmfs_parser *p, const struct hmfs_field *field,
			     struct hm_test *test)
{
	int rc;

	test->test = HYPER_TEST_NUMBER;
	test->mask = UINT64_MAX;
	hmfs_parser_skip_space(p);
	if (!hmfs_parser_starts_with(p, "&&") && hmfs_parser_take_sign(p, "&"))
		return parse_mask(p, field, test);
	rc = parse_operator(p, field->name, false, test);
	return rc < 0 ? rc : hmfs_parser_number(p, field, test);
}

static int parse_text_test(struct hmfs_parser *p, const char *name, struct hm_test *test)
{
	int rc = parse_operator(p, name, true, test);

	test->test = HYPER_TEST_STRING;
	return rc < 0 ? rc : hmfs_parser_string(p, test);
}

static const struct hmfs_field *find_field(const char *at, size_t size)
{
	for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
		if (hmfs_parser_is_word(at, size, fields[i].name))
			return &fields[i];
	return NULL;
}

/* Behind `str'. */
static int parse_str_test(struct hmfs_parser *p, struct hm_test *test)
{
	const struct hmfs_field *field;
	const char *at;
	size_t size;

	if (!hmfs_parser_take_sign(p, "("))
		return hmfs_parser_fail(p, p->at, "str needs an argument: str(arg0)");
	hmfs_parser_skip_space(p);
	at = p->at;
	size = hmfs_parser_span(p, hmfs_parser_is_name);
	field = find_field(at, size);
	if (!field || field->field > HYPER_FIELD_ARG0 + 5)
		return hmfs_parser_fail(p, at, "str is of one of arg0 to arg5");
	p->at += size;
	if (!hmfs_parser_take_sign(p, ")"))
		return hmfs_parser_fail(p, p->at, "a ) is missing");
	test->field = field->field;
	return parse_text_test(p, "str()", test);
}

static int parse_test(struct hmfs_parser *p)
{
	const struct hmfs_field *field;
	struct hm_test test = {};
	const char *at = p->at;
	size_t size = hmfs_parser_span(p, hmfs_parser_is_name);
	int rc;

	if (hmfs_filter_is_option(at, size))
		return hmfs_parser_fail(p, at, "%.*s belongs before the tests", (int)size, at);
	field = find_field(at, size);
	p->at += size;
	if (field && field->field == HYPER_FIELD_RETVAL && !(p->filter->flags & HYPER_HOOK_RETURN)) {
		rc = hmfs_parser_fail(p, at, "there is a result when the call returns: put `return' before the tests");
	} else if (field) {
		test.field = field->field;
		rc = field->is_text ? parse_text_test(p, field->name, &test) :
				      parse_number_test(p, field, &test);
	} else if (hmfs_parser_is_word(at, size, "str")) {
		rc = parse_str_test(p, &test);
	} else if (size) {
		rc = hmfs_parser_fail(p, at, "'%.*s' is nothing that can be tested", (int)MIN(size, 32), at);
	} else {
		rc = hmfs_parser_fail(p, at, "a test is missing");
	}
	return rc < 0 ? rc : emit(p, at, &test);
}

static int parse_parentheses(struct hmfs_parser *p, const char *at)
{
	int rc = hmfs_parser_tests(p);

	if (rc < 0)
		return rc;
	return hmfs_parser_take_sign(p, ")") ? 0 : hmfs_parser_fail(p, at, "this ( is not closed");
}

static bool take_not(struct hmfs_parser *p)
{
	if (hmfs_parser_starts_with(p, "!="))
		return false;
	return hmfs_parser_take_sign(p, "!") || hmfs_parser_take_word(p, "not");
}

static int parse_not(struct hmfs_parser *p)
{
	const char *at;
	int rc;

	hmfs_parser_skip_space(p);
	at = p->at;
	if (p->depth == DEPTH_MAX)
		return hmfs_parser_fail(p, at, "more than %d parentheses and nots in one another", DEPTH_MAX);
	p->depth++;
	if (take_not(p)) {
		rc = parse_not(p);
		if (rc == 0)
			rc = emit_step(p, at, HYPER_TEST_NOT);
	} else if (hmfs_parser_take_sign(p, "(")) {
		rc = parse_parentheses(p, at);
	} else {
		rc = parse_test(p);
	}
	p->depth--;
	return rc;
}

/* Does `or', a closing parenthesis or the end follow? */
static bool at_end_of_and(struct hmfs_parser *p)
{
	if (hmfs_parser_at_end(p) || hmfs_parser_starts_with(p, ")") || hmfs_parser_starts_with(p, "||"))
		return true;
	return hmfs_parser_is_word(p->at, hmfs_parser_span(p, hmfs_parser_is_name), "or");
}

static bool take_and(struct hmfs_parser *p)
{
	return hmfs_parser_take_sign(p, "&&") || hmfs_parser_take_word(p, "and");
}

static int parse_and(struct hmfs_parser *p)
{
	int rc = parse_not(p);

	while (rc == 0 && !at_end_of_and(p)) {
		const char *at = p->at;

		take_and(p);
		rc = parse_not(p);
		if (rc == 0)
			rc = emit_step(p, at, HYPER_TEST_AND);
	}
	return rc;
}

int hmfs_parser_tests(struct hmfs_parser *p)
{
	int rc = parse_and(p);

	while (rc == 0 && !hmfs_parser_at_end(p) && !hmfs_parser_starts_with(p, ")")) {
		const char *at = p->at;

		if (!hmfs_parser_take_sign(p, "||") && !hmfs_parser_take_word(p, "or"))
			break;
		rc = parse_and(p);
		if (rc == 0)
			rc = emit_step(p, at, HYPER_TEST_OR);
	}
	return rc;
}
