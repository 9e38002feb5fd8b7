// SPDX-License-Identifier: MIT
/*
 * file_typed: pid/N/int/ADDR and its like: what is in memory at an address, as text;
 * and pid/N/bits, which says how wide a pointer is there.
 *
 * Reading from the start asks the guest, once.  How wide a pointer is the guest knows best.
 * What is written must come in one piece: nothing is kept to be put together with what may
 * follow.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/file.h"
#include "fs/number.h"

/* A string is not longer, without its NUL. */
#define STR_MAX		(1024 * 1024)
/* Any kernel hands over so much in one piece: it cuts at 32 pages or more. */
#define STR_WRITE_MAX	(64 * 1024)

static const struct number_type {
	size_t size;		/* bytes; 0: as a pointer of the process */
	bool is_signed;
	bool hex;
} number_types[] = {
	[HMFS_INT] = { .size = 4, .is_signed = true },
	[HMFS_UINT] = { .size = 4 },
	[HMFS_LONG] = { .size = 8, .is_signed = true },
	[HMFS_PTR] = { .hex = true },
};

/* The number as it is in memory: its lower bytes.  A pointer may be too wide for the process. */
static int number_parse(const struct number_type *type, const char *text, size_t n, uint64_t *ret)
{
	uint64_t max = type->size == 4 ? UINT32_MAX : UINT64_MAX, number;
	bool negative;
	int rc = hmfs_signed_parse(text, n, &number, &negative);

	if (rc < 0)
		return rc;
	if (type->is_signed)
		max /= 2;
	if (negative ? !type->is_signed || -number > max + 1 : number > max)
		return -ERANGE;
	*ret = number;
	return 0;
}

static void number_print(const struct number_type *type, uint64_t number, GByteArray *text)
{
	char line[32];

	if (type->is_signed)
		g_snprintf(line, sizeof(line), "%" PRId64 "\n",
			   type->size == 4 ? (int32_t)number : (int64_t)number);
	else
		g_snprintf(line, sizeof(line), type->hex ? "0x%" PRIx64 "\n" : "%" PRIu64 "\n",
			   number);
	g_byte_array_append(text, (const guint8 *)line, (guint)strlen(line));
}

static int number_make(struct hmfs_file *file, GByteArray *text)
{
	const struct number_type *type = &number_types[file->node.row->arg];
	struct hm_client *client = file->fs->client;
	uint64_t number;
	int rc;

	if (type->size)
		rc = hm_client_read_number(client, file->who, file->node.addr, type->size, &number);
	else
		rc = hm_client_read_pointer(client, file->who, file->node.addr, &number);
	if (rc == 0)
		number_print(type, number, text);
	return rc;
}

ssize_t hmfs_number_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, number_make);
}

ssize_t hmfs_number_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	const struct number_type *type = &number_types[file->node.row->arg];
	struct hm_client *client = file->fs->client;
	uint64_t addr = file->node.addr, number;
	int rc;

	if (offset != 0)
		return -EINVAL;
	rc = number_parse(type, buf, hmfs_line_size(buf, size), &number);
	if (rc == 0 && type->size)
		rc = hm_client_write_number(client, file->who, addr, type->size, number);
	else if (rc == 0)
		rc = hm_client_write_pointer(client, file->who, addr, number);
	return rc < 0 ? rc : (ssize_t)size;
}

static int str_make(struct hmfs_file *file, GByteArray *text)
{
	ssize_t n;

	g_byte_array_set_size(text, STR_MAX + 1);
	n = hm_client_read_str(file->fs->client, file->who, file->node.addr, (char *)text->data,
			       text->len);
	if (n < 0)
		return n == -E2BIG ? -EFBIG : (int)n;
	text->data[n] = '\n';	/* in the place of its NUL */
	g_byte_array_set_size(text, (guint)n + 1);
	return 0;
}

ssize_t hmfs_str_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, str_make);
}

ssize_t hmfs_str_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	size_t n = hmfs_line_size(buf, size);
	g_autofree char *str = NULL;
	ssize_t done;

	if (offset != 0)
		return -EINVAL;
	/* It may be the beginning of something longer. */
	if (n > STR_WRITE_MAX)
		return -EFBIG;
	str = g_malloc0(n + 1);
	memcpy(str, buf, n);
	done = hm_client_write(file->fs->client, file->who, file->node.addr, str, n + 1);
	if (done < 0)
		return done;
	return (size_t)done == n + 1 ? (ssize_t)size : -EIO;
}

static int bits_make(struct hmfs_file *file, GByteArray *text)
{
	struct hm_proc proc;
	char line[16];
	uint64_t epoch;
	int rc;

	rc = hm_client_read_proc(file->fs->client, file->who.pid, &proc, &epoch);
	if (rc < 0)
		return rc;
	if (epoch != file->who.epoch)
		return -ESTALE;
	if (proc.stamp != file->who.stamp)
		return -ESRCH;
	g_snprintf(line, sizeof(line), "%d\n", proc.flags & HYPER_PROC_32BIT ? 32 : 64);
	g_byte_array_append(text, (const guint8 *)line, (guint)strlen(line));
	return 0;
}

ssize_t hmfs_bits_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, bits_make);
}
