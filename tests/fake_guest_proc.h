/* SPDX-License-Identifier: MIT */
/*
 * What fake_guest_proc.c knows of processes, for fake_guest_memory.c and fake_guest_text.c.
 * `dir` is /proc/PID, opened.
 */
#ifndef FAKE_GUEST_PROC_H
#define FAKE_GUEST_PROC_H

#include "tests/fake_guest_priv.h"

int file_read(int dir, const char *name, GByteArray **ret);
bool process_has_memory(int dir);
bool process_is_gone(int dir);
bool process_is_32bit(int dir);
bool reply_put(const struct request *request, struct frame *reply, const void *record,
	       size_t size);

#endif
