// SPDX-License-Identifier: MIT
/*
 * fuzz_words: what a user writes to a hook's files, or a guest says in an event.
 *
 * Any text is a filter or has a reason why not, in a line of its own; any reply is one or
 * is not; any event is one line of words whose values are quoted.
 */
#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "fs/hook_filter.h"
#include "fs/hook_line.h"
#include "tests/fuzz/fuzz_wire.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_program(const struct hm_filter *filter)
{
	int depth = 0;

	check(filter->n_tests <= HYPER_TESTS_MAX && filter->names_size &&
	      filter->names_size <= HYPER_HOOK_TEXT_MAX &&
	      filter->text_size <= HYPER_HOOK_TEXT_MAX && !filter->names[filter->names_size - 1]);
	check(filter->flags & (HYPER_HOOK_ENTER | HYPER_HOOK_RETURN));
	for (uint16_t i = 0; i < filter->n_tests; i++) {
		const struct hm_test *test = &filter->tests[i];

		if (test->test == HYPER_TEST_STRING)
			check(test->a <= filter->text_size && test->b <= filter->text_size - test->a);
		depth += test->test <= HYPER_TEST_STRING ? 1 : test->test == HYPER_TEST_NOT ? 0 : -1;
		check(depth >= 1 && test->field < HYPER_FIELD_MAX &&
		      test->compare < HYPER_COMPARE_MAX);
	}
	check(depth == (filter->n_tests ? 1 : 0));
}

static void fuzz_filter(const char *text, size_t size)
{
	struct hmfs_filter_error error = {};
	g_autofree char *complaint = NULL;
	struct hm_filter filter;
	int rc = hmfs_filter_parse(text, size, &filter, &error);

	if (rc == 0) {
		check_program(&filter);
		return;
	}
	check(rc == -EINVAL && error.offset <= size && *error.reason);
	for (const char *c = error.reason; *c; c++)
		check(g_ascii_isprint(*c));
	complaint = hmfs_filter_complaint(text, size, &error);
	check(g_str_has_suffix(complaint, "\n") || memchr(text, 0, size));
}

/* Outside of quotes only what means nothing to a shell. */
static void check_line(const char *line, size_t size)
{
	bool quoted = false;

	check(size && size <= HMFS_EVENT_LINE_MAX && line[size - 1] == '\n' &&
	      memchr(line, '\n', size) == line + size - 1);
	for (size_t i = 0; i < size - 1; i++) {
		if (line[i] == '\'')
			quoted = !quoted;
		else if (!quoted && line[i] == '\\')
			check(line[++i] == '\'');
		else if (!quoted)
			check(g_ascii_isalnum(line[i]) || strchr("=_- ", line[i]));
		check(!g_ascii_iscntrl(line[i]));
	}
	check(!quoted);
}

static void fuzz_event(const uint8_t *data, size_t size)
{
	g_autoptr(GByteArray) line = g_byte_array_new();
	g_autofree struct hm_event *event = NULL;
	size_t used;

	if (hm_event_decode(data, size, &event, &used) != 0)
		return;
	hmfs_event_print(event, event->comm, line);
	check_line((const char *)line->data, line->len);
}

/* What is random is no event, nor a filter: these are nearly. */
static void fuzz_near_event(const uint8_t *data, size_t size)
{
	struct hypermem_event raw = { .id = 1, .pid = 1, .tid = 1, .stamp = 1, .call = "ioctl" };
	const size_t first = G_STRUCT_OFFSET(struct hypermem_event, flags);
	uint8_t bytes[sizeof(raw) + 64] = {};

	raw.id = GUINT64_TO_LE(1);
	raw.pid = raw.tid = GUINT32_TO_LE(1);
	raw.stamp = GUINT16_TO_LE(1);
	memcpy(raw.comm, data, MIN(size, sizeof(raw.comm)));
	if (size > sizeof(raw.comm))
		memcpy((uint8_t *)&raw + first, data, MIN(size, sizeof(raw.flags)));
	memcpy(bytes, &raw, sizeof(raw));
	fuzz_event(bytes, sizeof(raw));
}

static void fuzz_near_filter(const uint8_t *data, size_t size)
{
	static const char *const words[] = {
		"ioctl", "*", ",", " ", "enter", "return", "trace", "regs", "arg0", "arg5", "retval",
		"comm", "str(", "(", ")", "==", "!=", "<", ">=", "^=", "*=", "=", "&", "&&", "||", "and",
		"or", "not", "!", "1", "-1", "0x10", "1..5", "..", "\"x\"", "\"", "\\x41", "\n",
	};
	g_autoptr(GString) text = g_string_new("ioctl ");

	for (size_t i = 0; i < size; i++) {
		g_string_append(text, words[data[i] % G_N_ELEMENTS(words)]);
		if (data[i] & 0x80)
			g_string_append_c(text, ' ');
	}
	fuzz_filter(text->str, text->len);
}

void fuzz_words(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct hm_verdict verdict;
	uint64_t id;

	fuzz_filter(text, size);
	fuzz_near_filter(data, size);
	fuzz_event(data, size);
	fuzz_near_event(data, size);
	check(hmfs_reply_parse(text, size, &id, &verdict) <= 0);
}
