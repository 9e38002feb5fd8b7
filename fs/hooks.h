/* SPDX-License-Identifier: MIT */
/*
 * hooks: the names in hooks/, and what belongs to each.  Its system calls are the
 * business of bridge/hooks.h, its files that of file_hook.c and file_hook_events.c.
 */
#ifndef HMFS_HOOKS_H
#define HMFS_HOOKS_H

#include "bridge/hooks.h"
#include "fs/node.h"

struct hmfs_hook {
	gatomicrefcount refs;
	char name[HMFS_HOOK_NAME_SIZE];
	struct timespec made;
	struct hm_hook *hook;

	GMutex writing;		/* held while the guest is given another filter */
	GMutex lock;		/* protects what follows */
	GBytes *text;		/* the filter; NULL: none yet */
	char *complaint;	/* about the last filter written, if it was bad; NULL */
};

struct hmfs_hooks *hmfs_hooks_new(struct hm_client *client);
/* The client has been stopped, and no file is open. */
void hmfs_hooks_free(struct hmfs_hooks *hooks);

/* -ENOENT.  Then hmfs_hook_unref() is due. */
int hmfs_hooks_find(struct hmfs_hooks *hooks, const char *name, struct hmfs_hook **ret);
void hmfs_hook_unref(struct hmfs_hook *hook);

#endif
