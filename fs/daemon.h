/* SPDX-License-Identifier: MIT */
/*
 * daemon: to the background, once all is well.
 *
 * The process that was started stays until its child says that it is ready, or ends:
 * then it ends in the same way.  So threads can be started, and errors told, before.
 */
#ifndef HMFS_DAEMON_H
#define HMFS_DAEMON_H

struct hmfs_daemon {
	int ready;	/* the pipe to who waits; -1: nobody does */
};

/*
 * First of all: descriptors 0 to 2 that are closed get /dev/null, so that nothing else
 * gets their numbers.
 */
int hmfs_daemon_init(void);
/* Go on as a child; returns in the child only, or with -errno. */
int hmfs_daemon_begin(struct hmfs_daemon *daemon);
/* Let the waiting process end with 0; leave its terminal and directory. */
int hmfs_daemon_ready(struct hmfs_daemon *daemon);

#endif
