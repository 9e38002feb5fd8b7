// SPDX-License-Identifier: MIT
/*
 * fake_guest: the protocol, answered from this host's /proc.
 *
 * The table `ops` names the operations; each handler fills in the reply and
 * returns 0 or -errno.  Nothing is cached: /proc is asked for each request.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake_guest_priv.h"

#define MAX_INFLIGHT 64

struct fake_guest {
	struct fake_guest_config config;
	GThreadPool *workers;
	uint64_t boot_ns;	/* when the host booted, ns since 1970 */

	GMutex lock;		/* protects what follows */
	GCond idle;		/* conns has become 0 */
	unsigned int conns;	/* alive */
	uint64_t epoch;
	char *control;		/* what the control file said last */
	const struct misbehaviour *misbehaviour;	/* NULL: none */
	int64_t arg;
};

/* -- frames ------------------------------------------------------------------ */

GByteArray *frame_encode(const struct frame *frame)
{
	uint32_t size = frame->op & HYPER_DATA ? frame->data->len : frame->size;
	uint64_t header[3] = {
		GUINT64_TO_LE((uint64_t)frame->pid << HYPER_PID_SHIFT | frame->op),
		GUINT64_TO_LE(frame->addr),
		GUINT64_TO_LE((uint64_t)frame->stamp << HYPER_STAMP_SHIFT |
			      (uint64_t)frame->tag << HYPER_TAG_SHIFT | size),
	};
	GByteArray *bytes = g_byte_array_new();

	g_byte_array_append(bytes, (const guint8 *)header, sizeof(header));
	if (frame->op & HYPER_DATA)
		g_byte_array_append(bytes, frame->data->data, frame->data->len);
	return bytes;
}

static void frame_decode(const uint8_t bytes[HYPERMEM_HEADER_SIZE], struct frame *ret)
{
	uint64_t header[3], size;

	memcpy(header, bytes, sizeof(header));
	size = GUINT64_FROM_LE(header[2]);
	ret->op = GUINT64_FROM_LE(header[0]);
	ret->pid = GUINT64_FROM_LE(header[0]) >> HYPER_PID_SHIFT;
	ret->addr = GUINT64_FROM_LE(header[1]);
	ret->size = size;
	ret->tag = size >> HYPER_TAG_SHIFT;
	ret->stamp = size >> HYPER_STAMP_SHIFT;
}

static bool frame_is_hello(const struct frame *frame)
{
	return frame->op == HYPER_OP_HELLO && frame->addr == HYPERMEM_MAGIC &&
	       frame->size >= sizeof(struct hypermem_hello) && frame->size <= HYPERMEM_CHUNK_SIZE;
}

/* -- connections --------------------------------------------------------------- */

static struct conn *conn_new(struct fake_guest *guest, int fd)
{
	struct conn *conn = g_new0(struct conn, 1);

	conn->guest = guest;
	conn->fd = fd;
	g_ref_count_init(&conn->refs);
	g_mutex_init(&conn->lock);
	g_mutex_lock(&guest->lock);
	guest->conns++;
	g_mutex_unlock(&guest->lock);
	return conn;
}

static void conn_unref(struct conn *conn)
{
	struct fake_guest *guest = conn->guest;

	g_mutex_lock(&guest->lock);
	if (g_ref_count_dec(&conn->refs)) {
		close(conn->fd);
		g_mutex_clear(&conn->lock);
		g_free(conn);
		if (--guest->conns == 0)
			g_cond_broadcast(&guest->idle);
	}
	g_mutex_unlock(&guest->lock);
}

static struct conn *conn_ref(struct conn *conn)
{
	g_mutex_lock(&conn->guest->lock);
	g_ref_count_inc(&conn->refs);
	g_mutex_unlock(&conn->guest->lock);
	return conn;
}

