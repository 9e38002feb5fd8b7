// SPDX-License-Identifier: MIT
/*
 * file_hook_events: hooks/NAME/events, where each call that matches is a line, and
 * hooks/NAME/reply, which says how it goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "fs/file.h"
#include "fs/hook_line.h"
#include "fs/hooks.h"

/* Called with a lock of the bridge's held. */
static void events_notify(void *arg)
{
	hmfs_file_wake(arg);
}

int hmfs_events_open(struct hmfs_file *file)
{
	int rc = hmfs_hooks_find(file->fs->hooks, file->node.hook, &file->hook);

	if (rc == 0)
		rc = hm_hook_attend(file->hook->hook, events_notify, file);
	return rc == -ENODEV ? -ENOENT : rc;
}

void hmfs_events_close(struct hmfs_file *file)
{
	hm_hook_leave(file->hook->hook);
}

/* With the lock held: some of the line at hand, of which there is one. */
static size_t take_line(struct hmfs_file *file, uint8_t *buf, size_t size)
{
	guint n = (guint)MIN(size, file->text->len);

	memcpy(buf, file->text->data, n);
	g_byte_array_remove_range(file->text, 0, n);
	return n;
}

/* With the lock held: a line is at hand, or why not. */
static int next_line(struct hmfs_file *file)
{
	g_autofree struct hm_event *event = NULL;
	int rc = 0;

	if (!file->text)
		file->text = g_byte_array_sized_new(HMFS_EVENT_LINE_MAX);
	if (file->text->len == 0) {
		rc = hm_hook_next(file->hook->hook, &event);
		if (rc == 0)
			hmfs_event_print(event, file->hook->name, file->text);
	}
	return rc;
}

/* Whole lines, or a part of one if not even one fits; -EAGAIN: there is none. */
static ssize_t take_lines(struct hmfs_file *file, uint8_t *buf, size_t size)
{
	size_t done = 0;
	int rc;

	g_mutex_lock(&file->lock);
	while (done < size) {
		rc = next_line(file);
		if (rc < 0 || (done && file->text->len > size - done))
			break;
		done += take_line(file, buf + done, size - done);
	}
	g_mutex_unlock(&file->lock);
	if (done || size == 0)
		return (ssize_t)done;
	return rc == -ENODEV ? 0 : rc;
}

ssize_t hmfs_events_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	ssize_t n;
	int rc;

	do {
		n = take_lines(file, buf, size);
		if (n != -EAGAIN || (g_atomic_int_get(&file->flags) & O_NONBLOCK))
			return n;
		rc = hm_hook_wait(file->hook->hook);
	} while (rc == 0);
	return rc;
}

unsigned int hmfs_events_poll(struct hmfs_file *file)
{
	bool ready;

	g_mutex_lock(&file->lock);
	ready = file->text && file->text->len;
	g_mutex_unlock(&file->lock);
	return ready || hm_hook_is_ready(file->hook->hook) ? POLLIN | POLLRDNORM : 0;
}

static int reply_line(struct hmfs_file *file, const char *line, size_t size)
{
	bool wait = !(g_atomic_int_get(&file->flags) & O_NONBLOCK);
	struct hm_verdict verdict;
	uint64_t id;
	int rc = hmfs_reply_parse(line, size, &id, &verdict);

	return rc < 0 ? rc : hm_hook_reply(file->hook->hook, id, &verdict, wait);
}

/* One bad line must not keep the calls of the others waiting: each is done, the first error told. */
ssize_t hmfs_reply_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	const char *line = buf, *end = line + size;
	int rc = size ? 0 : -EINVAL;

	while (line < end) {
		const char *newline = memchr(line, '\n', (size_t)(end - line)) ?: end;
		int line_rc = reply_line(file, line, (size_t)(newline - line));

		/* This one was not sent: whoever writes again goes on with it. */
		if (line_rc == -EINTR && rc == 0)
			return line > (const char *)buf ? line - (const char *)buf : -EINTR;
		rc = rc ?: line_rc;
		line = newline + 1;
	}
	return rc < 0 ? rc : (ssize_t)size;
}
