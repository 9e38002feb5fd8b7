/* SPDX-License-Identifier: MIT */
/*
 * node: which names exist, and what a path means.
 *
 * The tree is a table of rows (node.c), as in Linux's fs/proc/base.c; lookup and
 * listing are generic over it.  A row says what its file can do with functions from
 * the file_*.c that makes the content.  A node is a row and the numbers on the path
 * to it; it holds nothing, so there is nothing to forget.
 *
 * Here and in file_*.c functions return 0, a count, or -errno as the user will
 * see it.  Nothing here knows libfuse.
 */
#ifndef HMFS_NODE_H
#define HMFS_NODE_H

#include <glib.h>
#include <sys/stat.h>
#include <time.h>

#include "bridge/client.h"
#include "fs/procs.h"

struct hmfs_file;
struct hmfs_hook;
struct hmfs_hooks;
struct hmfs_node;

/* The mounted file system. */
struct hmfs {
	struct hm_client *client;
	struct hmfs_procs *procs;
	struct hmfs_hooks *hooks;
	/* Tell who polls a file, by what hmfs_file_poll() was given; or forget it. */
	void (*poll_wake)(void *handle);
	void (*poll_free)(void *handle);
	const char *address;	/* of the chardev */
	bool others;		/* are let in, as far as modes and owners let them */
	struct timespec mounted;	/* when */
	GMutex lock;		/* protects what follows */
	GQueue files;		/* that are open */
};

#define HMFS_HOOK_NAME_SIZE 64	/* with its NUL */

/* Takes one name of a directory; non-zero: stop. */
typedef int (*hmfs_fill_fn)(void *arg, const char *name, const struct stat *st);

/* What stands in a path for a name: nothing, or a number that goes ... */
enum hmfs_number {
	HMFS_NAME,
	HMFS_PID,		/* ... into node->pid */
	HMFS_FD,		/* ... into node->fd */
	HMFS_ADDR,		/* ... into node->addr; in hexadecimal, too */
	HMFS_HOOK,		/* any name, which goes into node->hook */
};

struct hmfs_row {
	const char *name;
	enum hmfs_number number;	/* instead of a name */
	mode_t mode;
	const struct hmfs_row *rows;	/* of a directory; an empty row ends them */
	int arg;			/* for the functions: which of several alike */
	bool stream;			/* it has no offsets */

	/* Does the number exist, and what is it like?  NULL: as the process it belongs to. */
	int (*stat)(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret);
	/* The numbers of a directory; NULL: they are accepted, not listed. */
	int (*list)(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg);

	/* Of what mkdir and rmdir make and remove. */
	int (*make)(struct hmfs *fs, const struct hmfs_node *node);
	int (*remove)(struct hmfs *fs, const struct hmfs_node *node);

	/* For a file that needs more than that; after success it is closed. */
	int (*open)(struct hmfs_file *file);
	void (*close)(struct hmfs_file *file);

	/* From offset; fewer bytes than size, or 0: the end. */
	ssize_t (*read)(struct hmfs_file *file, void *buf, size_t size, off_t offset);
	ssize_t (*write)(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
	/* SEEK_DATA and SEEK_HOLE. */
	off_t (*seek)(struct hmfs_file *file, off_t offset, int whence);
	/* POLLIN ...; NULL: always.  When that changes, hmfs_file_wake(). */
	unsigned int (*poll)(struct hmfs_file *file);
	/* The text, NUL-terminated; its length. */
	ssize_t (*readlink)(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size);
};

struct hmfs_node {
	const struct hmfs_row *row;
	uint32_t pid;
	uint32_t fd;
	uint64_t addr;
	char hook[HMFS_HOOK_NAME_SIZE];
};

void hmfs_init(struct hmfs *fs, struct hm_client *client, const char *address);
/* The client is stopped, and what is open still is closed: poll_wake is not called any more. */
void hmfs_close(struct hmfs *fs);
/* The same, and the rest. */
void hmfs_deinit(struct hmfs *fs);

/* What a path names, by its form alone.  -ENOENT, -ENOTDIR. */
int hmfs_node_lookup(const char *path, struct hmfs_node *ret);

/* Its attributes.  -ENOENT: it does not exist (now). */
int hmfs_node_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret);
/* The names in a directory. */
int hmfs_node_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg);
ssize_t hmfs_node_readlink(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size);

/* Why a name that is not there cannot be made. */
int hmfs_node_create(const char *path);
/* mkdir and rmdir.  -EPERM: the tree is the guest's there. */
int hmfs_node_make(struct hmfs *fs, const char *path);
int hmfs_node_remove(struct hmfs *fs, const char *path);

/* The process that a node belongs to.  -ENOENT: it has gone. */
int hmfs_node_who(struct hmfs *fs, const struct hmfs_node *node, struct hm_who *ret);

/* file_args.c: cmdline, environ */
enum hmfs_args { HMFS_CMDLINE, HMFS_ENVIRON };
ssize_t hmfs_args_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);

/* file_info.c: info */
ssize_t hmfs_info_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);

/* file_link.c: exe, cwd, root, fd */
ssize_t hmfs_link_readlink(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size);
int hmfs_fd_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret);
int hmfs_fd_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg);
ssize_t hmfs_fd_readlink(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size);

/* file_mem.c: mem */
ssize_t hmfs_mem_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
ssize_t hmfs_mem_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
off_t hmfs_mem_seek(struct hmfs_file *file, off_t offset, int whence);

/* file_text.c: comm, maps and the other texts of /proc/PID, by the row's name */
ssize_t hmfs_text_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);

/*
 * A small text that `make` makes; anew for who reads from the start, and kept for what
 * follows: it may change meanwhile.
 */
ssize_t hmfs_text_read_made(struct hmfs_file *file, void *buf, size_t size, off_t offset,
			    int (*make)(struct hmfs_file *file, GByteArray *text));

/* file_typed.c: int, uint, long, ptr; str; bits */
enum hmfs_number_type { HMFS_INT, HMFS_UINT, HMFS_LONG, HMFS_PTR };
ssize_t hmfs_number_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
ssize_t hmfs_number_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
ssize_t hmfs_str_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
ssize_t hmfs_str_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
ssize_t hmfs_bits_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);

/* hooks.c: hooks */
int hmfs_hooks_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret);
int hmfs_hooks_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg);
int hmfs_hook_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret);
int hmfs_hook_make(struct hmfs *fs, const struct hmfs_node *node);
int hmfs_hook_remove(struct hmfs *fs, const struct hmfs_node *node);
/* -EINVAL, -ENAMETOOLONG: it cannot be a hook's name. */
int hmfs_hook_name_check(const char *name, size_t size);

/* file_hook.c: filter, enabled, timeout, stats */
int hmfs_hook_open(struct hmfs_file *file);
ssize_t hmfs_filter_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
ssize_t hmfs_filter_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
ssize_t hmfs_enabled_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
ssize_t hmfs_enabled_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
ssize_t hmfs_timeout_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
ssize_t hmfs_timeout_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);
ssize_t hmfs_stats_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);

/* file_hook_events.c: events, reply */
int hmfs_events_open(struct hmfs_file *file);
void hmfs_events_close(struct hmfs_file *file);
ssize_t hmfs_events_read(struct hmfs_file *file, void *buf, size_t size, off_t offset);
unsigned int hmfs_events_poll(struct hmfs_file *file);
ssize_t hmfs_reply_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset);

#endif
