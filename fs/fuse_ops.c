// SPDX-License-Identifier: MIT
/*
 * fuse_ops: from libfuse's callbacks to nodes and files, and back.
 *
 * A path becomes a node, an open file a struct hmfs_file; what they return goes to
 * the kernel unchanged.  Nothing else happens here.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>

#include "fs/fuse_ops.h"
#include "fs/file.h"
#include "fs/node.h"

static struct hmfs *the_fs(void)
{
	return fuse_get_context()->private_data;
}

static struct hmfs_file *the_file(const struct fuse_file_info *fi)
{
	return (struct hmfs_file *)(uintptr_t)fi->fh;
}

bool hmfs_fuse_interrupted(void)
{
	return fuse_interrupted();
}

static void on_interrupt(int signal)
{
	/* Nothing: that the thread wakes up is all that is wanted. */
}

/*
 * An interrupted request becomes a signal to the thread that serves it, which waits
 * so that a signal ends it (see client.h).  libfuse sends it, but installs no handler
 * if it learns only now that it is wanted.
 */
static void interrupts_init(struct fuse_config *config)
{
	const struct sigaction action = { .sa_handler = on_interrupt };	/* not SA_RESTART */

	config->intr = 1;
	config->intr_signal = SIGUSR1;
	sigaction(config->intr_signal, &action, NULL);
}

static void poll_free(void *handle)
{
	fuse_pollhandle_destroy(handle);
}

static void poll_wake(void *handle)
{
	fuse_notify_poll(handle);
	fuse_pollhandle_destroy(handle);
}

static void *ops_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	config->attr_timeout = HMFS_ATTR_SECONDS;
	config->entry_timeout = HMFS_ATTR_SECONDS;
	config->negative_timeout = 0;
	config->nullpath_ok = 1;	/* an open file needs no path */
	interrupts_init(config);
	the_fs()->poll_wake = poll_wake;
	the_fs()->poll_free = poll_free;
	conn->max_read = HMFS_READ_MAX;
	conn->max_write = HMFS_READ_MAX;
	return the_fs();
}

static int ops_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	struct hmfs_node node;
	int rc;

	/* The kernel keeps the owner for whoever opens it next. */
	if (fi) {
		hmfs_file_stat(the_file(fi), st);
		return 0;
	}
	rc = hmfs_node_lookup(path, &node);
	return rc < 0 ? rc : hmfs_node_stat(the_fs(), &node, st);
}

static int ops_readlink(const char *path, char *buf, size_t size)
{
	struct hmfs_node node;
	ssize_t n;

	n = hmfs_node_lookup(path, &node);
	if (n == 0)
		n = hmfs_node_readlink(the_fs(), &node, buf, size);
	return n < 0 ? (int)n : 0;
}

static int open_node(const char *path, int flags, struct fuse_file_info *fi)
{
	struct hmfs_file *file;
	struct hmfs_node node;
	int rc;

	rc = hmfs_node_lookup(path, &node);
	if (rc == 0)
		rc = hmfs_file_open(the_fs(), &node, flags, &file);
	if (rc == 0) {
		if (the_fs()->others && node.pid)
			file->opener = fuse_get_context()->uid;
		fi->fh = (uintptr_t)file;
		fi->nonseekable = node.row->stream;
	}
	return rc;
}

static int ops_opendir(const char *path, struct fuse_file_info *fi)
{
	return open_node(path, O_DIRECTORY, fi);
}

/*
 * Each name has an offset of its own: without, libfuse (3.14) keeps the attributes to
 * itself, and the kernel asks for those of each name again.  One reader of an open
 * directory at a time: libfuse sees to that.
 */
static int ops_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
		       struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct hmfs_file *file = the_file(fi);
	enum fuse_fill_dir_flags plus;
	int rc;

	rc = hmfs_file_check_opener(file, false);
	if (rc == 0 && (offset == 0 || !file->names))
		rc = hmfs_file_list(file);
	if (rc < 0)
		return rc;
	if (offset < 1 && fill(buf, ".", NULL, 1, 0) != 0)
		return 0;
	if (offset < 2 && fill(buf, "..", NULL, 2, 0) != 0)
		return 0;
	plus = hmfs_file_is_fresh(file) ? FUSE_FILL_DIR_PLUS : 0;
	for (off_t i = MAX(offset - 2, 0); i < file->names->len; i++) {
		const struct hmfs_name *name = &g_array_index(file->names, struct hmfs_name, i);

		if (fill(buf, name->text, &name->st, i + 3, plus) != 0)
			break;
	}
	return 0;
}