/* conn->lock is held. */
static void conn_send_locked(struct conn *conn, const uint8_t *buf, size_t size)
{
	while (size > 0 && !conn->closed) {
		ssize_t n = send(conn->fd, buf, size, MSG_NOSIGNAL);

		if (n < 0 && errno == ENOTSOCK)
			n = write(conn->fd, buf, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			conn->closed = true;
			return;
		}
		buf += n;
		size -= n;
	}
}

void conn_send_raw(struct conn *conn, const void *buf, size_t size)
{
	g_mutex_lock(&conn->lock);
	conn_send_locked(conn, buf, size);
	g_mutex_unlock(&conn->lock);
}

void conn_send(struct conn *conn, struct frame *frame)
{
	g_autoptr(GByteArray) bytes = frame_encode(frame);

	conn_send_raw(conn, bytes->data, bytes->len);
}

void conn_hang_up(struct conn *conn)
{
	g_mutex_lock(&conn->lock);
	conn->closed = true;
	shutdown(conn->fd, SHUT_RDWR);	/* wakes fake_guest_serve() */
	g_mutex_unlock(&conn->lock);
}

/* A reply, unless another HELLO has begun another session meanwhile. */
static void conn_reply(struct request *request, struct frame *reply)
{
	g_autoptr(GByteArray) bytes = frame_encode(reply);
	struct conn *conn = request->conn;

	g_mutex_lock(&conn->lock);
	if (conn->session == request->session)
		conn_send_locked(conn, bytes->data, bytes->len);
	g_mutex_unlock(&conn->lock);
}

static void conn_send_reset(struct conn *conn)
{
	g_autoptr(GByteArray) none = g_byte_array_new();
	struct frame reset = { .op = HYPER_RESP_RESET, .data = none };

	conn_send(conn, &reset);
}

static void conn_forget_session(struct conn *conn)
{
	g_mutex_lock(&conn->lock);
	conn->session = 0;
	g_mutex_unlock(&conn->lock);
	hooks_session(0);
}

/* -- /proc ----------------------------------------------------------------------- */

/* The whole of a file that has no size. */
static int file_read(int dir, const char *name, GByteArray **ret)
{
	g_autoptr(GByteArray) text = g_byte_array_new();
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n;
	int rc = 0;

	if (fd < 0)
		return -errno;
	do {
		guint old = text->len;

		g_byte_array_set_size(text, old + 65536);
		n = read(fd, text->data + old, 65536);
		if (n < 0)
			rc = -errno;
		g_byte_array_set_size(text, old + MAX(n, 0));
	} while (n > 0);
	close(fd);
	if (!rc)
		*ret = g_steal_pointer(&text);
	return rc;
}

static uint64_t monotonic_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

#define STAT_FIELDS 52

/* Numbers of /proc/PID/stat by proc(5)'s count, and the letter of the state. */
struct stat_fields {
	uint64_t n[STAT_FIELDS + 1];
	char state;
};

enum {
	STAT_PPID = 4,
	STAT_FLAGS = 9,
	STAT_THREADS = 20,
	STAT_START = 22,
	STAT_VSIZE = 23,
	STAT_ARG_START = 48,
	STAT_ARG_END = 49,
	STAT_ENV_START = 50,
	STAT_ENV_END = 51,
};

static int stat_read(int dir, struct stat_fields *ret)
{
	g_autoptr(GByteArray) text = NULL;
	char *p, *end;
	int rc = file_read(dir, "stat", &text);

	if (rc)
		return rc;
	g_byte_array_append(text, (const guint8 *)"", 1);
	memset(ret, 0, sizeof(*ret));
	ret->n[1] = strtoull((char *)text->data, NULL, 10);
	p = strrchr((char *)text->data, ')');
	if (!p || strlen(p) < 4)
		return -ESRCH;
	ret->state = p[2];
	p += 3;
	for (int i = STAT_PPID; i <= STAT_FIELDS; i++, p = end)
		ret->n[i] = strtoull(p, &end, 10);
	return 0;
}

