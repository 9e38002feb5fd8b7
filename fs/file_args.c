// SPDX-License-Identifier: MIT
/*
 * file_args: pid/N/cmdline and environ, the bytes of the guest's /proc.
 */
#include <errno.h>

#include "fs/file.h"

/*
 * A reader asks until it gets 0.  An answer that was shorter than asked for, and not
 * because of a fault, has told where the end is: the question that follows right there
 * needs no guest.
 */
static bool at_known_end(struct hmfs_file *file, off_t offset)
{
	bool known;

	g_mutex_lock(&file->lock);
	known = file->end >= 0 && offset == file->end;
	file->end = -1;
	g_mutex_unlock(&file->lock);
	return known;
}

static void note_end(struct hmfs_file *file, off_t end)
{
	g_mutex_lock(&file->lock);
	file->end = end;
	g_mutex_unlock(&file->lock);
}

ssize_t hmfs_args_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	struct hm_client *client = file->fs->client;
	bool ended;
	ssize_t n;

	if (at_known_end(file, offset))
		return 0;
	if (file->node.row->arg == HMFS_CMDLINE)
		n = hm_client_read_procargs(client, file->who, (uint64_t)offset, buf, size,
					    &ended);
	else
		n = hm_client_read_procenv(client, file->who, (uint64_t)offset, buf, size,
					   &ended);
	if (n > 0 && ended)
		note_end(file, offset + n);
	return n;
}
