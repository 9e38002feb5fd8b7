// SPDX-License-Identifier: GPL-2.0
/*
 * procfs: what only this kernel's own /proc can say.
 *
 * Text files, link texts and the list of open files come from a private mount of
 * procfs, so they are what this kernel's /proc says by construction, whatever the
 * kernel's version, and whether or not anybody in the guest has mounted it.
 *
 * Files are read record by record, as the seq_file core does it, and not by
 * offset: a list that changes between two requests loses no half line.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/sched/task.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "ops.h"

static struct vfsmount *procfs_mnt;

/* procfs shows the pid namespace of whoever mounts it: a worker has the initial one. */
static void procfs_mount(struct work_struct *work)
{
	struct file_system_type *type = get_fs_type("proc");

	if (!type)
		return;
	procfs_mnt = kern_mount(type);
	module_put(type->owner);
}

int hypermem_procfs_init(void)
{
	struct work_struct work;

	INIT_WORK_ONSTACK(&work, procfs_mount);
	schedule_work(&work);
	flush_work(&work);
	destroy_work_on_stack(&work);
	if (IS_ERR_OR_NULL(procfs_mnt)) {
		pr_err("this kernel has no procfs (CONFIG_PROC_FS)\n");
		return procfs_mnt ? PTR_ERR(procfs_mnt) : -ENODEV;
	}
	return 0;
}

void hypermem_procfs_exit(void)
{
	kern_unmount(procfs_mnt);
}

/*
 * Open /proc/PID/NAME; to be closed with __fput_sync(), since a worker has no exit
 * to user space that would do it.  The name meant the request's process if that
 * still has the pid afterwards: it cannot have lost it and got it back.
 */
static struct file *procfs_open(struct hypermem_request *request, const char *name, int flags)
{
	struct task_struct *task;
	struct file *file;
	char path[64];

	if (snprintf(path, sizeof(path), "%u/%s", request->header.pid, name) >= sizeof(path))
		return ERR_PTR(-ENAMETOOLONG);
	file = hypermem_open_root(procfs_mnt, path, flags);
	task = hypermem_task_get(&request->header);
	if (task) {
		put_task_struct(task);
		return file;
	}
	if (!IS_ERR(file))
		__fput_sync(file);
	return ERR_PTR(-ESRCH);
}

/* The text of a link: what d_path() says of the thing behind it, as readlink does. */
static int procfs_readlink(struct hypermem_request *request, const char *name)
{
	struct file *file;
	char *page, *text;
	size_t size;
	int rc = -ENOMEM;

	file = procfs_open(request, name, O_PATH);
	if (IS_ERR(file))
		return PTR_ERR(file);
	page = (char *)__get_free_page(GFP_KERNEL);
	if (!page)
		goto close;
	text = d_path(&file->f_path, page, PAGE_SIZE);
	rc = PTR_ERR_OR_ZERO(text);
	if (rc)
		goto free_page;
	size = page + PAGE_SIZE - 1 - text;
	rc = -ENAMETOOLONG;
	if (size > request->out_max)
		goto free_page;
	memcpy(request->out, text, size);
	request->out_size = size;
	rc = 0;
free_page:
	free_page((unsigned long)page);
close:
	__fput_sync(file);
	return rc;
}

int hypermem_read_fd_name(struct hypermem_request *request)
{
	char name[32];

	if (request->header.addr > INT_MAX)
		return -ENOENT;
	snprintf(name, sizeof(name), "fd/%u", (unsigned int)request->header.addr);
	return procfs_readlink(request, name);
}

int hypermem_read_link(struct hypermem_request *request)
{
	static const char *const names[HYPER_LINK_MAX] = {
		[HYPER_LINK_EXE] = "exe",
		[HYPER_LINK_CWD] = "cwd",
		[HYPER_LINK_ROOT] = "root",
	};

	if (request->header.addr >= HYPER_LINK_MAX)
		return -EINVAL;
	return procfs_readlink(request, names[request->header.addr]);
}

/* The reader of /proc/PID/fd: numbers into the reply's room, modes come later. */
struct procfs_fds {
	struct dir_context ctx;
	u32 *fds;
	u32 n, max;
};

static hypermem_filldir_ret procfs_fds_add(struct dir_context *ctx, const char *name, int len,
					   loff_t offset, u64 ino, unsigned int type)
{
	struct procfs_fds *fds = container_of(ctx, struct procfs_fds, ctx);
	char text[16];
	u32 fd;

	if (len >= sizeof(text))
		return HYPERMEM_FILLDIR_MORE;
	memcpy(text, name, len);
	text[len] = 0;
	if (kstrtou32(text, 10, &fd))
		return HYPERMEM_FILLDIR_MORE;	/* dot and dot-dot */
	if (fds->n == fds->max)
		return HYPERMEM_FILLDIR_STOP;
	fds->fds[fds->n++] = fd;
	return HYPERMEM_FILLDIR_MORE;
}

/* The mode of the link says how the file was opened. */
static bool procfs_fd_mode(struct hypermem_request *request, u32 fd, u32 *mode)
{
	struct file *link;
	char name[32];

	snprintf(name, sizeof(name), "fd/%u", fd);
	link = procfs_open(request, name, O_PATH | O_NOFOLLOW);
	if (IS_ERR(link))
		return false;	/* closed meanwhile */
	*mode = file_inode(link)->i_mode;
	__fput_sync(link);
	return true;
}