static uint16_t process_stamp(struct fake_guest *guest, const struct stat_fields *stat)
{
	uint16_t stamp = stat->n[STAT_START] * 0x9e3779b97f4a7c15ULL >> 48;
	const struct misbehaviour *misbehaviour;

	stamp = stamp ?: 1;
	g_mutex_lock(&guest->lock);
	misbehaviour = guest->misbehaviour;
	g_mutex_unlock(&guest->lock);
	return misbehaviour && misbehaviour->stamp ? misbehaviour->stamp(stamp) : stamp;
}

/* /proc/PID of the process that is meant. */
static int process_open(struct fake_guest *guest, uint32_t pid, uint16_t stamp, int *ret)
{
	g_autofree char *path = g_strdup_printf("/proc/%u", pid);
	struct stat_fields stat;
	int dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return -ESRCH;
	if (stat_read(dir, &stat) || (stamp && stamp != process_stamp(guest, &stat))) {
		close(dir);
		return -ESRCH;
	}
	*ret = dir;
	return 0;
}

void fake_guest_self(struct fake_guest *guest, uint32_t *ret_pid, uint16_t *ret_stamp)
{
	struct stat_fields stat = {};
	int dir = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir >= 0) {
		stat_read(dir, &stat);
		close(dir);
	}
	*ret_pid = (uint32_t)getpid();
	*ret_stamp = process_stamp(guest, &stat);
}

/* Whether a process has memory; newer kernels fail to open what belongs to it. */
static bool process_has_memory(int dir)
{
	struct stat_fields stat;

	return stat_read(dir, &stat) == 0 && stat.n[STAT_VSIZE] != 0;
}

static bool process_is_gone(int dir)
{
	return faccessat(dir, "stat", F_OK, 0) != 0;
}

/* By its program; one that has none (a kernel thread, a zombie) is like the kernel. */
static bool process_is_32bit(int dir)
{
	char ident[5] = "";	/* EI_CLASS is the last */
	int fd = openat(dir, "exe", O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0 || read(fd, ident, sizeof(ident)) != sizeof(ident))
		ident[EI_CLASS] = sizeof(long) == 4 ? ELFCLASS32 : ELFCLASS64;
	if (fd >= 0)
		close(fd);
	return ident[EI_CLASS] == ELFCLASS32;
}

static int process_record(struct fake_guest *guest, int dir, struct hypermem_proc *ret)
{
	struct stat owner, plain;
	struct stat_fields stat;
	uint64_t start;
	g_autoptr(GByteArray) comm = NULL;
	uint8_t flags = 0;

	if (stat_read(dir, &stat) || file_read(dir, "comm", &comm) ||
	    fstatat(dir, "", &owner, AT_EMPTY_PATH) || fstatat(dir, "stat", &plain, 0))
		return -ESRCH;
	if (stat.n[STAT_FLAGS] & 0x00200000)	/* PF_KTHREAD */
		flags |= HYPER_PROC_KTHREAD;
	if (stat.n[STAT_VSIZE])
		flags |= HYPER_PROC_MM;
	if (stat.n[STAT_VSIZE] && plain.st_uid == owner.st_uid && plain.st_gid == owner.st_gid)
		flags |= HYPER_PROC_DUMPABLE;
	if (process_is_32bit(dir))
		flags |= HYPER_PROC_32BIT;
	start = stat.n[STAT_START] * (1000000000ULL / sysconf(_SC_CLK_TCK));
	*ret = (struct hypermem_proc){
		.pid = GUINT32_TO_LE(stat.n[1]),
		.ppid = GUINT32_TO_LE(stat.n[STAT_PPID]),
		.uid = GUINT32_TO_LE(owner.st_uid),
		.gid = GUINT32_TO_LE(owner.st_gid),
		.stamp = GUINT16_TO_LE(process_stamp(guest, &stat)),
		.state = stat.state,
		.flags = flags,
		.threads = GUINT32_TO_LE(stat.n[STAT_THREADS]),
		.start_time = GUINT64_TO_LE(start),
		.start_time_real = GUINT64_TO_LE(guest->boot_ns + start),
	};
	if (flags & HYPER_PROC_MM) {
		ret->arg_start = GUINT64_TO_LE(stat.n[STAT_ARG_START]);
		ret->arg_end = GUINT64_TO_LE(stat.n[STAT_ARG_END]);
		ret->env_start = GUINT64_TO_LE(stat.n[STAT_ENV_START]);
		ret->env_end = GUINT64_TO_LE(stat.n[STAT_ENV_END]);
		ret->task_size = GUINT64_TO_LE(sizeof(long) == 8 ? 0x7ffffffff000 : 0xc0000000);
	}
	memcpy(ret->comm, comm->data, MIN(comm->len - 1, sizeof(ret->comm) - 1));
	return 0;
}

