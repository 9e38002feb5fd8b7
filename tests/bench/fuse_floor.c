/* SPDX-License-Identifier: MIT */
/*
 * fuse_floor: what FUSE itself costs: a file system that serves RAM and no more.
 *
 *	fuse_floor MOUNTPOINT [ENTRIES]
 *
 * `mem` has 64 MiB and over again for ever, `dir` has ENTRIES directories.  libfuse,
 * its options, its threads and the sizes are those of hypermemfs (fs/fuse_ops.c,
 * fs/main.c), so that what hypermemfs takes longer is hypermemfs's and the guest's.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FUSE_USE_VERSION 312
#include <fuse.h>

#include "fs/fuse_ops.h"
#include "fs/procs.h"

#define MEM_SIZE ((size_t)64 << 20)

static char *mem;
static int entries;

static void *floor_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	config->attr_timeout = HMFS_ATTR_SECONDS;
	config->entry_timeout = HMFS_ATTR_SECONDS;
	config->negative_timeout = 0;
	config->nullpath_ok = 1;
	config->intr = 1;
	config->intr_signal = SIGUSR1;
	conn->max_read = HMFS_READ_MAX;
	conn->max_write = HMFS_READ_MAX;
	return NULL;
}

static int floor_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	memset(st, 0, sizeof(*st));
	st->st_nlink = 1;
	st->st_mode = path && !strcmp(path, "/mem") ? S_IFREG | 0400 : S_IFDIR | 0555;
	return 0;
}

static int floor_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
			 struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	const struct stat st = { .st_mode = S_IFDIR | 0555, .st_nlink = 1 };
	char name[12];

	/* With offsets: without them libfuse does not tell the kernel the attributes. */
	for (int i = (int)offset + 1; i <= entries; i++) {
		snprintf(name, sizeof(name), "%d", i);
		if (fill(buf, name, &st, i, FUSE_FILL_DIR_PLUS))
			break;
	}
	return 0;
}

static int floor_open(const char *path, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	return 0;
}

static int floor_read(const char *path, char *buf, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	size_t at = (size_t)offset % MEM_SIZE;

	if (size > MEM_SIZE - at)
		size = MEM_SIZE - at;
	memcpy(buf, mem + at, size);
	return (int)size;
}

static const struct fuse_operations operations = {
	.init = floor_init,
	.getattr = floor_getattr,
	.readdir = floor_readdir,
	.open = floor_open,
	.read = floor_read,
};

static int serve(struct fuse *fuse)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rc;

	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, 256);
	fuse_loop_cfg_set_idle_threads(config, 8);
	fuse_set_signal_handlers(fuse_get_session(fuse));
	rc = fuse_loop_mt(fuse, config);
	fuse_loop_cfg_destroy(config);
	return rc;
}

int main(int argc, char **argv)
{
	char max_read[32], *fuse_argv[] = { "fuse_floor", "-o", max_read, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
	struct fuse *fuse;
	int rc;

	if (argc < 2) {
		fputs("usage: fuse_floor MOUNTPOINT [ENTRIES]\n", stderr);
		return 2;
	}
	entries = argc > 2 ? atoi(argv[2]) : 0;
	snprintf(max_read, sizeof(max_read), "max_read=%d", HMFS_READ_MAX);
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return 1;
	memset(mem, 7, MEM_SIZE);
	fuse = fuse_new(&args, &operations, sizeof(operations), NULL);
	if (!fuse || fuse_mount(fuse, argv[1]))
		return 1;
	rc = serve(fuse);
	fuse_unmount(fuse);
	fuse_destroy(fuse);
	return rc < 0;
}
