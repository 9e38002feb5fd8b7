// SPDX-License-Identifier: MIT
/*
 * fake_guest_text: texts of /proc/PID, and links.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fake_guest_proc.h"

/*
 * `limit` bytes of a file from addr on, in one go: the next read may be of what the
 * process executes by then.
 */
static int read_area(struct request *request, struct frame *reply, const char *name)
{
	uint32_t limit = request->frame.size;
	ssize_t n;
	int fd;

	if (!process_has_memory(request->dir))
		return process_is_gone(request->dir) ? -ESRCH : 0;
	fd = openat(request->dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	g_byte_array_set_size(reply->data, limit);
	n = pread(fd, reply->data->data, limit, (off_t)request->frame.addr);
	g_byte_array_set_size(reply->data, (guint)MAX(n, 0));
	n = n < 0 ? -errno : 0;
	close(fd);
	return (int)n;
}

int op_read_procargs(struct request *request, struct frame *reply)
{
	return read_area(request, reply, "cmdline");
}

int op_read_procenv(struct request *request, struct frame *reply)
{
	return read_area(request, reply, "environ");
}

static int read_link(struct request *request, struct frame *reply, const char *name)
{
	char text[65536];
	ssize_t n = readlinkat(request->dir, name, text, sizeof(text));

	if (n < 0)
		return process_is_gone(request->dir) ? -ESRCH : -errno;
	return reply_put(request, reply, text, n) ? 0 : -ENAMETOOLONG;
}

int op_read_fd_name(struct request *request, struct frame *reply)
{
	g_autofree char *name = g_strdup_printf("fd/%" PRIu64, request->frame.addr);

	return read_link(request, reply, name);
}

int op_read_link(struct request *request, struct frame *reply)
{
	static const char *const names[HYPER_LINK_MAX] = {
		[HYPER_LINK_EXE] = "exe",
		[HYPER_LINK_CWD] = "cwd",
		[HYPER_LINK_ROOT] = "root",
	};

	if (request->frame.addr >= HYPER_LINK_MAX)
		return -EINVAL;
	return read_link(request, reply, names[request->frame.addr]);
}

/* Only plain text files that are safe to read as a whole. */
static bool proc_file_allowed(int dir, const char *name)
{
	static const char *const not_text[] = {
		"auxv", "clear_refs", "cmdline", "environ", "mem", "pagemap", NULL,
	};
	struct stat stat;

	return !g_strv_contains(not_text, name) && !strchr(name, '/') &&
	       fstatat(dir, name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(stat.st_mode);
}

int op_read_proc_file(struct request *request, struct frame *reply)
{
	const GByteArray *data = request->frame.data;
	g_autofree char *name = g_strndup((const char *)data->data, data->len);
	uint64_t cursor = request->frame.addr, size;
	g_autoptr(GByteArray) text = NULL;
	int rc;

	if (data->len == 0 || data->len > 255 || strlen(name) != data->len || strchr(name, '/'))
		return -EINVAL;
	reply->addr = 0;
	if (!proc_file_allowed(request->dir, name))
		return process_is_gone(request->dir) ? -ESRCH : -ENOENT;
	rc = file_read(request->dir, name, &text);
	if (rc == -ESRCH && !process_is_gone(request->dir) && !process_has_memory(request->dir))
		return 0;
	if (rc || cursor >= text->len)
		return rc;
	size = text->len - cursor;
	if (size > request->max_data) {
		const uint8_t *part = text->data + cursor;
		const uint8_t *newline = memrchr(part, '\n', request->max_data);

		size = newline ? newline + 1 - part : request->max_data;
		reply->addr = cursor + size;
	}
	g_byte_array_append(reply->data, text->data + cursor, size);
	return 0;
}