static gint compare_numbers(gconstpointer a, gconstpointer b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The names of a directory that are numbers >= first, ascending. */
static GArray *numbers(const char *path, uint64_t first)
{
	GArray *all = g_array_new(false, false, sizeof(uint32_t));
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	const char *name;

	while (dir && (name = g_dir_read_name(dir))) {
		uint32_t n = strtoul(name, NULL, 10);

		if (g_ascii_isdigit(name[0]) && n >= first)
			g_array_append_val(all, n);
	}
	g_array_sort(all, compare_numbers);
	return all;
}

/* -- handlers ------------------------------------------------------------------------ */

/* Append a record; false if there is no room within the host's limit. */
static bool put(const struct request *request, struct frame *reply, const void *record, size_t size)
{
	if (reply->data->len + size > request->frame.size)
		return false;
	g_byte_array_append(reply->data, record, size);
	return true;
}

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

static int op_read(struct request *request, struct frame *reply)
{
	uint32_t limit = request->frame.size;
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

static int op_write(struct request *request, struct frame *reply)
{
	const GByteArray *data = request->frame.data;
	ssize_t n = 0;
	int fd, rc;

	if (!process_has_memory(request->dir))
		return process_is_gone(request->dir) ? -ESRCH : -EIO;
	rc = mem_open(request, O_WRONLY, &fd);
	if (rc)
		return rc;
	for (reply->size = 0; reply->size < data->len; reply->size += n) {
		n = write(fd, data->data + reply->size, data->len - reply->size);
		if (n <= 0) {
			rc = n < 0 ? mem_errno(errno) : -ESRCH;
			break;
		}
	}
	close(fd);
	return rc;
}

static int op_read_str(struct request *request, struct frame *reply)
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

static int op_read_procargs(struct request *request, struct frame *reply)
{
	return read_area(request, reply, "cmdline");
}

static int op_read_procenv(struct request *request, struct frame *reply)
{
	return read_area(request, reply, "environ");
}

static int read_link(struct request *request, struct frame *reply, const char *name)
{
	char text[65536];
	ssize_t n = readlinkat(request->dir, name, text, sizeof(text));

	if (n < 0)
		return process_is_gone(request->dir) ? -ESRCH : -errno;
	return put(request, reply, text, n) ? 0 : -ENAMETOOLONG;
}

static int op_read_fd_name(struct request *request, struct frame *reply)
{
	g_autofree char *name = g_strdup_printf("fd/%" PRIu64, request->frame.addr);

	return read_link(request, reply, name);
}

static int op_read_link(struct request *request, struct frame *reply)
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

static int op_list_procs(struct request *request, struct frame *reply)
{
	g_autoptr(GArray) pids = numbers("/proc", request->frame.addr);

	reply->addr = 0;
	for (guint i = 0; i < pids->len; i++) {
		uint32_t pid = g_array_index(pids, uint32_t, i);
		struct hypermem_proc record;
		int dir, rc;

		if (process_open(request->conn->guest, pid, 0, &dir))
			continue;
		rc = process_record(request->conn->guest, dir, &record);
		close(dir);
		if (rc == 0 && !put(request, reply, &record, sizeof(record))) {
			reply->addr = pid;
			break;
		}
	}
	return 0;
}

static int op_read_proc(struct request *request, struct frame *reply)
{
	struct hypermem_proc record;
	int rc = process_record(request->conn->guest, request->dir, &record);

	if (!rc)
		g_byte_array_append(reply->data, (const guint8 *)&record, sizeof(record));
	return rc;
}

static int op_list_fds(struct request *request, struct frame *reply)
{
	g_autofree char *path = g_strdup_printf("/proc/self/fd/%d/fd", request->dir);
	g_autoptr(GArray) fds = numbers(path, request->frame.addr);

	if (fds->len == 0 && process_is_gone(request->dir))
		return -ESRCH;
	reply->addr = 0;
	for (guint i = 0; i < fds->len; i++) {
		uint32_t fd = g_array_index(fds, uint32_t, i);
		g_autofree char *name = g_strdup_printf("fd/%u", fd);
		struct hypermem_fd record = { .fd = GUINT32_TO_LE(fd) };
		struct stat stat;

		if (fstatat(request->dir, name, &stat, AT_SYMLINK_NOFOLLOW))
			continue;	/* closed meanwhile */
		record.mode = GUINT32_TO_LE(stat.st_mode);
		if (!put(request, reply, &record, sizeof(record))) {
			reply->addr = fd;
			break;
		}
	}
	return 0;
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

static int op_list_maps(struct request *request, struct frame *reply)
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
		if (!put(request, reply, &record, sizeof(record))) {
			reply->addr = start;
			break;
		}
	}
	return 0;
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

static int op_read_proc_file(struct request *request, struct frame *reply)
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

enum {
	PROCESS = 0x1,	/* about a process: request->dir is open */
	LIMIT = 0x2,	/* size is the limit of the reply's data */
	WRITES = 0x4,	/* refused when read-only */
};

/* No RAM can be seen from outside; fake_guest_window.c has some. */
static int op_window(struct request *request, struct frame *reply)
{
	return 0;
}

static int op_translate(struct request *request, struct frame *reply)
{
	return -EAGAIN;
}

#define OP(name) [HYPER_OP_INDEX(HYPER_OP_##name)] = { .op = HYPER_OP_##name

static const struct op {
	uint32_t op;
	unsigned int flags;
	int (*handle)(struct request *request, struct frame *reply);
} ops[HYPER_OP_MAX] = {
	OP(HELLO) },	/* never gets as far as the table */
	OP(READ),		PROCESS | LIMIT,	op_read },
	OP(WRITE),		PROCESS | WRITES,	op_write },
	OP(READ_STR),		PROCESS | LIMIT,	op_read_str },
	OP(READ_PROCARGS),	PROCESS | LIMIT,	op_read_procargs },
	OP(READ_PROCENV),	PROCESS | LIMIT,	op_read_procenv },
	OP(READ_FD_NAME),	PROCESS | LIMIT,	op_read_fd_name },
	OP(LIST_PROCS),		LIMIT,			op_list_procs },
	OP(READ_PROC),		PROCESS,		op_read_proc },
	OP(LIST_FDS),		PROCESS | LIMIT,	op_list_fds },
	OP(LIST_MAPS),		PROCESS | LIMIT,	op_list_maps },
	OP(READ_LINK),		PROCESS | LIMIT,	op_read_link },
	OP(READ_PROC_FILE),	PROCESS,		op_read_proc_file },
	OP(WINDOW),		LIMIT,			op_window },
	OP(TRANSLATE),		PROCESS,		op_translate },
	OP(HOOK_SET),		WRITES,			op_hook_set },
	OP(HOOK_REMOVE),	0,			op_hook_remove },
	OP(HOOK_WAIT),		LIMIT,			op_hook_wait },
	OP(HOOK_REPLY),		WRITES,			op_hook_reply },
	OP(HOOK_COUNTS),	0,			op_hook_counts },
};

