// SPDX-License-Identifier: MIT
/*
 * fake_guest_memory: what processes have in memory, and where.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fake_guest_proc.h"

/*
 * /proc/PID/mem at an address, with a file position of its own: pread() refuses
 * addresses of the upper half.
 */
static int mem_open(const struct request *request, int flags, int *ret)
{
	int fd = openat(request->dir, "mem", flags | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	lseek(fd, request->frame.addr, SEEK_SET);	/* may be "negative" */
	*ret = fd;
	return 0;
}

/* Behind the last address there is nothing, too. */
static int mem_errno(int error)
{
	return error == EOVERFLOW ? -EIO : -error;
}

static int mem_read(const struct request *request, uint32_t limit, struct frame *reply)
{
	ssize_t n = 0;
	int fd, rc;

	if (!process_has_memory(request->dir))
		return process_is_gone(request->dir) ? -ESRCH : 0;
	rc = mem_open(request, O_RDONLY, &fd);
	if (rc)
		return rc;
	g_byte_array_set_size(reply->data, limit);
	for (uint32_t done = 0; done < limit; done += n) {
		n = read(fd, reply->data->data + done, limit - done);
		if (n <= 0) {
			rc = n < 0 ? mem_errno(errno) : 0;	/* 0: it has just exited */
			g_byte_array_set_size(reply->data, done);
			break;
		}
	}
	close(fd);
	return rc;
}

int op_read(struct request *request, struct frame *reply)
{
	return mem_read(request, request->frame.size, reply);
}

static int mem_write(const struct request *request, const uint8_t *data, uint32_t size,
		     struct frame *reply)
{
	ssize_t n = 0;
	int fd, rc;

	if (!process_has_memory(request->dir))
		return process_is_gone(request->dir) ? -ESRCH : -EIO;
	rc = mem_open(request, O_WRONLY, &fd);
	if (rc)
		return rc;
	for (reply->size = 0; reply->size < size; reply->size += n) {
		n = write(fd, data + reply->size, size - reply->size);
		if (n <= 0) {
			rc = n < 0 ? mem_errno(errno) : -ESRCH;
			break;
		}
	}
	close(fd);
	return rc;
}

int op_write(struct request *request, struct frame *reply)
{
	return mem_write(request, request->frame.data->data, request->frame.data->len, reply);
}

int op_read_ptr(struct request *request, struct frame *reply)
{
	uint32_t size = process_is_32bit(request->dir) ? 4 : 8;
	int rc = mem_read(request, size, reply);

	return rc == 0 && reply->data->len < size ? -EIO : rc;
}

int op_write_ptr(struct request *request, struct frame *reply)
{
	uint32_t size = process_is_32bit(request->dir) ? 4 : 8;
	struct frame there = { .data = g_byte_array_new() };
	uint64_t number;
	uint32_t narrow;
	int rc;

	if (request->frame.data->len != sizeof(number))
		return -EINVAL;
	memcpy(&number, request->frame.data->data, sizeof(number));
	number = le64toh(number);
	narrow = (uint32_t)number;
	if (size == 4 && narrow != number)
		return -ERANGE;
	rc = mem_read(request, size, &there);
	if (rc == 0 && there.data->len < size)
		rc = -EIO;
	g_byte_array_unref(there.data);
	if (rc == 0)
		rc = mem_write(request, size == 4 ? (void *)&narrow : (void *)&number, size, reply);
	reply->size = rc ? 0 : sizeof(number);
	return rc;
}

int op_read_str(struct request *request, struct frame *reply)
{
	int rc = op_read(request, reply);
	const uint8_t *nul = reply->data->len ? memchr(reply->data->data, 0, reply->data->len) :
						NULL;

	if (nul) {
		g_byte_array_set_size(reply->data, nul + 1 - reply->data->data);
		return 0;
	}
	/* A process without memory has no string either. */
	return rc == 0 && reply->data->len < request->frame.size ? -EIO : rc;
}

/* Device memory cannot be told from its line in maps: try. */
static bool map_no_access(int dir, uint64_t start, const char *name)
{
	char byte;
	int fd;
	bool no;

	if (!g_str_has_prefix(name, "[v") && !g_str_has_prefix(name, "/dev/"))
		return false;
	fd = openat(dir, "mem", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	lseek(fd, start, SEEK_SET);
	no = read(fd, &byte, 1) != 1;
	close(fd);
	return no;
}

static bool map_parse(int dir, const char *line, struct hypermem_map *ret)
{
	uint64_t start, end, offset, inode;
	unsigned int major, minor;
	uint32_t flags = 0;
	char perms[5];
	int name = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &start,
		   &end, perms, &offset, &major, &minor, &inode, &name) < 7)
		return false;
	flags |= perms[0] == 'r' ? HYPER_MAP_READ : 0;
	flags |= perms[1] == 'w' ? HYPER_MAP_WRITE : 0;
	flags |= perms[2] == 'x' ? HYPER_MAP_EXEC : 0;
	flags |= perms[3] == 's' ? HYPER_MAP_SHARED : 0;
	flags |= map_no_access(dir, start, line + name) ? HYPER_MAP_NO_ACCESS : 0;
	*ret = (struct hypermem_map){
		.start = GUINT64_TO_LE(start),
		.end = GUINT64_TO_LE(end),
		.offset = GUINT64_TO_LE(offset),
		.inode = GUINT64_TO_LE(inode),
		.dev_major = GUINT32_TO_LE(major),
		.dev_minor = GUINT32_TO_LE(minor),
		.flags = GUINT32_TO_LE(flags),
	};
	return true;
}

int op_list_maps(struct request *request, struct frame *reply)
{
	g_autoptr(GByteArray) text = NULL;
	struct hypermem_map record;
	int rc;

	reply->addr = 0;
	if (!process_has_memory(request->dir))
		return process_is_gone(request->dir) ? -ESRCH : 0;
	rc = file_read(request->dir, "maps", &text);
	if (rc)
		return rc;
	g_byte_array_append(text, (const guint8 *)"", 1);
	for (char *line = (char *)text->data, *next; *line; line = next) {
		uint64_t start = strtoull(line, NULL, 16);

		next = strchr(line, '\n') + 1;
		next[-1] = 0;
		/* The gate page of the kernel is no mapping of the process. */
		if (strstr(line, "[vsyscall]") || !map_parse(request->dir, line, &record) ||
		    GUINT64_FROM_LE(record.end) <= request->frame.addr)
			continue;
		if (!reply_put(request, reply, &record, sizeof(record))) {
			reply->addr = start;
			break;
		}
	}
	return 0;
}
