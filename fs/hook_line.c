// SPDX-License-Identifier: MIT
/*
 * hook_line: events as lines, lines as verdicts.  See hook_line.h.
 *
 * What the guest says stands between single quotes, or consists of letters, digits and
 * underscores: no shell does anything with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/hook_line.h"
#include "fs/number.h"

static void print(GByteArray *text, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void print(GByteArray *text, const char *format, ...)
{
	char word[128];
	va_list args;

	va_start(args, format);
	g_vsnprintf(word, sizeof(word), format, args);
	va_end(args);
	g_byte_array_append(text, (const guint8 *)word, (guint)strlen(word));
}

/* One line, and one word of it, whatever it is. */
static void print_quoted(GByteArray *text, const char *value)
{
	print(text, "'");
	for (; *value; value++) {
		if (*value == '\'')
			print(text, "'\\''");
		else
			print(text, "%c", g_ascii_iscntrl(*value) ? '?' : *value);
	}
	print(text, "'");
}

/* A register must not be taken for something else. */
static bool is_word_of_events(const char *name)
{
	static const char *const words[] = {
		"id", "hook", "phase", "call", "nr", "pid", "tid", "stamp", "comm", "compat",
		"time", "arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "retval", "skipped",
		"lost", NULL,
	};

	return g_strv_contains(words, name);
}

static void print_regs(GByteArray *text, const struct hm_event *event)
{
	for (uint16_t i = 0; i < event->n_regs; i++)
		if (!is_word_of_events(event->regs[i].name))
			print(text, " %s=0x%" PRIx64, event->regs[i].name, event->regs[i].value);
}

void hmfs_event_print(const struct hm_event *event, const char *hook, GByteArray *text)
{
	bool returns = event->flags & HYPER_EVENT_RETURN;

	print(text, "id=%" PRIu64 " hook=", event->flags & HYPER_EVENT_WAITS ? event->id : 0);
	print_quoted(text, hook);
	print(text, " phase=%s call=%s nr=%" PRIu32 " pid=%" PRIu32 " tid=%" PRIu32 " stamp=%u",
	      returns ? "return" : "enter", event->call, event->nr, event->pid, event->tid,
	      event->stamp);
	print(text, " comm=");
	print_quoted(text, event->comm);
	print(text, " compat=%d time=%" PRIu64, !!(event->flags & HYPER_EVENT_COMPAT),
	      event->time);
	for (size_t i = 0; i < G_N_ELEMENTS(event->args); i++)
		print(text, " arg%zu=0x%" PRIx64, i, event->args[i]);
	if (returns)
		print(text, " retval=%" PRId64, event->retval);
	if (event->flags & HYPER_EVENT_SKIPPED)
		print(text, " skipped=1");
	if (event->lost)
		print(text, " lost=%" PRIu64, event->lost);
	print_regs(text, event);
	print(text, "\n");
}

/* -- replies ---------------------------------------------------------------------------- */

/* The next word of a line; 0: there is none. */
static size_t next_word(const char **at, const char *end)
{
	const char *word;

	while (*at < end && (**at == ' ' || **at == '\t'))
		(*at)++;
	for (word = *at; word < end && *word != ' ' && *word != '\t'; word++)
		;
	return (size_t)(word - *at);
}

static bool is_word(const char *at, size_t size, const char *word)
{
	return strlen(word) == size && memcmp(at, word, size) == 0;
}

static int parse_value(const char *at, size_t size, size_t skip, uint64_t *ret)
{
	bool negative;

	return hmfs_signed_parse(at + skip, size - skip, ret, &negative) < 0 ? -EINVAL : 0;
}

static int parse_verb(const char *at, size_t size, struct hm_verdict *verdict)
{
	unsigned int k;

	if (is_word(at, size, "skip")) {
		verdict->flags |= HYPER_VERDICT_SKIP;
		return 0;
	}
	if (size > 7 && memcmp(at, "retval=", 7) == 0) {
		verdict->flags |= HYPER_VERDICT_RETVAL;
		return parse_value(at, size, 7, &verdict->retval);
	}
	if (size > 5 && memcmp(at, "arg", 3) == 0 && at[3] >= '0' && at[3] <= '5' && at[4] == '=') {
		k = (unsigned int)(at[3] - '0');
		verdict->flags |= HYPER_VERDICT_ARG(k);
		return parse_value(at, size, 5, &verdict->args[k]);
	}
	return -EINVAL;
}

int hmfs_reply_parse(const char *line, size_t size, uint64_t *ret_id, struct hm_verdict *ret)
{
	const char *at = line, *end = line + size;
	size_t n = next_word(&at, end);
	struct hm_verdict verdict = {};
	bool goes_on = false;
	int rc = hmfs_number_parse(at, n, ret_id);

	at += n;
	n = next_word(&at, end);
	if (rc < 0 || !n)
		return -EINVAL;
	for (; n && rc == 0; at += n, n = next_word(&at, end)) {
		if (is_word(at, n, "continue"))
			goes_on = true;
		else
			rc = parse_verb(at, n, &verdict);
	}
	if (rc < 0 || (goes_on && verdict.flags))
		return -EINVAL;
	*ret = verdict;
	return 0;
}