/* -- from request to reply --------------------------------------------------------------- */

static uint64_t ops_mask(bool with_writes)
{
	uint64_t mask = 0;

	for (int i = 0; i < HYPER_OP_MAX; i++)
		if (ops[i].op && (with_writes || !(ops[i].flags & WRITES)))
			mask |= 1ULL << i;
	return mask;
}

static const struct op *op_find(uint32_t op)
{
	uint32_t index = HYPER_OP_INDEX(op);

	return index < HYPER_OP_MAX && ops[index].op == op && ops[index].handle ? &ops[index] :
										  NULL;
}

static void reply_init(const struct request *request, struct frame *reply)
{
	*reply = (struct frame){
		.op = HYPER_RESP_READ_OK,
		.pid = request->frame.pid,
		.addr = request->frame.addr,
		.tag = request->frame.tag,
		.stamp = request->frame.stamp,
		.data = g_byte_array_new(),
	};
}

static int request_handle(struct request *request, const struct op *op, struct frame *reply)
{
	if (!op)
		return -EOPNOTSUPP;
	if ((op->flags & WRITES) && request->readonly)
		return -EPERM;
	if ((op->flags & LIMIT) && request->frame.size > request->max_data)
		return -EINVAL;
	if (op->flags & PROCESS) {
		int rc = process_open(request->conn->guest, request->frame.pid,
				      request->frame.stamp, &request->dir);
		if (rc)
			return rc;
	}
	return op->handle(request, reply);
}

