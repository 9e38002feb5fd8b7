/* SPDX-License-Identifier: MIT */
/*
 * hook_line: an event as a line of words that a shell can eval, and a line of
 * hooks/NAME/reply as a verdict.
 */
#ifndef HMFS_HOOK_LINE_H
#define HMFS_HOOK_LINE_H

#include <glib.h>

#include "bridge/wire_hook.h"

#define HMFS_EVENT_LINE_MAX 4096

/* Appended to `text`, with its newline. */
void hmfs_event_print(const struct hm_event *event, const char *hook, GByteArray *text);

/* ID VERB...  -EINVAL. */
int hmfs_reply_parse(const char *line, size_t size, uint64_t *ret_id, struct hm_verdict *ret);

#endif
