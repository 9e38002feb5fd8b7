// SPDX-License-Identifier: MIT
/*
 * hook_filter: from a text to a program.  See hook_filter.h.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "fs/hook_parser.h"
#include "fs/number.h"

static const struct option {
	const char *name;
	uint32_t flag;		/* HYPER_HOOK_* */
} options[] = {
	{ "enter", HYPER_HOOK_ENTER },
	{ "return", HYPER_HOOK_RETURN },
	{ "trace", HYPER_HOOK_TRACE },
	{ "regs", HYPER_HOOK_REGS },
};

bool hmfs_filter_is_option(const char *at, size_t size)
{
	for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
		if (hmfs_parser_is_word(at, size, options[i].name))
			return true;
	return false;
}

static int put_name(struct hmfs_parser *p, const char *at, const char *name, size_t size)
{
	struct hm_filter *filter = p->filter;

	if (size > 4 && memcmp(name, "sys_", 4) == 0)
		return hmfs_parser_fail(p, at, "names of calls are without sys_");
	if (size + 1 >= HYPER_CALL_NAME_SIZE)
		return hmfs_parser_fail(p, at, "no call has so long a name");
	if (size + 1 > sizeof(filter->names) - filter->names_size)
		return hmfs_parser_fail(p, at, "more than %d bytes of names", HYPER_HOOK_TEXT_MAX);
	memcpy(filter->names + filter->names_size, name, size);
	filter->names[filter->names_size + size] = 0;
	filter->names_size += (uint16_t)(size + 1);
	return 0;
}

static int parse_all(struct hmfs_parser *p, const char *at)
{
	if (hmfs_parser_take_sign(p, ","))
		return hmfs_parser_fail(p, at, "* stands alone: it is every call");
	return put_name(p, at, "*", 1);
}

static int parse_calls(struct hmfs_parser *p)
{
	const char *at;
	bool more;
	int rc;

	hmfs_parser_skip_space(p);
	at = p->at;
	if (hmfs_parser_take_sign(p, "*") || hmfs_parser_take_word(p, "all"))
		return parse_all(p, at);
	do {
		size_t size;

		hmfs_parser_skip_space(p);
		at = p->at;
		size = hmfs_parser_span(p, hmfs_parser_is_name);
		if (!size)
			return hmfs_parser_fail(p, at, "a call's name is missing");
		p->at += size;
		rc = put_name(p, at, at, size);
		more = hmfs_parser_take_sign(p, ",");
	} while (rc == 0 && more);
	return rc;
}

static bool take_option(struct hmfs_parser *p)
{
	for (size_t i = 0; i < G_N_ELEMENTS(options); i++)
		if (hmfs_parser_take_word(p, options[i].name)) {
			p->filter->flags |= options[i].flag;
			return true;
		}
	return false;
}

static int parse_filter(struct hmfs_parser *p)
{
	int rc = parse_calls(p);

	if (rc < 0)
		return rc;
	if (p->at < p->end && !hmfs_parser_is_space(p->at[-1]))
		return hmfs_parser_fail(p, p->at, "this is not of a call's name");
	while (take_option(p))
		;
	if (!(p->filter->flags & (HYPER_HOOK_ENTER | HYPER_HOOK_RETURN)))
		p->filter->flags |= HYPER_HOOK_ENTER;
	if (hmfs_parser_at_end(p))
		return 0;
	rc = hmfs_parser_tests(p);
	if (rc == 0 && !hmfs_parser_at_end(p))
		rc = hmfs_parser_fail(p, p->at, hmfs_parser_starts_with(p, ")") ?
							"this ) closes nothing" :
							"this belongs to no test");
	return rc;
}

int hmfs_filter_parse(const char *text, size_t size, struct hm_filter *ret,
		      struct hmfs_filter_error *ret_error)
{
	struct hmfs_parser p = { .text = text, .at = text, .end = text + size, .filter = ret,
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

/* Of the control characters one alone has its place in a line. */
static bool is_shown(char c)
{
	return c == '\t' || !g_ascii_iscntrl(c);
}

char *hmfs_filter_complaint(const char *text, size_t size, const struct hmfs_filter_error *error)
{
	g_autoptr(GString) lines = g_string_sized_new(2 * size + sizeof(error->reason) + 32);
	size_t offset;

	/* What is missing at the end is so before the newline that a shell's echo adds. */
	size = hmfs_line_size(text, size);
	offset = MIN(error->offset, size);
	while (size > offset && hmfs_parser_is_space(text[size - 1]))
		size--;
	/* One line, and one text, whatever it was, so that the caret is below the right place. */
	for (size_t i = 0; i < size; i++)
		g_string_append_c(lines, is_shown(text[i]) ? text[i] : ' ');
	g_string_append_c(lines, '\n');
	for (size_t i = 0; i < offset; i++)
		if ((text[i] & 0xc0) != 0x80)
			g_string_append_c(lines, text[i] == '\t' ? '\t' : ' ');
	g_string_append_printf(lines, "^\nerror: column %zu: %s\n", column_of(text, offset),
			       error->reason);
	return g_string_free(g_steal_pointer(&lines), FALSE);
}
