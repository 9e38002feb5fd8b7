/* SPDX-License-Identifier: MIT */
/*
 * number: numbers as users write them.
 */
#ifndef HMFS_NUMBER_H
#define HMFS_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal, or hexadecimal after 0x; no sign.  -EINVAL: it is no number; -ERANGE: 2^64 or more. */
int hmfs_number_parse(const char *text, size_t size, uint64_t *ret);
/* The same, perhaps with a minus sign: from -2^63 to 2^64 - 1. */
int hmfs_signed_parse(const char *text, size_t size, uint64_t *ret, bool *ret_negative);

/* Bytes of a line without the newline that echo puts behind it. */
size_t hmfs_line_size(const char *text, size_t size);

#endif
