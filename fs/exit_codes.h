/* SPDX-License-Identifier: MIT */
/* What hypermemfs exits with; hypermemfs.1 lists them. */
#ifndef HMFS_EXIT_CODES_H
#define HMFS_EXIT_CODES_H

enum hmfs_exit {
	HMFS_EXIT_OK = 0,
	HMFS_EXIT_FAILED = 1,		/* anything else */
	HMFS_EXIT_USAGE = 2,
	HMFS_EXIT_CHARDEV = 3,		/* cannot connect to the chardev */
	HMFS_EXIT_GUEST = 4,		/* the guest does not answer, or not sensibly */
	HMFS_EXIT_MOUNT = 5,		/* the mount point cannot be used */
};

#endif
