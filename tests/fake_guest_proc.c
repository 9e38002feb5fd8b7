// SPDX-License-Identifier: MIT
/*
 * fake_guest_proc: processes of this host, by its /proc, and lists of what they have.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fake_guest_proc.h"

/* The whole of a file that has no size. */
int file_read(int dir, const char *name, GByteArray **ret)
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
int process_open(struct fake_guest *guest, uint32_t pid, uint16_t stamp, int *ret)
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
bool process_has_memory(int dir)
{
	struct stat_fields stat;

	return stat_read(dir, &stat) == 0 && stat.n[STAT_VSIZE] != 0;
}

bool process_is_gone(int dir)
{
	return faccessat(dir, "stat", F_OK, 0) != 0;
}

/* By its program; one that has none (a kernel thread, a zombie) is like the kernel. */
bool process_is_32bit(int dir)
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

/* -- operations ------------------------------------------------------------------------------- */

/* Append a record; false if there is no room within the host's limit. */
bool reply_put(const struct request *request, struct frame *reply, const void *record, size_t size)
{
	if (reply->data->len + size > request->frame.size)
		return false;
	g_byte_array_append(reply->data, record, size);
	return true;
}

int op_list_procs(struct request *request, struct frame *reply)
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
		if (rc == 0 && !reply_put(request, reply, &record, sizeof(record))) {
			reply->addr = pid;
			break;
		}
	}
	return 0;
}

int op_read_proc(struct request *request, struct frame *reply)
{
	struct hypermem_proc record;
	int rc = process_record(request->conn->guest, request->dir, &record);

	if (!rc)
		g_byte_array_append(reply->data, (const guint8 *)&record, sizeof(record));
	return rc;
}

int op_list_fds(struct request *request, struct frame *reply)
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
		if (!reply_put(request, reply, &record, sizeof(record))) {
			reply->addr = fd;
			break;
		}
	}
	return 0;
}
