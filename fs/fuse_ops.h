/* SPDX-License-Identifier: MIT */
/*
 * fuse_ops: libfuse's callbacks.  The file system is their private data (struct hmfs).
 */
#ifndef HMFS_FUSE_OPS_H
#define HMFS_FUSE_OPS_H

#include <stdbool.h>

#define FUSE_USE_VERSION 312
#include <fuse.h>

#define HMFS_READ_MAX (1024 * 1024)	/* of one FUSE request; what the kernel allows */

extern const struct fuse_operations hmfs_fuse_operations;

/* In a thread that serves a request: has its reader been interrupted? */
bool hmfs_fuse_interrupted(void);

#endif