/* How it went: OK, partial, or failed. */
static void reply_finish(const struct op *op, int rc, struct frame *reply)
{
	bool writes = op && (op->flags & WRITES);
	bool nothing = (writes ? reply->size : reply->data->len) == 0;

	if (rc)
		reply->addr = -rc;
	if (rc && nothing)
		reply->op = writes ? HYPER_RESP_WRITE_FAIL : HYPER_RESP_READ_FAIL;
	else if (rc)
		reply->op = writes ? HYPER_RESP_WRITE_PARTIAL : HYPER_RESP_READ_PARTIAL;
	else
		reply->op = writes ? HYPER_RESP_WRITE_OK : HYPER_RESP_READ_OK;
}

static void hello_fill(struct request *request, struct frame *reply, uint32_t max_data)
{
	struct fake_guest *guest = request->conn->guest;
	struct hypermem_hello_reply hello = {
		.version = GUINT32_TO_LE(HYPERMEM_VERSION),
		.flags = GUINT32_TO_LE((request->readonly ? HYPER_HELLO_READONLY : 0) |
				       (G_BYTE_ORDER == G_BIG_ENDIAN ? HYPER_HELLO_BIG_ENDIAN : 0)),
		.ops = GUINT64_TO_LE(ops_mask(true)),
		.allowed = GUINT64_TO_LE(ops_mask(!request->readonly)),
		.max_data = GUINT32_TO_LE(max_data),
		.max_inflight = GUINT32_TO_LE(MAX_INFLIGHT),
		.page_size = GUINT32_TO_LE(sysconf(_SC_PAGESIZE)),
		.word_bits = GUINT32_TO_LE(sizeof(long) * 8),
		.module = "fake",
	};
	struct utsname name;

	g_mutex_lock(&guest->lock);
	hello.epoch = GUINT64_TO_LE(guest->epoch);
	g_mutex_unlock(&guest->lock);
	uname(&name);
	g_strlcpy(hello.release, name.release, sizeof(hello.release));
	g_strlcpy(hello.machine, name.machine, sizeof(hello.machine));
	g_byte_array_append(reply->data, (const guint8 *)&hello, sizeof(hello));
}

