/* SPDX-License-Identifier: MIT */
/*
 * options: the command line, as a person or mount(8) gives it.
 */
#ifndef HMFS_OPTIONS_H
#define HMFS_OPTIONS_H

#include <stdbool.h>

#include "bridge/client.h"

struct hmfs_options {
	char *chardev;		/* in a form that survives chdir */
	char *mountpoint;
	bool foreground;
	bool debug;
	bool readonly;
	bool others;		/* allow_other, allow_root */
	int timeout_ms;
	enum hm_ram_use ram;
	char *fuse_options;	/* for libfuse's -o, comma-separated */
};

/*
 * Parse; 0, or the exit status to leave with at once, negated as -status - 1: what
 * there was to say (help, version, an error) has been said.
 */
int hmfs_options_parse(int argc, char **argv, struct hmfs_options *ret);
void hmfs_options_clear(struct hmfs_options *options);

#endif