int hypermem_list_fds(struct hypermem_request *request)
{
	struct procfs_fds fds = {
		.ctx.actor = procfs_fds_add,
		.max = request->out_max / sizeof(struct hypermem_fd),
	};
	struct file *dir;
	u32 i, mode;
	int rc = 0;

	request->out_addr = 0;
	if (request->header.addr > INT_MAX)
		return 0;
	dir = procfs_open(request, "fd", O_RDONLY | O_DIRECTORY);
	if (IS_ERR(dir))
		return PTR_ERR(dir);
	dir->f_pos = request->header.addr + 2;	/* behind dot and dot-dot, as fs/proc/fd.c */
	fds.fds = kvmalloc_array(fds.max, sizeof(*fds.fds), GFP_KERNEL);
	if (fds.fds)
		rc = iterate_dir(dir, &fds.ctx);
	else if (fds.max)
		rc = -ENOMEM;
	__fput_sync(dir);
	for (i = 0; i < fds.n; i++)
		if (procfs_fd_mode(request, fds.fds[i], &mode))
			hypermem_put_fd(request, fds.fds[i], mode);
	if (fds.n && fds.n == fds.max)
		request->out_addr = (u64)fds.fds[fds.n - 1] + 1;
	kvfree(fds.fds);
	return rc;
}

/*
 * Records whose position is *index or behind it into the reply, as many as fit; *index
 * is the next one's, 0 at the end.  Positions ascend, but what they are differs: in maps
 * the start of a mapping and, since Linux 7.2, its end.  So they are only compared, and
 * each part is found by walking from the first record.
 * -EOVERFLOW: not even one record fits.
 */
static int procfs_seq_records(struct hypermem_request *request, struct seq_file *seq, u64 *index)
{
	u64 first = *index;
	loff_t pos = 0;
	size_t count;
	void *record;
	int rc = 0;

	record = seq->op->start(seq, &pos);
	while (!IS_ERR_OR_NULL(record)) {
		if ((u64)pos < first) {
			record = seq->op->next(seq, record, &pos);
			continue;
		}
		count = seq->count;
		rc = seq->op->show(seq, record);
		if (rc < 0)
			break;
		if (rc > 0)
			seq->count = count;	/* SEQ_SKIP */
		rc = 0;
		if (seq_has_overflowed(seq)) {
			seq->count = count;
			rc = count ? 0 : -EOVERFLOW;
			break;
		}
		*index = (u64)pos + 1;
		record = seq->op->next(seq, record, &pos);
	}
	seq->op->stop(seq, record);
	if (IS_ERR(record))
		return PTR_ERR(record);
	if (!record)
		*index = 0;
	return rc;
}

/* The same with the reply as the seq_file's buffer, and the seq_file as it was afterwards. */
static int procfs_seq_read(struct hypermem_request *request, struct seq_file *seq)
{
	u64 index = request->header.addr;
	char *buf = seq->buf;
	size_t size = seq->size, count = seq->count;
	int rc;

	mutex_lock(&seq->lock);
	seq->buf = request->out;
	seq->size = request->out_max;
	seq->count = 0;
	rc = procfs_seq_records(request, seq, &index);
	if (!rc) {
		request->out_size = seq->count;
		request->out_addr = index;
	}
	seq->buf = buf;
	seq->size = size;
	seq->count = count;
	mutex_unlock(&seq->lock);
	return rc;
}

int hypermem_procfs_records(const char *path, void (*record)(const char *text, void *data),
			    void *data)
{
	struct file *file = hypermem_open_root(procfs_mnt, path, O_RDONLY);
	struct seq_file own = { }, *seq;
	void *at;
	loff_t pos = 0;
	char buf[256];

	if (IS_ERR(file))
		return PTR_ERR(file);
	seq = file->private_data;
	mutex_lock(&seq->lock);
	swap(own.buf, seq->buf);
	swap(own.size, seq->size);
	swap(own.count, seq->count);
	seq->buf = buf;
	seq->size = sizeof(buf) - 1;
	for (at = seq->op->start(seq, &pos); !IS_ERR_OR_NULL(at);
	     at = seq->op->next(seq, at, &pos)) {
		seq->count = 0;
		if (seq->op->show(seq, at) || seq_has_overflowed(seq))
			continue;
		buf[seq->count] = 0;
		record(buf, data);
		cond_resched();
	}
	seq->op->stop(seq, at);
	swap(own.buf, seq->buf);
	swap(own.size, seq->size);
	swap(own.count, seq->count);
	mutex_unlock(&seq->lock);
	__fput_sync(file);
	return PTR_ERR_OR_ZERO(at);
}

int hypermem_read_proc_file(struct hypermem_request *request)
{
	const char *name = request->data;
	struct file *file;
	int rc;

	if (!request->header.size || name[0] == '.' || strlen(name) != request->header.size ||
	    strchr(name, '/'))
		return -EINVAL;
	file = procfs_open(request, name, O_RDONLY | O_NOFOLLOW);
	if (IS_ERR(file))
		return PTR_ERR(file);
	if (file->f_op->read == seq_read || file->f_op->read_iter == seq_read_iter)
		rc = procfs_seq_read(request, file->private_data);
	else
		rc = -EOPNOTSUPP;	/* not a text of records: environ, mem, a directory ... */
	__fput_sync(file);
	return rc;
}