/* Another session: what the old one still waits for is never answered. */
static void hello_handle(struct request *request, struct frame *reply)
{
	static unsigned int sessions;	/* under conn->lock; one connection at a time */
	const struct fake_guest_config *config = &request->conn->guest->config;
	struct conn *conn = request->conn;
	struct hypermem_hello hello;

	memcpy(&hello, request->frame.data->data, sizeof(hello));
	request->readonly = config->readonly ||
			    (GUINT32_FROM_LE(hello.flags) & HYPER_HELLO_READONLY);
	g_mutex_lock(&conn->lock);
	conn->readonly = request->readonly;
	conn->max_data = MIN(GUINT32_FROM_LE(hello.max_data), config->max_data);
	conn->session = request->session = ++sessions ?: ++sessions;
	g_mutex_unlock(&conn->lock);
	hooks_session(request->session);
	reply->addr = GUINT64_FROM_LE(hello.nonce);
	hello_fill(request, reply, conn->max_data);
}

static void request_free(struct request *request)
{
	if (request->dir >= 0)
		close(request->dir);
	g_byte_array_unref(request->frame.data);
	conn_unref(request->conn);
	g_free(request);
}

/* What is wrong with the guest now, after a look at the control file. */
static const struct misbehaviour *misbehaviour_now(struct conn *conn, int64_t *ret_arg)
{
	struct fake_guest *guest = conn->guest;
	const struct misbehaviour *misbehaviour, *begun = NULL;
	g_autofree char *text = NULL;

	if (guest->config.control) {
		if (!g_file_get_contents(guest->config.control, &text, NULL, NULL))
			text = g_strdup("");
		g_strstrip(text);
	}
	g_mutex_lock(&guest->lock);
	if (text && g_strcmp0(text, guest->control) != 0) {
		g_free(guest->control);
		guest->control = g_steal_pointer(&text);
		guest->misbehaviour = misbehaviour_find(guest->control, &guest->arg);
		begun = guest->misbehaviour;
	}
	misbehaviour = guest->misbehaviour;
	*ret_arg = guest->arg;
	g_mutex_unlock(&guest->lock);
	if (begun && begun->begin)
		begun->begin(guest, conn);
	return misbehaviour;
}

/* One request from beginning to end, misbehaviour and all. */
static void request_serve(struct request *request)
{
	int64_t arg = 0;
	const struct misbehaviour *bad = misbehaviour_now(request->conn, &arg);
	bool hello = frame_is_hello(&request->frame);
	const struct op *op = op_find(request->frame.op);
	struct frame reply;

	if (bad && bad->request && bad->request(request, arg))
		return;
	reply_init(request, &reply);
	if (hello)
		hello_handle(request, &reply);
	else
		reply_finish(op, request_handle(request, op, &reply), &reply);
	if (bad && bad->reply)
		bad->reply(request, &reply, arg);
	if (bad && bad->send && !hello)
		bad->send(request->conn, &reply, arg);
	else
		conn_reply(request, &reply);
	g_byte_array_unref(reply.data);
}

static void request_work(gpointer data, gpointer user_data)
{
	request_serve(data);
	request_free(data);
}

/* -- receiving ------------------------------------------------------------------------------ */

static bool read_all(int fd, void *buf, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = read(fd, (char *)buf + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		done += n;
	}
	return true;
}

/* Slide along the stream until there is a HELLO. */
static bool resync(int fd, uint8_t header[HYPERMEM_HEADER_SIZE], struct frame *frame)
{
	do {
		memmove(header, header + 1, HYPERMEM_HEADER_SIZE - 1);
		if (!read_all(fd, header + HYPERMEM_HEADER_SIZE - 1, 1))
			return false;
		frame_decode(header, frame);
	} while (!frame_is_hello(frame));
	return true;
}

static bool conn_accepts(struct conn *conn, const struct frame *frame)
{
	bool ok;

	g_mutex_lock(&conn->lock);
	ok = conn->session != 0 && !(frame->op & ~(HYPER_DATA | 0xff)) &&
	     (!(frame->op & HYPER_DATA) || frame->size <= conn->max_data);
	g_mutex_unlock(&conn->lock);
	return ok;
}

