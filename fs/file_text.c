// SPDX-License-Identifier: MIT
/*
 * file_text: comm, maps, status ... of a process: texts that the guest's own /proc
 * makes.  And, at the end, small ones that are made here.
 *
 * The guest hands out whole records and a cursor, not bytes at an offset, so that a
 * text that changes meanwhile has no torn lines.  An open file keeps the part at hand
 * and where it begins; reading from the start asks anew, as in /proc.
 */
#include <errno.h>
#include <string.h>

#include "fs/file.h"

static off_t text_end(const struct hmfs_file *file)
{
	return file->text_offset + (file->text ? (off_t)file->text->len : 0);
}

/* Get the part that follows the one at hand (or the first); false, 0: there is none. */
static int text_advance(struct hmfs_file *file, bool *ret)
{
	g_autoptr(GByteArray) text = g_byte_array_new();
	uint64_t cursor = file->text_cursor;
	int rc;

	*ret = false;
	if (file->text && cursor == 0)
		return 0;
	rc = hm_client_read_proc_file(file->fs->client, file->who, file->node.row->name, &cursor,
				      text);
	if (rc < 0)
		return rc;
	file->text_offset = text_end(file);
	if (file->text)
		g_byte_array_unref(file->text);
	file->text = g_steal_pointer(&text);
	file->text_cursor = cursor;
	*ret = true;
	return 0;
}

static void text_restart(struct hmfs_file *file)
{
	g_clear_pointer(&file->text, g_byte_array_unref);
	file->text_offset = 0;
	file->text_cursor = 0;
}

/* With the lock held. */
static ssize_t text_read(struct hmfs_file *file, uint8_t *buf, size_t size, off_t offset)
{
	size_t done = 0;

	if (offset == 0 || offset < file->text_offset)
		text_restart(file);
	while (done < size) {
		off_t at = offset + (off_t)done;
		size_t n;

		while (!file->text || at >= text_end(file)) {
			bool more;
			int rc = text_advance(file, &more);

			if (rc < 0)
				return done ? (ssize_t)done : rc;
			if (!more)
				return (ssize_t)done;
		}
		n = MIN(size - done, (size_t)(text_end(file) - at));
		memcpy(buf + done, file->text->data + (at - file->text_offset), n);
		done += n;
	}
	return (ssize_t)done;
}

ssize_t hmfs_text_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	ssize_t n;

	g_mutex_lock(&file->lock);
	n = text_read(file, buf, size, offset);
	g_mutex_unlock(&file->lock);
	return n;
}

/* With the lock held. */
static ssize_t text_copy(const struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	if (offset < 0 || (uint64_t)offset >= file->text->len)
		return 0;
	size = MIN(size, file->text->len - (size_t)offset);
	memcpy(buf, file->text->data + offset, size);
	return (ssize_t)size;
}

static bool text_is_wanted(struct hmfs_file *file, off_t offset)
{
	bool wanted;

	g_mutex_lock(&file->lock);
	wanted = offset == 0 || !file->text;
	g_mutex_unlock(&file->lock);
	return wanted;
}

ssize_t hmfs_text_read_made(struct hmfs_file *file, void *buf, size_t size, off_t offset,
			    int (*make)(struct hmfs_file *file, GByteArray *text))
{
	g_autoptr(GByteArray) text = NULL;
	ssize_t n;

	if (text_is_wanted(file, offset)) {
		text = g_byte_array_new();
		n = make(file, text);
		if (n < 0)
			return n;
	}
	g_mutex_lock(&file->lock);
	if (text) {
		GByteArray *old = file->text;

		file->text = g_steal_pointer(&text);
		text = old;
	}
	n = text_copy(file, buf, size, offset);
	g_mutex_unlock(&file->lock);
	return n;
}