static int ops_open(const char *path, struct fuse_file_info *fi)
{
	fi->direct_io = 1;	/* no stale content, and no size needed to read */
	return open_node(path, fi->flags & ~O_DIRECTORY, fi);
}

static int ops_release(const char *path, struct fuse_file_info *fi)
{
	hmfs_file_close(the_file(fi));
	return 0;
}

static int ops_read(const char *path, char *buf, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct hmfs_file *file = the_file(fi);
	int rc = hmfs_file_check_opener(file, false);

	g_atomic_int_set(&file->flags, fi->flags);
	return rc < 0 ? rc : (int)file->node.row->read(file, buf, size, offset);
}

static int ops_write(const char *path, const char *buf, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	struct hmfs_file *file = the_file(fi);
	int rc;

	if (!file->node.row->write)
		return -EBADF;
	g_atomic_int_set(&file->flags, fi->flags);	/* as fcntl(2) has set them */
	rc = hmfs_file_check_append(&file->node, fi->flags);
	if (rc == 0)
		rc = hmfs_file_check_opener(file, true);
	return rc < 0 ? rc : (int)file->node.row->write(file, buf, size, offset);
}

static off_t ops_lseek(const char *path, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct hmfs_file *file = the_file(fi);

	return file->node.row->seek ? file->node.row->seek(file, offset, whence) : -EINVAL;
}

static int ops_poll(const char *path, struct fuse_file_info *fi, struct fuse_pollhandle *handle,
		    unsigned int *ret)
{
	*ret = hmfs_file_poll(the_file(fi), handle);
	return 0;
}

/*
 * Memory, and what is in it, has no length to cut: shells and dd truncate what they write
 * to, to no harm.
 */
static int ops_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	struct hmfs_node node;
	struct stat st;
	int rc = 0;

	if (fi) {
		node = the_file(fi)->node;
	} else {
		rc = hmfs_node_lookup(path, &node);
		if (rc == 0)
			rc = hmfs_node_stat(the_fs(), &node, &st);
	}
	if (rc < 0)
		return rc;
	return node.row->write ? 0 : -EACCES;
}

/* The tree is the guest's, but for hooks: names and attributes are not the host's to change. */
static int ops_mknod(const char *path, mode_t mode, dev_t dev)
{
	return -EPERM;
}

static int ops_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	return hmfs_node_create(path);
}

static int ops_mkdir(const char *path, mode_t mode)
{
	return hmfs_node_make(the_fs(), path);
}

static int ops_rmdir(const char *path)
{
	return hmfs_node_remove(the_fs(), path);
}

static int ops_unlink(const char *path)
{
	return -EPERM;
}

static int ops_symlink(const char *target, const char *path)
{
	return -EPERM;
}

static int ops_rename(const char *from, const char *to, unsigned int flags)
{
	return -EPERM;
}

static int ops_link(const char *from, const char *to)
{
	return -EPERM;
}

static int ops_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	return -EPERM;
}

static int ops_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	return -EPERM;
}

static int ops_utimens(const char *path, const struct timespec times[2],
		       struct fuse_file_info *fi)
{
	return -EPERM;
}

const struct fuse_operations hmfs_fuse_operations = {
	.init = ops_init,
	.getattr = ops_getattr,
	.readlink = ops_readlink,
	.opendir = ops_opendir,
	.readdir = ops_readdir,
	.releasedir = ops_release,
	.open = ops_open,
	.release = ops_release,
	.read = ops_read,
	.write = ops_write,
	.lseek = ops_lseek,
	.poll = ops_poll,
	.truncate = ops_truncate,
	.mknod = ops_mknod,
	.create = ops_create,
	.mkdir = ops_mkdir,
	.rmdir = ops_rmdir,
	.unlink = ops_unlink,
	.symlink = ops_symlink,
	.rename = ops_rename,
	.link = ops_link,
	.chmod = ops_chmod,
	.chown = ops_chown,
	.utimens = ops_utimens,
};
