// SPDX-License-Identifier: MIT
/*
 * hook_filter: from a text to a program.  See hook_filter.h.
 *
 * A recursive descent without a scanner: what a word may be depends on where it stands.
 * The program is postfix, so each rule appends to it when it has been read.
 */
#include <errno.h>
#include <glib.h>
#include <stdarg.h>
#include <string.h>

#include "fs/hook_filter.h"
#include "fs/number.h"

#define DEPTH_MAX 64	/* parentheses and nots within one another */
#define COMM_MAX 15	/* bytes of comm, without its NUL */

struct parser {
	const char *text, *at, *end;
	struct hm_filter *filter;
	struct hmfs_filter_error *error;
	unsigned int depth;
};

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

static const struct option {
	const char *name;
	uint32_t flag;		/* HYPER_HOOK_* */
} options[] = {
	{ "enter", HYPER_HOOK_ENTER },
	{ "return", HYPER_HOOK_RETURN },
	{ "trace", HYPER_HOOK_TRACE },
	{ "regs", HYPER_HOOK_REGS },
};

/* -- text ------------------------------------------------------------------------------ */

static int fail_at(struct parser *p, const char *at, const char *format, ...) G_GNUC_PRINTF(3, 4);

static int fail_at(struct parser *p, const char *at, const char *format, ...)
{
	va_list args;

	p->error->offset = (size_t)(at - p->text);
	va_start(args, format);
	g_vsnprintf(p->error->reason, sizeof(p->error->reason), format, args);
	va_end(args);
	return -EINVAL;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Of a name of a call, a field, an option. */
static bool is_name_char(char c)
{
	return g_ascii_isalnum(c) || c == '_';
}

/* Of a value without quotes: all that is no operator and means nothing to the language. */
static bool is_value_char(char c)
{
	return g_ascii_isalnum(c) || (c && strchr("_-./:+@%~#[]", c)) || (c & 0x80);
}

static void skip_space(struct parser *p)
{
	while (p->at < p->end && is_space(*p->at))
		p->at++;
}

static bool at_end(struct parser *p)
{
	skip_space(p);
	return p->at == p->end;
}

static size_t span(const struct parser *p, bool (*is_part)(char c))
{
	const char *end = p->at;

	while (end < p->end && is_part(*end))
		end++;
	return (size_t)(end - p->at);
}

static bool is_word(const char *at, size_t size, const char *word)
{
	return strlen(word) == size && memcmp(at, word, size) == 0;
}

/* Take a name if it is that one. */
static bool take_word(struct parser *p, const char *word)
{
	size_t size;

	skip_space(p);
	size = span(p, is_name_char);
	if (!is_word(p->at, size, word))
		return false;
	p->at += size;
	return true;
}

static bool starts_with(const struct parser *p, const char *sign)
{
	size_t size = strlen(sign);

	return (size_t)(p->end - p->at) >= size && memcmp(p->at, sign, size) == 0;
}

static bool take_sign(struct parser *p, const char *sign)
{
	skip_space(p);
	if (!starts_with(p, sign))
		return false;
	p->at += strlen(sign);
	return true;
}

/* -- the program --------------------------------------------------------------------------- */

static int emit(struct parser *p, const char *at, const struct hm_test *test)
{
	if (p->filter->n_tests == HYPER_TESTS_MAX)
		return fail_at(p, at, "more than %d tests, ands, ors and nots", HYPER_TESTS_MAX);
	p->filter->tests[p->filter->n_tests++] = *test;
	return 0;
}

static int emit_step(struct parser *p, const char *at, enum HYPER_TEST step)
{
	const struct hm_test test = { .test = (uint8_t)step };

	return emit(p, at, &test);
}

/* -- values ---------------------------------------------------------------------------------- */

static int number_parse(struct parser *p, const char *at, size_t size, const char *what,
			uint64_t *ret, bool *ret_negative)
{
	int rc = hmfs_signed_parse(at, size, ret, ret_negative);

	if (rc == -ERANGE)
		return fail_at(p, at, "%s is too large", what);
	if (rc < 0 && size && g_ascii_isdigit(at[0]) && size > 1 && at[0] == '0')
		return fail_at(p, at, "%s is no number: a leading 0 is neither decimal nor 0x", what);
	return rc < 0 ? fail_at(p, at, "%s is no number", what) : 0;
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
static int check_signed(struct parser *p, const char *at, const struct field *field,
			bool any_negative, uint64_t number, bool negative)
{
	if ((field->is_signed || any_negative) && !negative && number > INT64_MAX)
		return fail_at(p, at, "the number is too large to have a sign, as %s has here",
			       field->name);
	return 0;
}

static const char *find_dots(const char *at, size_t size)
{
	return g_strstr_len(at, (gssize)size, "..");
}

static int parse_range(struct parser *p, const struct field *field, size_t size, const char *dots,
		       struct hm_test *test)
{
	const char *low = p->at, *high = dots + 2;
	size_t high_size = size - (size_t)(high - low);
	bool low_negative, high_negative, is_signed;
	int rc;

	if (test->compare != HYPER_EQ && test->compare != HYPER_NE)
		return fail_at(p, low, "a range goes with == and != only");
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
		return fail_at(p, low, "the range ends before it begins");
	test->compare = test->compare == HYPER_EQ ? HYPER_IN : HYPER_NOT_IN;
	p->at += size;
	test_set_sign(field, test, is_signed);
	return 0;
}

static int parse_number(struct parser *p, const struct field *field, struct hm_test *test)
{
	const char *at = p->at, *dots;
	size_t size = span(p, is_value_char);
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

static int put_text_byte(struct parser *p, const char *at, char byte)
{
	struct hm_filter *filter = p->filter;

	if (!byte)
		return fail_at(p, at, "a string has no NUL");
	if (filter->text_size == sizeof(filter->text))
		return fail_at(p, at, "more than %d bytes of strings", HYPER_HOOK_TEXT_MAX);
	filter->text[filter->text_size++] = byte;
	return 0;
}

/* Behind the backslash. */
static int parse_escape(struct parser *p)
{
	static const char escapes[] = "\"\"\\\\n\nt\t";
	const char *at = p->at - 1;
	int high, low;

	if (p->at == p->end)
		return fail_at(p, at, "the string does not end");
	for (const char *e = escapes; *e; e += 2)
		if (*e == *p->at) {
			p->at++;
			return put_text_byte(p, at, e[1]);
		}
	if (*p->at != 'x')
		return fail_at(p, at, "not one of \\\" \\\\ \\n \\t \\xHH");
	high = p->end - p->at > 2 ? g_ascii_xdigit_value(p->at[1]) : -1;
	low = high >= 0 ? g_ascii_xdigit_value(p->at[2]) : -1;
	if (low < 0)
		return fail_at(p, at, "\\x needs two hexadecimal digits");
	p->at += 3;
	return put_text_byte(p, at, (char)(high << 4 | low));
}

static int parse_quoted(struct parser *p)
{
	const char *quote = p->at++;

	while (p->at < p->end && *p->at != '"') {
		const char *at = p->at++;
		int rc = *at == '\\' ? parse_escape(p) : put_text_byte(p, at, *at);

		if (rc < 0)
			return rc;
	}
	if (p->at == p->end)
		return fail_at(p, quote, "the string does not end");
	p->at++;
	return 0;
}

static int parse_bare(struct parser *p)
{
	size_t size = span(p, is_value_char);
	int rc = 0;

	if (!size)
		return fail_at(p, p->at, "a word or a \"string\" is missing");
	for (; size && rc == 0; size--, p->at++)
		rc = put_text_byte(p, p->at, *p->at);
	return rc;
}

static int parse_string(struct parser *p, struct hm_test *test)
{
	const char *at = p->at;
	int rc;

	test->a = p->filter->text_size;
	rc = p->at < p->end && *p->at == '"' ? parse_quoted(p) : parse_bare(p);
	if (rc < 0)
		return rc;
	test->b = p->filter->text_size - test->a;
	if (test->field == HYPER_FIELD_COMM && test->b > COMM_MAX)
		return fail_at(p, at, "comm never has more than %d bytes", COMM_MAX);
	return 0;
}

/* -- tests ----------------------------------------------------------------------------------- */

static const struct operator *take_operator(struct parser *p)
{
	skip_space(p);
	for (size_t i = 0; i < G_N_ELEMENTS(operators); i++)
		if (take_sign(p, operators[i].sign))
			return &operators[i];
	return NULL;
}

/* FIELD OP: of *ret, the comparison. */
static int parse_operator(struct parser *p, const char *name, bool is_text, struct hm_test *ret)
{
	const struct operator *operator;
	const char *at;

	skip_space(p);
	at = p->at;
	operator = take_operator(p);
	if (!operator)
		return fail_at(p, at, "an operator is missing behind %s", name);
	if (is_text && !operator->texts)
		return fail_at(p, at, "%s is for numbers, and %s is text", operator->sign, name);
	if (!is_text && !operator->numbers)
		return fail_at(p, at, "%s is for text, and %s is a number", operator->sign, name);
	ret->compare = operator->compare;
	skip_space(p);
	return 0;
}

/* `FIELD &' has been read.  A mask alone: any of its bits. */
static int parse_mask(struct parser *p, const struct field *field, struct hm_test *test)
{
	const char *at;
	bool negative;
	size_t size;
	int rc;

	skip_space(p);
	at = p->at;
	size = span(p, is_value_char);
	rc = number_parse(p, at, size, "the mask", &test->mask, &negative);
	if (rc < 0)
		return rc;
	if (!test->mask)
		return fail_at(p, at, "a mask of no bits");
	p->at += size;
	skip_space(p);
	for (size_t i = 0; i < G_N_ELEMENTS(operators); i++)
		if (starts_with(p, operators[i].sign)) {
			rc = parse_operator(p, field->name, false, test);
			return rc < 0 ? rc : parse_number(p, field, test);
		}
	test->compare = HYPER_NE;
	return 0;
}

static int parse_number_test(struct parser *p, const struct field *field, struct hm_test *test)
{
	int rc;

	test->test = HYPER_TEST_NUMBER;
	test->mask = UINT64_MAX;
	skip_space(p);
	if (!starts_with(p, "&&") && take_sign(p, "&"))
		return parse_mask(p, field, test);
	rc = parse_operator(p, field->name, false, test);
	return rc < 0 ? rc : parse_number(p, field, test);
}

static int parse_text_test(struct parser *p, const char *name, struct hm_test *test)
{
	int rc = parse_operator(p, name, true, test);

	test->test = HYPER_TEST_STRING;
	return rc < 0 ? rc : parse_string(p, test);
}

static const struct field *find_field(const char *at, size_t size)
{
	for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
		if (is_word(at, size, fields[i].name))
			return &fields[i];
	return NULL;
}

/* Behind `str'. */
static int parse_str_test(struct parser *p, struct hm_test *test)
{
	const struct field *field;
	const char *at;
	size_t size;

	if (!take_sign(p, "("))
		return fail_at(p, p->at, "str needs an argument: str(arg0)");
	skip_space(p);
	at = p->at;
	size = span(p, is_name_char);
	field = find_field(at, size);
	if (!field || field->field > HYPER_FIELD_ARG0 + 5)
		return fail_at(p, at, "str is of one of arg0 to arg5");
	p->at += size;
	if (!take_sign(p, ")"))
		return fail_at(p, p->at, "a ) is missing");
	test->field = field->field;
	return parse_text_test(p, "str()", test);
}

static bool is_option(const char *at, size_t size)
{
	for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
		if (is_word(at, size, options[i].name))
			return true;
	return false;
}

static int parse_test(struct parser *p)
{
	const struct field *field;
	struct hm_test test = {};
	const char *at = p->at;
	size_t size = span(p, is_name_char);
	int rc;

	if (is_option(at, size))
		return fail_at(p, at, "%.*s belongs before the tests", (int)size, at);
	field = find_field(at, size);
	p->at += size;
	if (field) {
		test.field = field->field;
		rc = field->is_text ? parse_text_test(p, field->name, &test) :
				      parse_number_test(p, field, &test);
	} else if (is_word(at, size, "str")) {
		rc = parse_str_test(p, &test);
	} else if (size) {
		rc = fail_at(p, at, "'%.*s' is nothing that can be tested", (int)MIN(size, 32), at);
	} else {
		rc = fail_at(p, at, "a test is missing");
	}
	return rc < 0 ? rc : emit(p, at, &test);
}

static int parse_or(struct parser *p);

static int parse_parentheses(struct parser *p, const char *at)
{
	int rc = parse_or(p);

	if (rc < 0)
		return rc;
	return take_sign(p, ")") ? 0 : fail_at(p, at, "this ( is not closed");
}

static bool take_not(struct parser *p)
{
	return (!starts_with(p, "!=") && take_sign(p, "!")) || take_word(p, "not");
}

static int parse_not(struct parser *p)
{
	const char *at;
	int rc;

	skip_space(p);
	at = p->at;
	if (p->depth == DEPTH_MAX)
		return fail_at(p, at, "more than %d parentheses and nots in one another", DEPTH_MAX);
	p->depth++;
	if (take_not(p)) {
		rc = parse_not(p);
		if (rc == 0)
			rc = emit_step(p, at, HYPER_TEST_NOT);
	} else if (take_sign(p, "(")) {
		rc = parse_parentheses(p, at);
	} else {
		rc = parse_test(p);
	}
	p->depth--;
	return rc;
}

/* Does `or', a closing parenthesis or the end follow? */
static bool at_end_of_and(struct parser *p)
{
	if (at_end(p) || starts_with(p, ")") || starts_with(p, "||"))
		return true;
	return is_word(p->at, span(p, is_name_char), "or");
}

static bool take_and(struct parser *p)
{
	return take_sign(p, "&&") || take_word(p, "and");
}

static int parse_and(struct parser *p)
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

static int parse_or(struct parser *p)
{
	int rc = parse_and(p);

	while (rc == 0 && !at_end(p) && !starts_with(p, ")")) {
		const char *at = p->at;

		if (!take_sign(p, "||") && !take_word(p, "or"))
			break;
		rc = parse_and(p);
		if (rc == 0)
			rc = emit_step(p, at, HYPER_TEST_OR);
	}
	return rc;
}

/* -- calls and options ---------------------------------------------------------------------- */

static int put_name(struct parser *p, const char *at, const char *name, size_t size)
{
	struct hm_filter *filter = p->filter;

	if (size + 1 >= HYPER_CALL_NAME_SIZE)
		return fail_at(p, at, "no call has so long a name");
	if (size + 1 > sizeof(filter->names) - filter->names_size)
		return fail_at(p, at, "more than %d bytes of names", HYPER_HOOK_TEXT_MAX);
	memcpy(filter->names + filter->names_size, name, size);
	filter->names[filter->names_size + size] = 0;
	filter->names_size += (uint16_t)(size + 1);
	return 0;
}

static int parse_all(struct parser *p, const char *at)
{
	if (take_sign(p, ","))
		return fail_at(p, at, "* stands alone: it is every call");
	return put_name(p, at, "*", 1);
}

static int parse_calls(struct parser *p)
{
	const char *at;
	bool more;
	int rc;

	skip_space(p);
	at = p->at;
	if (take_sign(p, "*") || take_word(p, "all"))
		return parse_all(p, at);
	do {
		size_t size;

		skip_space(p);
		at = p->at;
		size = span(p, is_name_char);
		if (!size)
			return fail_at(p, at, "a call's name is missing");
		p->at += size;
		rc = put_name(p, at, at, size);
		more = take_sign(p, ",");
	} while (rc == 0 && more);
	return rc;
}

static bool take_option(struct parser *p)
{
	for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
		if (take_word(p, options[i].name)) {
			p->filter->flags |= options[i].flag;
			return true;
		}
	return false;
}

static int parse_filter(struct parser *p)
{
	int rc = parse_calls(p);

	if (rc < 0)
		return rc;
	if (p->at < p->end && !is_space(p->at[-1]))
		return fail_at(p, p->at, "this is not of a call's name");
	while (take_option(p))
		;
	if (!(p->filter->flags & (HYPER_HOOK_ENTER | HYPER_HOOK_RETURN)))
		p->filter->flags |= HYPER_HOOK_ENTER;
	if (at_end(p))
		return 0;
	rc = parse_or(p);
	if (rc == 0 && !at_end(p))
		rc = fail_at(p, p->at, starts_with(p, ")") ? "this ) closes nothing" :
							     "this belongs to no test");
	return rc;
}

int hmfs_filter_parse(const char *text, size_t size, struct hm_filter *ret,
		      struct hmfs_filter_error *ret_error)
{
	struct parser p = { .text = text, .at = text, .end = text + size, .filter = ret,
			    .error = ret_error };

	memset(ret, 0, sizeof(*ret));
	return parse_filter(&p);
}

/* -- what is wrong ---------------------------------------------------------------------------- */

/* Characters, as far as bytes tell: those that continue one in UTF-8 are not counted. */
static size_t column_of(const char *text, size_t offset)
{
	size_t column = 1;

	for (size_t i = 0; i < offset; i++)
		column += (text[i] & 0xc0) != 0x80;
	return column;
}

char *hmfs_filter_complaint(const char *text, size_t size, const struct hmfs_filter_error *error)
{
	g_autoptr(GString) lines = g_string_sized_new(2 * size + sizeof(error->reason) + 32);
	size_t offset = MIN(error->offset, size);

	while (size > offset && is_space(text[size - 1]))
		size--;
	/* One line, whatever it was, so that the caret is below the right place. */
	for (size_t i = 0; i < size; i++)
		g_string_append_c(lines, text[i] == '\n' || text[i] == '\r' ? ' ' : text[i]);
	g_string_append_c(lines, '\n');
	for (size_t i = 0; i < offset; i++)
		if ((text[i] & 0xc0) != 0x80)
			g_string_append_c(lines, text[i] == '\t' ? '\t' : ' ');
	g_string_append_printf(lines, "^\nerror: column %zu: %s\n", column_of(text, offset),
			       error->reason);
	return g_string_free(g_steal_pointer(&lines), FALSE);
}
