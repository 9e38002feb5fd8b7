/* SPDX-License-Identifier: MIT */
/*
 * hook_filter: the language in which hooks/NAME/filter says which calls are meant.
 *
 *	CALLS [enter] [return] [trace] [regs] [TESTS]
 *
 * A text becomes a program, struct hm_filter, which the guest runs.  hypermemfs.1
 * describes the language.
 */
#ifndef HMFS_HOOK_FILTER_H
#define HMFS_HOOK_FILTER_H

#include <stddef.h>

#include "bridge/wire_hook.h"

/* Why a text is no filter, and where. */
struct hmfs_filter_error {
	size_t offset;		/* bytes */
	char reason[96];
};

/* -EINVAL: it is none, and *ret_error says why. */
int hmfs_filter_parse(const char *text, size_t size, struct hm_filter *ret,
		      struct hmfs_filter_error *ret_error);

/* The text, and below it where it is wrong and why; g_free() it. */
char *hmfs_filter_complaint(const char *text, size_t size, const struct hmfs_filter_error *error);

#endif
