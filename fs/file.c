// SPDX-License-Identifier: MIT
/*
 * file: files and directories that are open.  See file.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "fs/file.h"
#include "fs/hooks.h"

int hmfs_file_check_append(const struct hmfs_node *node, int flags)
{
	bool adds = (flags & O_APPEND) && (flags & O_ACCMODE) != O_RDONLY;

	return node->pid && adds ? -EINVAL : 0;
}

/* Can it be opened so? */
static int node_check_open(const struct hmfs_node *node, int flags)
{
	const struct hmfs_row *row = node->row;

	if (flags & O_DIRECTORY)
		return row->rows ? 0 : -ENOTDIR;
	if (row->rows)
		return -EISDIR;
	if ((flags & O_ACCMODE) != O_WRONLY && !row->read)
		return -EACCES;
	if (!row->read && !row->write)
		return -EACCES;
	if ((flags & O_ACCMODE) != O_RDONLY && !row->write)
		return -EACCES;
	return hmfs_file_check_append(node, flags);
}

static void file_free(struct hmfs_file *file)
{
	if (file->text)
		g_byte_array_unref(file->text);
	hm_reader_free(file->reader);
	if (file->names)
		g_array_unref(file->names);
	if (file->poll_handle)
		file->fs->poll_free(file->poll_handle);
	hmfs_hook_unref(file->hook);
	g_mutex_clear(&file->poll_lock);
	g_mutex_clear(&file->lock);
	g_free(file);
}

int hmfs_file_open(struct hmfs *fs, const struct hmfs_node *node, int flags,
		   struct hmfs_file **ret)
{
	struct hm_who who = {};
	struct hmfs_file *file;
	struct stat st;
	int rc;

	rc = node_check_open(node, flags);
	if (rc == 0)
		rc = hmfs_node_stat(fs, node, &st);
	if (rc == 0 && node->pid)
		rc = hmfs_node_who(fs, node, &who);
	if (rc < 0)
		return rc;
	file = g_new0(struct hmfs_file, 1);
	file->fs = fs;
	file->node = *node;
	file->who = who;
	file->st = st;
	file->end = -1;
	file->flags = flags;
	file->link.data = file;
	g_mutex_init(&file->lock);
	g_mutex_init(&file->poll_lock);
	rc = node->row->open ? node->row->open(file) : 0;
	if (rc < 0) {
		file_free(file);
		return rc;
	}
	g_mutex_lock(&fs->lock);
	g_queue_push_tail_link(&fs->files, &file->link);
	g_mutex_unlock(&fs->lock);
	*ret = file;
	return 0;
}

/* Of a process's file.  -ESRCH, -ESTALE: it is another process. */
static int file_stat_now(struct hmfs_file *file, struct stat *ret)
{
	struct hm_who who;
	int rc;

	rc = hmfs_node_stat(file->fs, &file->node, ret);
	if (rc == 0)
		rc = hmfs_node_who(file->fs, &file->node, &who);
	if (rc < 0)
		return rc == -ENOENT ? -ESRCH : rc;
	if (who.epoch != file->who.epoch)
		return -ESTALE;
	return who.stamp == file->who.stamp ? 0 : -ESRCH;
}

void hmfs_file_stat(struct hmfs_file *file, struct stat *ret)
{
	if (file->node.pid && file_stat_now(file, ret) == 0)
		return;
	*ret = file->st;
	if (file->node.pid)
		ret->st_uid = ret->st_gid = 0;
}

/* The kernel has looked at modes and owners when it was opened, and not since. */
int hmfs_file_check_opener(struct hmfs_file *file, bool write)
{
	struct stat st;
	int rc;

	if (!file->opener || (file->node.row->mode & (write ? S_IWOTH : S_IROTH)))
		return 0;
	rc = file_stat_now(file, &st);
	if (rc < 0)
		return rc;
	return st.st_uid == file->opener ? 0 : -EACCES;
}

void hmfs_file_close(struct hmfs_file *file)
{
	g_mutex_lock(&file->fs->lock);
	g_queue_unlink(&file->fs->files, &file->link);
	g_mutex_unlock(&file->fs->lock);
	if (file->node.row->close)
		file->node.row->close(file);
	file_free(file);
}

unsigned int hmfs_file_poll(struct hmfs_file *file, void *handle)
{
	void *old = handle;

	if (file->node.row->poll && handle) {
		g_mutex_lock(&file->poll_lock);
		old = file->poll_handle;
		file->poll_handle = handle;
		g_mutex_unlock(&file->poll_lock);
	}
	if (old)
		file->fs->poll_free(old);
	/* Looked at last: from here on whoever makes it ready wakes up who waits. */
	return file->node.row->poll ? file->node.row->poll(file) :
				      POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM;
}

void hmfs_file_wake(struct hmfs_file *file)
{
	void *handle;

	g_mutex_lock(&file->poll_lock);
	handle = g_steal_pointer(&file->poll_handle);
	g_mutex_unlock(&file->poll_lock);
	if (handle)
		file->fs->poll_wake(handle);
}

static int keep_name(void *arg, const char *text, const struct stat *st)
{
	struct hmfs_name name = { .st = *st };

	g_strlcpy(name.text, text, sizeof(name.text));
	g_array_append_val((GArray *)arg, name);
	return 0;
}

int hmfs_file_list(struct hmfs_file *file)
{
	if (file->names)
		g_array_set_size(file->names, 0);
	else
		file->names = g_array_new(FALSE, FALSE, sizeof(struct hmfs_name));
	file->listed = g_get_monotonic_time();
	return hmfs_node_list(file->fs, &file->node, keep_name, file->names);
}

bool hmfs_file_is_fresh(const struct hmfs_file *file)
{
	return g_get_monotonic_time() - file->listed <
	       (gint64)(HMFS_ATTR_SECONDS * G_USEC_PER_SEC);
}
