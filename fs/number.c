// SPDX-License-Identifier: MIT
/*
 * number: numbers as users write them.  See number.h.
 */
#include <errno.h>
#include <glib.h>

#include "fs/number.h"

int hmfs_number_parse(const char *text, size_t size, uint64_t *ret)
{
	bool hex = size > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	unsigned int base = hex ? 16 : 10;
	bool overflow = false;
	uint64_t number = 0;

	/* A leading zero would be octal to some. */
	if (size == 0 || (!hex && text[0] == '0' && size > 1))
		return -EINVAL;
	for (size_t i = hex ? 2 : 0; i < size; i++) {
		int digit = g_ascii_xdigit_value(text[i]);

		if (digit < 0 || (unsigned int)digit >= base)
			return -EINVAL;
		overflow |= number > (UINT64_MAX - (unsigned int)digit) / base;
		number = number * base + (unsigned int)digit;
	}
	if (overflow)
		return -ERANGE;
	*ret = number;
	return 0;
}

int hmfs_signed_parse(const char *text, size_t size, uint64_t *ret, bool *ret_negative)
{
	bool negative = size && text[0] == '-';
	uint64_t number;
	int rc = hmfs_number_parse(text + negative, size - negative, &number);

	if (rc < 0)
		return rc;
	if (negative && number > (uint64_t)INT64_MAX + 1)
		return -ERANGE;
	*ret = negative ? -number : number;
	*ret_negative = negative && number;
	return 0;
}

size_t hmfs_line_size(const char *text, size_t size)
{
	return size && text[size - 1] == '\n' ? size - 1 : size;
}
