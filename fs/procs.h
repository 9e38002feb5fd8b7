/* SPDX-License-Identifier: MIT */
/*
 * procs: the guest's processes as they were at most a second ago.
 *
 * Names and attributes may be that old (contents never are), so that `ls -l` costs
 * one listing and a path's steps one question, not one for each.  Safe to call
 * from any thread.
 */
#ifndef HMFS_PROCS_H
#define HMFS_PROCS_H

#include "bridge/client.h"

#define HMFS_ATTR_SECONDS 1.0

struct hmfs_procs;

struct hmfs_procs *hmfs_procs_new(struct hm_client *client);
void hmfs_procs_free(struct hmfs_procs *procs);

/*
 * One process.  ret_epoch: the boot of the guest that it belongs to; may be NULL.
 * -ESRCH: there is none; and the errors of client.h.
 */
int hmfs_procs_get(struct hmfs_procs *procs, uint32_t pid, struct hm_proc *ret,
		   uint64_t *ret_epoch);
/* All of them (struct hm_proc), asked for now. */
int hmfs_procs_list(struct hmfs_procs *procs, GArray **ret);

#endif
