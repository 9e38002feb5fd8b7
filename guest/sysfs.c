// SPDX-License-Identifier: GPL-2.0
/*
 * sysfs: what drivers say nowhere else, read as user space would read it.  See link.h.
 *
 * In a mount of our own, so that nobody needs to have mounted it.
 */
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mount.h>

#include "compat.h"
#include "link.h"

static ssize_t sysfs_read_file(struct vfsmount *mnt, const char *path, char *text, size_t size)
{
	struct file *file = hypermem_open_root(mnt, path, O_RDONLY);
	loff_t at = 0;
	ssize_t n;

	if (IS_ERR(file))
		return PTR_ERR(file);
	n = kernel_read(file, text, size, &at);
	fput(file);
	return n;
}

ssize_t hypermem_sysfs_read(const char *path, char *text, size_t size)
{
	struct file_system_type *type = get_fs_type("sysfs");
	struct vfsmount *mnt;
	ssize_t n;

	if (!type)
		return -EOPNOTSUPP;
	mnt = kern_mount(type);
	module_put(type->owner);
	if (IS_ERR(mnt))
		return PTR_ERR(mnt);
	n = sysfs_read_file(mnt, path, text, size - 1);
	kern_unmount(mnt);
	if (n >= 0)
		text[n] = '\0';
	return n;
}
