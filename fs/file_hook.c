// SPDX-License-Identifier: MIT
/*
 * file_hook: hooks/NAME/filter, enabled, timeout and stats: what a hook is to do, and
 * what it has done.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/file.h"
#include "fs/hook_filter.h"
#include "fs/hooks.h"
#include "fs/number.h"

#define FILTER_MAX 4096		/* bytes of a filter's text */
#define TIMEOUT_DIGITS_MAX 16	/* bytes of a timeout's */

int hmfs_hook_open(struct hmfs_file *file)
{
	return hmfs_hooks_find(file->fs->hooks, file->node.hook, &file->hook);
}

static void append(GByteArray *text, const char *line)
{
	g_byte_array_append(text, (const guint8 *)line, (guint)strlen(line));
}

/* -- filter ------------------------------------------------------------------------------ */

static int filter_make(struct hmfs_file *file, GByteArray *text)
{
	struct hmfs_hook *hook = file->hook;
	const void *data;
	gsize size;

	g_mutex_lock(&hook->lock);
	if (hook->complaint) {
		append(text, hook->complaint);
	} else if (hook->text) {
		data = g_bytes_get_data(hook->text, &size);
		if (size)
			g_byte_array_append(text, data, (guint)size);
	}
	g_mutex_unlock(&hook->lock);
	return 0;
}

ssize_t hmfs_filter_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, filter_make);
}

/* What the guest has against it. */
static int filter_refused(int rc, struct hmfs_filter_error *error)
{
	const char *reason = rc == -ENOENT ? "the guest's kernel has none of these calls" :
			     rc == -E2BIG ? "it is longer than the guest takes" :
			     rc == -EINVAL ? "the guest does not take it" : NULL;

	error->offset = 0;
	if (!reason)
		return rc;
	g_strlcpy(error->reason, reason, sizeof(error->reason));
	return -EINVAL;
}

static void filter_note(struct hmfs_hook *hook, const char *text, size_t size,
			const struct hmfs_filter_error *error)
{
	g_mutex_lock(&hook->lock);
	g_clear_pointer(&hook->complaint, g_free);
	if (error) {
		hook->complaint = hmfs_filter_complaint(text, size, error);
	} else {
		g_clear_pointer(&hook->text, g_bytes_unref);
		hook->text = g_bytes_new(text, size);
	}
	g_mutex_unlock(&hook->lock);
}

ssize_t hmfs_filter_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	g_autofree struct hm_filter *filter = g_new(struct hm_filter, 1);
	struct hmfs_hook *hook = file->hook;
	struct hmfs_filter_error error;
	int rc;

	if (offset != 0)
		return -EINVAL;
	if (size > FILTER_MAX)
		return -EFBIG;
	g_mutex_lock(&hook->writing);
	rc = hmfs_filter_parse(buf, size, filter, &error);
	if (rc == 0) {
		rc = hm_hook_set_filter(hook->hook, filter);
		if (rc < 0)
			rc = filter_refused(rc, &error);
	}
	if (rc == 0 || rc == -EINVAL)
		filter_note(hook, buf, size, rc == 0 ? NULL : &error);
	g_mutex_unlock(&hook->writing);
	return rc < 0 ? rc : (ssize_t)size;
}

/* -- enabled, timeout ---------------------------------------------------------------------- */

static int enabled_make(struct hmfs_file *file, GByteArray *text)
{
	append(text, hm_hook_enabled(file->hook->hook) ? "1\n" : "0\n");
	return 0;
}

ssize_t hmfs_enabled_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, enabled_make);
}

ssize_t hmfs_enabled_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	const char *text = buf;
	int rc;

	if (offset != 0 || hmfs_line_size(text, size) != 1 || (text[0] != '0' && text[0] != '1'))
		return -EINVAL;
	rc = hm_hook_set_enabled(file->hook->hook, text[0] == '1');
	return rc < 0 ? rc : (ssize_t)size;
}

static int timeout_make(struct hmfs_file *file, GByteArray *text)
{
	uint32_t ms = hm_hook_timeout(file->hook->hook);
	char line[32];

	if (ms % 1000 == 0)
		g_snprintf(line, sizeof(line), "%" PRIu32 "\n", ms / 1000);
	else
		g_snprintf(line, sizeof(line), "%" PRIu32 ".%03" PRIu32 "\n", ms / 1000, ms % 1000);
	append(text, line);
	return 0;
}

ssize_t hmfs_timeout_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, timeout_make);
}

/* Seconds, with or without a fraction. */
static int timeout_parse(const char *text, size_t size, uint32_t *ret_ms)
{
	char digits[TIMEOUT_DIGITS_MAX + 1], *end;
	double seconds;

	if (size == 0 || size > TIMEOUT_DIGITS_MAX)
		return -EINVAL;
	memcpy(digits, text, size);
	digits[size] = 0;
	if (strspn(digits, "0123456789.") != size || !strpbrk(digits, "0123456789"))
		return -EINVAL;
	seconds = g_ascii_strtod(digits, &end);
	if (*end)
		return -EINVAL;
	if (seconds < 0.001 || seconds > HYPER_TIMEOUT_MAX_MS / 1000)
		return -ERANGE;
	*ret_ms = (uint32_t)(seconds * 1000 + 0.5);
	return 0;
}

ssize_t hmfs_timeout_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	uint32_t ms;
	int rc;

	if (offset != 0)
		return -EINVAL;
	rc = timeout_parse(buf, hmfs_line_size(buf, size), &ms);
	if (rc == 0)
		rc = hm_hook_set_timeout(file->hook->hook, ms);
	return rc < 0 ? rc : (ssize_t)size;
}

/* -- stats ------------------------------------------------------------------------------------ */

static int stats_make(struct hmfs_file *file, GByteArray *text)
{
	g_autofree char *lines = NULL;
	struct hm_hook_counts stats;
	int rc = hm_hook_stats(file->hook->hook, &stats);

	if (rc < 0)
		return rc;
	lines = g_strdup_printf("matched: %" PRIu64 "\n"
				"sent: %" PRIu64 "\n"
				"replied: %" PRIu64 "\n"
				"continued: %" PRIu64 "\n"
				"timed_out: %" PRIu64 "\n"
				"killed: %" PRIu64 "\n"
				"abandoned: %" PRIu64 "\n"
				"unattended: %" PRIu64 "\n"
				"dropped: %" PRIu64 "\n"
				"restarted: %" PRIu64 "\n"
				"missed: %" PRIu64 "\n",
				stats.matched, stats.sent, stats.replied, stats.continued,
				stats.timed_out, stats.killed, stats.abandoned, stats.unattended,
				stats.dropped, stats.restarted, stats.missed);
	append(text, lines);
	return 0;
}

ssize_t hmfs_stats_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, stats_make);
}
