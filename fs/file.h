/* SPDX-License-Identifier: MIT */
/*
 * file: what is open, and what it remembers between two reads.  Its contents are the
 * business of file_*.c, by the functions of its row (node.h).
 */
#ifndef HMFS_FILE_H
#define HMFS_FILE_H

#include "bridge/client.h"
#include "fs/node.h"

/* A name in a directory. */
struct hmfs_name {
	char text[HMFS_HOOK_NAME_SIZE];
	struct stat st;
};

/* An open file or directory.  It means the process that was there when it was opened. */
struct hmfs_file {
	struct hmfs *fs;
	GList link;		/* in fs->files */
	struct hmfs_node node;
	struct hm_who who;
	struct stat st;
	uid_t opener;		/* who must be its owner still; 0: nobody */
	struct hmfs_hook *hook;	/* of a hook's file */
	gint flags;		/* atomic: of open(2), as they are now */

	/* Of a directory, which has one reader at a time. */
	GArray *names;		/* struct hmfs_name, as hmfs_file_list() found them ... */
	gint64 listed;		/* ... when: g_get_monotonic_time() */

	GMutex poll_lock;	/* protects what follows */
	void *poll_handle;	/* somebody waits; NULL */

	GMutex lock;		/* protects what follows, for readers at the same time */
	GByteArray *text;	/* the part of a text at hand ... */
	off_t text_offset;	/* ... where it begins in the file ... */
	uint64_t text_cursor;	/* ... and what comes behind it; 0: nothing */
	struct hm_reader *reader;	/* of memory; from the first read on */
	off_t end;		/* where the last read found the end; -1: not at all */
};

/* flags: of open(2), O_DIRECTORY for a directory.  -EACCES: it cannot be written. */
int hmfs_file_open(struct hmfs *fs, const struct hmfs_node *node, int flags,
		   struct hmfs_file **ret);
/*
 * -EINVAL: nothing can be added to memory or to a value, which have no end.  The kernel would
 * put it where it thinks that the end is: behind the last write.
 */
int hmfs_file_check_append(const struct hmfs_node *node, int flags);
/*
 * Its attributes now.  A process that has gone, or is another one, has none: what it had, but
 * root's.
 */
void hmfs_file_stat(struct hmfs_file *file, struct stat *ret);
/*
 * May who has opened it still read, or write?  -EACCES: the process is another user's by now.
 * Or why that is not known.
 */
int hmfs_file_check_opener(struct hmfs_file *file, bool write);
void hmfs_file_close(struct hmfs_file *file);
/* What poll(2) says.  handle: for fs->poll_wake() when there is more to say; or NULL. */
unsigned int hmfs_file_poll(struct hmfs_file *file, void *handle);
void hmfs_file_wake(struct hmfs_file *file);
/* Put the names that are in a directory now into file->names. */
int hmfs_file_list(struct hmfs_file *file);
/* So new that the attributes may be given to the kernel, to keep. */
bool hmfs_file_is_fresh(const struct hmfs_file *file);

#endif
