/* SPDX-License-Identifier: MIT */
/*
 * hook_parser: the text of a filter as it is being read, for hook_filter.c (calls and
 * options), hook_test.c (tests) and hook_value.c (what they compare with).
 */
#ifndef HMFS_HOOK_PARSER_H
#define HMFS_HOOK_PARSER_H

#include "fs/hook_filter.h"

struct hmfs_parser {
	const char *text, *at, *end;
	struct hm_filter *filter;
	struct hmfs_filter_error *error;
	unsigned int depth;
};

/* The filter is wrong at `at`: -EINVAL. */
int hmfs_parser_fail(struct hmfs_parser *p, const char *at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

bool hmfs_parser_is_space(char c);
/* Of a name of a call, a field, an option. */
bool hmfs_parser_is_name(char c);
bool hmfs_parser_is_word(const char *at, size_t size, const char *word);

void hmfs_parser_skip_space(struct hmfs_parser *p);
/* Behind space. */
bool hmfs_parser_at_end(struct hmfs_parser *p);
/* How many such characters there are from here on. */
size_t hmfs_parser_span(const struct hmfs_parser *p, bool (*is_part)(char c));
bool hmfs_parser_starts_with(const struct hmfs_parser *p, const char *sign);
/* Behind space, take a name, or a sign, if it is that one. */
bool hmfs_parser_take_word(struct hmfs_parser *p, const char *word);
bool hmfs_parser_take_sign(struct hmfs_parser *p, const char *sign);

/* What a test can look at. */
struct hmfs_field {
	const char *name;
	uint8_t field;		/* enum HYPER_FIELD */
	bool is_text;
	bool is_signed;
};

/* hook_value.c: into *test, whose field and comparison are there already. */
int hmfs_parser_mask(struct hmfs_parser *p, struct hm_test *test);
int hmfs_parser_number(struct hmfs_parser *p, const struct hmfs_field *field,
		       struct hm_test *test);
int hmfs_parser_string(struct hmfs_parser *p, struct hm_test *test);

/* hook_test.c: tests with `or' between them, as far as they go. */
int hmfs_parser_tests(struct hmfs_parser *p);

/* hook_filter.c */
bool hmfs_filter_is_option(const char *at, size_t size);

#endif
