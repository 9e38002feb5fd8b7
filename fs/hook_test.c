// SPDX-License-Identifier: MIT
/*
 * hook_test: the tests of a filter, by recursive descent.  See hook_parser.h.
 *
 * The program is postfix, so each rule appends to it when it has been read.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "fs/hook_parser.h"
#include "fs/number.h"

#define DEPTH_MAX 64	/* parentheses and nots within one another */
#define COMM_MAX 15	/* bytes of comm, without its NUL */

/* What a test can look at. */
static const struct field {
	const char *name;
	uint8_t field;		/* enum HYPER_FIELD */
	bool is_text;
	bool is_signed;
} fields[] = {
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

/* Of a value without quotes: all that is no operator and means nothing to the language. */
static bool is_value_char(char c)
{
	return g_ascii_isalnum(c) || (c && strchr("_-./:+@%~#[]", c)) || (c & 0x80);
}

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

/* -- values ---------------------------------------------------------------------------------- */

static int number_parse(struct hmfs_parser *p, const char *at, size_t size, const char *what,
			uint64_t *ret, bool *ret_negative)
{
	int rc = hmfs_signed_parse(at, size, ret, ret_negative);

	if (rc == -ERANGE)
		return hmfs_parser_fail(p, at, "%s is too large", what);
	if (rc < 0 && size && g_ascii_isdigit(at[0]) && size > 1 && at[0] == '0')
		return hmfs_parser_fail(p, at, "%s is no number: a leading 0 is neither decimal nor 0x", what);
	return rc < 0 ? hmfs_parser_fail(p, at, "%s is no number", what) : 0;
}

static bool fits_int(uint64_t number)
{
	return (int64_t)number >= INT32_MIN && (int64_t)number <= INT32_MAX;
}

/*
 * How numbers are compared: as the field is, or with a sign where a value has one.  An int
 * argument's upper half is not defined, so what may be an int is compared as one.
 */
static void test_set_sign(const struct field *field, struct hm_test *test, bool negative)
{
	if (!field->is_signed && !negative)
		return;
	test->flags = HYPER_TEST_SIGNED;
	if (field->field <= HYPER_FIELD_ARG0 + 5 && fits_int(test->a) && fits_int(test->b))
		test->flags |= HYPER_TEST_INT;
}

/* What is above 2^63 is no number with a sign. */
static int check_signed(struct hmfs_parser *p, const char *at, const struct field *field,
			bool any_negative, uint64_t number, bool negative)
{
	if ((field->is_signed || any_negative) && !negative && number > INT64_MAX)
		return hmfs_parser_fail(p, at, "the number is too large to have a sign, as %s has here",
			       field->name);
	return 0;
}

static const char *find_dots(const char *at, size_t size)
{
	return g_strstr_len(at, (gssize)size, "..");
}

static int parse_range(struct hmfs_parser *p, const struct field *field, size_t size,
		       const char *dots, struct hm_test *test)
{
	const char *low = p->at, *high = dots + 2;
	size_t high_size = size - (size_t)(high - low);
	bool low_negative, high_negative, is_signed;
	int rc;

	if (test->compare != HYPER_EQ && test->compare != HYPER_NE)
		return hmfs_parser_fail(p, low, "a range goes with == and != only");
	rc = number_parse(p, low, (size_t)(dots - low), "the range's beginning", &test->a,
			  &low_negative);
	if (rc == 0)
		rc = number_parse(p, high, high_size, "the range's end", &test->b, &high_negative);
	if (rc < 0)
		return rc;
	is_signed = low_negative || high_negative;
	rc = check_signed(p, low, field, is_signed, test->a, low_negative);
	if (rc == 0)
		rc = check_signed(p, high, field, is_signed, test->b, high_negative);
	if (rc < 0)
		return rc;
	if (is_signed || field->is_signed ? (int64_t)test->a > (int64_t)test->b :
					    test->a > test->b)
		return hmfs_parser_fail(p, low, "the range ends before it begins");
	test->compare = test->compare == HYPER_EQ ? HYPER_IN : HYPER_NOT_IN;
	p->at += size;
	test_set_sign(field, test, is_signed);
	return 0;
}

static int parse_number(struct hmfs_parser *p, const struct field *field, struct hm_test *test)
{
	const char *at = p->at, *dots;
	size_t size = hmfs_parser_span(p, is_value_char);
	bool negative;
	int rc;

	dots = find_dots(at, size);
	if (dots)
		return parse_range(p, field, size, dots, test);
	rc = number_parse(p, at, size, "the value", &test->a, &negative);
	if (rc == 0)
		rc = check_signed(p, at, field, false, test->a, negative);
	if (rc < 0)
		return rc;
	p->at += size;
	test_set_sign(field, test, negative);
	return 0;
}

static int put_text_byte(struct hmfs_parser *p, const char *at, char byte)
{
	struct hm_filter *filter = p->filter;

	if (!byte)
		return hmfs_parser_fail(p, at, "a string has no NUL");
	if (filter->text_size == sizeof(filter->text))
		return hmfs_parser_fail(p, at, "more than %d bytes of strings", HYPER_HOOK_TEXT_MAX);
	filter->text[filter->text_size++] = byte;
	return 0;
}

/* Behind the backslash. */
static int parse_escape(struct hmfs_parser *p)
{
	static const char escapes[] = "\"\"\\\\n\nt\t";
	const char *at = p->at - 1;
	int high, low;

	if (p->at == p->end)
		return hmfs_parser_fail(p, at, "the string does not end");
	for (const char *e = escapes; *e; e += 2)
		if (*e == *p->at) {
			p->at++;
			return put_text_byte(p, at, e[1]);
		}
	if (*p->at != 'x')
		return hmfs_parser_fail(p, at, "not one of \\\" \\\\ \\n \\t \\xHH");
	high = p->end - p->at > 2 ? g_ascii_xdigit_value(p->at[1]) : -1;
	low = high >= 0 ? g_ascii_xdigit_value(p->at[2]) : -1;
	if (low < 0)
		return hmfs_parser_fail(p, at, "\\x needs two hexadecimal digits");
	p->at += 3;
	return put_text_byte(p, at, (char)(high << 4 | low));
}

static int parse_quoted(struct hmfs_parser *p)
{
	const char *quote = p->at++;

	while (p->at < p->end && *p->at != '"') {
		const char *at = p->at++;
		int rc = *at == '\\' ? parse_escape(p) : put_text_byte(p, at, *at);

		if (rc < 0)
			return rc;
	}
	if (p->at == p->end)
		return hmfs_parser_fail(p, quote, "the string does not end");
	p->at++;
	return 0;
}

static int parse_bare(struct hmfs_parser *p)
{
	size_t size = hmfs_parser_span(p, is_value_char);
	int rc = 0;

	if (!size)
		return hmfs_parser_fail(p, p->at, "a word or a \"string\" is missing");
	for (; size && rc == 0; size--, p->at++)
		rc = put_text_byte(p, p->at, *p->at);
	return rc;
}

static int parse_string(struct hmfs_parser *p, struct hm_test *test)
{
	const char *at = p->at;
	int rc;

	test->a = p->filter->text_size;
	rc = p->at < p->end && *p->at == '"' ? parse_quoted(p) : parse_bare(p);
	if (rc < 0)
		return rc;
	test->b = p->filter->text_size - test->a;
	if (test->field == HYPER_FIELD_COMM && test->b > COMM_MAX)
		return hmfs_parser_fail(p, at, "comm never has more than %d bytes", COMM_MAX);
	return 0;
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
static int parse_mask(struct hmfs_parser *p, const struct field *field, struct hm_test *test)
{
	const char *at;
	bool negative;
	size_t size;
	int rc;

	hmfs_parser_skip_space(p);
	at = p->at;
	size = hmfs_parser_span(p, is_value_char);
	rc = number_parse(p, at, size, "the mask", &test->mask, &negative);
	if (rc < 0)
		return rc;
	if (!test->mask)
		return hmfs_parser_fail(p, at, "a mask of no bits");
	p->at += size;
	hmfs_parser_skip_space(p);
	for (size_t i = 0; i < G_N_ELEMENTS(operators); i++)
		if (hmfs_parser_starts_with(p, operators[i].sign)) {
			rc = parse_operator(p, field->name, false, test);
			return rc < 0 ? rc : parse_number(p, field, test);
		}
	test->compare = HYPER_NE;
	return 0;
}

static int parse_number_test(struct hmfs_parser *p, const struct field *field, struct hm_test *test)
{
	int rc;

	test->test = HYPER_TEST_NUMBER;
	test->mask = UINT64_MAX;
	hmfs_parser_skip_space(p);
	if (!hmfs_parser_starts_with(p, "&&") && hmfs_parser_take_sign(p, "&"))
		return parse_mask(p, field, test);
	rc = parse_operator(p, field->name, false, test);
	return rc < 0 ? rc : parse_number(p, field, test);
}

static int parse_text_test(struct hmfs_parser *p, const char *name, struct hm_test *test)
{
	int rc = parse_operator(p, name, true, test);

	test->test = HYPER_TEST_STRING;
	return rc < 0 ? rc : parse_string(p, test);
}

static const struct field *find_field(const char *at, size_t size)
{
	for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
		if (hmfs_parser_is_word(at, size, fields[i].name))
			return &fields[i];
	return NULL;
}

/* Behind `str'. */
static int parse_str_test(struct hmfs_parser *p, struct hm_test *test)
{
	const struct field *field;
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
	const struct field *field;
	struct hm_test test = {};
	const char *at = p->at;
	size_t size = hmfs_parser_span(p, hmfs_parser_is_name);
	int rc;

	if (hmfs_filter_is_option(at, size))
		return hmfs_parser_fail(p, at, "%.*s belongs before the tests", (int)size, at);
	field = find_field(at, size);
	p->at += size;
	if (field) {
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
