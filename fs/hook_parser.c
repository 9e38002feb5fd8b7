// SPDX-License-Identifier: MIT
/*
 * hook_parser: words and signs of a filter's text.  See hook_parser.h.
 *
 * There is no scanner: what a word may be depends on where it stands.
 */
#include <errno.h>
#include <glib.h>
#include <stdarg.h>
#include <string.h>

#include "fs/hook_parser.h"

int hmfs_parser_fail(struct hmfs_parser *p, const char *at, const char *format, ...)
{
	va_list args;

	p->error->offset = (size_t)(at - p->text);
	va_start(args, format);
	g_vsnprintf(p->error->reason, sizeof(p->error->reason), format, args);
	va_end(args);
	return -EINVAL;
}

bool hmfs_parser_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool hmfs_parser_is_name(char c)
{
	return g_ascii_isalnum(c) || c == '_';
}

void hmfs_parser_skip_space(struct hmfs_parser *p)
{
	while (p->at < p->end && hmfs_parser_is_space(*p->at))
		p->at++;
}

bool hmfs_parser_at_end(struct hmfs_parser *p)
{
	hmfs_parser_skip_space(p);
	return p->at == p->end;
}

size_t hmfs_parser_span(const struct hmfs_parser *p, bool (*is_part)(char c))
{
	const char *end = p->at;

	while (end < p->end && is_part(*end))
		end++;
	return (size_t)(end - p->at);
}

bool hmfs_parser_is_word(const char *at, size_t size, const char *word)
{
	return strlen(word) == size && memcmp(at, word, size) == 0;
}

bool hmfs_parser_take_word(struct hmfs_parser *p, const char *word)
{
	size_t size;

	hmfs_parser_skip_space(p);
	size = hmfs_parser_span(p, hmfs_parser_is_name);
	if (!hmfs_parser_is_word(p->at, size, word))
		return false;
	p->at += size;
	return true;
}

bool hmfs_parser_starts_with(const struct hmfs_parser *p, const char *sign)
{
	size_t size = strlen(sign);

	return (size_t)(p->end - p->at) >= size && memcmp(p->at, sign, size) == 0;
}

bool hmfs_parser_take_sign(struct hmfs_parser *p, const char *sign)
{
	hmfs_parser_skip_space(p);
	if (!hmfs_parser_starts_with(p, sign))
		return false;
	p->at += strlen(sign);
	return true;
}
