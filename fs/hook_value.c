// SPDX-License-Identifier: MIT
/*
 * hook_value: what stands behind the operator of a test, a number, a range or a text.
 * See hook_parser.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "fs/hook_parser.h"
#include "fs/number.h"

#define COMM_MAX 15	/* bytes of comm, without its NUL */

/* Of a value without quotes: all that is no operator and means nothing to the language. */
static bool is_value_char(char c)
{
	return g_ascii_isalnum(c) || (c && strchr("_-./:+@%~#[]", c)) || (c & 0x80);
}

/* -- numbers --------------------------------------------------------------------------------- */

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
static void test_set_sign(const struct hmfs_field *field, struct hm_test *test, bool negative)
{
	if (!field->is_signed && !negative)
		return;
	test->flags = HYPER_TEST_SIGNED;
	if (field->field <= HYPER_FIELD_ARG0 + 5 && fits_int(test->a) && fits_int(test->b))
		test->flags |= HYPER_TEST_INT;
}

/* What is above 2^63 is no number with a sign. */
static int check_signed(struct hmfs_parser *p, const char *at, const struct hmfs_field *field,
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

static int parse_range(struct hmfs_parser *p, const struct hmfs_field *field, size_t size,
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

int hmfs_parser_number(struct hmfs_parser *p, const struct hmfs_field *field, struct hm_test *test)
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

int hmfs_parser_mask(struct hmfs_parser *p, struct hm_test *test)
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
	return 0;
}

/* -- text ------------------------------------------------------------------------------------ */

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

int hmfs_parser_string(struct hmfs_parser *p, struct hm_test *test)
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