/* The next frame; one that cannot be, or is of no session, leads to RESET and to resync(). */
static bool receive(struct conn *conn, struct frame *frame)
{
	uint8_t header[HYPERMEM_HEADER_SIZE];
	uint32_t size;

	if (!read_all(conn->fd, header, sizeof(header)))
		return false;
	frame_decode(header, frame);
	if (!frame_is_hello(frame) && !conn_accepts(conn, frame)) {
		conn_forget_session(conn);
		conn_send_reset(conn);
		if (!resync(conn->fd, header, frame))
			return false;
	}
	size = frame->op & HYPER_DATA ? frame->size : 0;
	frame->data = g_byte_array_new();
	g_byte_array_set_size(frame->data, size);
	if (read_all(conn->fd, frame->data->data, size))
		return true;
	g_byte_array_unref(frame->data);
	return false;
}

void fake_guest_serve(struct fake_guest *guest, int fd)
{
	struct conn *conn = conn_new(guest, fd);
	struct frame frame;

	while (receive(conn, &frame)) {
		struct request *request = g_new0(struct request, 1);

		request->conn = conn_ref(conn);
		request->frame = frame;
		request->dir = -1;
		g_mutex_lock(&conn->lock);
		request->session = conn->session;
		request->max_data = conn->max_data;
		request->readonly = conn->readonly;
		g_mutex_unlock(&conn->lock);
		if (frame_is_hello(&frame)) {	/* what follows belongs to the new session */
			request_work(request, NULL);
			continue;
		}
		if (frame.op == HYPER_OP_HOOK_WAIT)
			hooks_wait_came(request);
		g_thread_pool_push(guest->workers, request, NULL);
	}
	hooks_session(0);
	conn_hang_up(conn);
	conn_unref(conn);
}

/* -- the guest -------------------------------------------------------------------------------- */

static uint64_t random_epoch(void)
{
	uint64_t epoch = (uint64_t)g_random_int() << 32 | g_random_int();

	return epoch ?: 1;
}

void fake_guest_reboot(struct fake_guest *guest, struct conn *conn)
{
	g_mutex_lock(&guest->lock);
	guest->epoch = random_epoch();
	g_mutex_unlock(&guest->lock);
	conn_forget_session(conn);
	conn_send_reset(conn);
}

int fake_guest_misbehave(struct fake_guest *guest, const char *text)
{
	const struct misbehaviour *found = NULL;
	int64_t arg = 0;

	if (text && *text) {
		found = misbehaviour_find(text, &arg);
		if (!found)
			return -EINVAL;
	}
	g_mutex_lock(&guest->lock);
	guest->misbehaviour = found;
	guest->arg = arg;
	g_mutex_unlock(&guest->lock);
	return 0;
}

struct fake_guest *fake_guest_new(const struct fake_guest_config *config)
{
	struct fake_guest *guest = g_new0(struct fake_guest, 1);

	guest->config = *config;
	if (!guest->config.max_data)
		guest->config.max_data = HYPERMEM_DATA_MAX;
	guest->config.control = g_strdup(config->control);
	guest->control = g_strdup("");
	guest->workers = g_thread_pool_new(request_work, NULL, -1, false, NULL);
	guest->boot_ns = monotonic_ns(CLOCK_REALTIME) - monotonic_ns(CLOCK_BOOTTIME);
	guest->epoch = random_epoch();
	g_mutex_init(&guest->lock);
	g_cond_init(&guest->idle);
	return guest;
}

void fake_guest_free(struct fake_guest *guest)
{
	if (!guest)
		return;
	g_mutex_lock(&guest->lock);
	while (guest->conns > 0)
		g_cond_wait(&guest->idle, &guest->lock);
	g_mutex_unlock(&guest->lock);
	g_thread_pool_free(guest->workers, false, true);
	g_cond_clear(&guest->idle);
	g_mutex_clear(&guest->lock);
	g_free((char *)guest->config.control);
	g_free(guest->control);
	g_free(guest);
}
