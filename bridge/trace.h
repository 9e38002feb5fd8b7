/* SPDX-License-Identifier: MIT */
/*
 * trace: a frame as a line.
 */
#ifndef HM_TRACE_H
#define HM_TRACE_H

#include "bridge/wire.h"

/* One line for a trace, as "> READ tag 5 pid 42 addr 0x7ffe size 4096". */
char *hm_header_to_string(const struct hm_header *header, bool to_guest);

#endif
