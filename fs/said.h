/* SPDX-License-Identifier: MIT */
/*
 * said: what others say on standard error, for the one line that says why not.
 *
 * libfuse has fusermount3 mount for whoever may not, and that explains itself there.
 */
#ifndef HMFS_SAID_H
#define HMFS_SAID_H

struct hmfs_said {
	int fd;		/* what is kept; -1: nothing */
	int stderr_fd;	/* what standard error was */
};

/* From here on it is kept.  It cannot fail: at worst nothing is. */
void hmfs_said_begin(struct hmfs_said *said);
/* Put standard error back; the text in a line, without "fusermount3: ", or NULL: there is none. */
char *hmfs_said_end(struct hmfs_said *said);

#endif
