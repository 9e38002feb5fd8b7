// SPDX-License-Identifier: MIT
/*
 * node: the tree as a table, and what is generic over it.  See node.h.
 *
 * A new file is one row here and one function in a file_*.c.
 */
#include <errno.h>
#include <string.h>

#include "fs/file.h"
#include "fs/hooks.h"
#include "fs/node.h"
#include "fs/number.h"

static int pid_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret);
static int pid_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg);

static const struct hmfs_row fd_rows[] = {
	{ .number = HMFS_FD, .mode = S_IFLNK | 0777, .stat = hmfs_fd_stat,
	  .readlink = hmfs_fd_readlink },
	{},
};

static const struct hmfs_row int_rows[] = {
	{ .number = HMFS_ADDR, .mode = S_IFREG | 0600, .read = hmfs_number_read,
	  .write = hmfs_number_write, .arg = HMFS_INT },
	{},
};

static const struct hmfs_row uint_rows[] = {
	{ .number = HMFS_ADDR, .mode = S_IFREG | 0600, .read = hmfs_number_read,
	  .write = hmfs_number_write, .arg = HMFS_UINT },
	{},
};

static const struct hmfs_row long_rows[] = {
	{ .number = HMFS_ADDR, .mode = S_IFREG | 0600, .read = hmfs_number_read,
	  .write = hmfs_number_write, .arg = HMFS_LONG },
	{},
};

static const struct hmfs_row ptr_rows[] = {
	{ .number = HMFS_ADDR, .mode = S_IFREG | 0600, .read = hmfs_number_read,
	  .write = hmfs_number_write, .arg = HMFS_PTR },
	{},
};

static const struct hmfs_row str_rows[] = {
	{ .number = HMFS_ADDR, .mode = S_IFREG | 0600, .read = hmfs_str_read,
	  .write = hmfs_str_write },
	{},
};

static const struct hmfs_row process_rows[] = {
	{ .name = "bits", .mode = S_IFREG | 0444, .read = hmfs_bits_read },
	{ .name = "cmdline", .mode = S_IFREG | 0444, .read = hmfs_args_read, .arg = HMFS_CMDLINE },
	{ .name = "comm", .mode = S_IFREG | 0444, .read = hmfs_text_read },
	{ .name = "cwd", .mode = S_IFLNK | 0777, .readlink = hmfs_link_readlink,
	  .arg = HYPER_LINK_CWD },
	{ .name = "environ", .mode = S_IFREG | 0400, .read = hmfs_args_read, .arg = HMFS_ENVIRON },
	{ .name = "exe", .mode = S_IFLNK | 0777, .readlink = hmfs_link_readlink,
	  .arg = HYPER_LINK_EXE },
	{ .name = "fd", .mode = S_IFDIR | 0500, .rows = fd_rows, .list = hmfs_fd_list },
	{ .name = "int", .mode = S_IFDIR | 0500, .rows = int_rows },
	{ .name = "limits", .mode = S_IFREG | 0444, .read = hmfs_text_read },
	{ .name = "long", .mode = S_IFDIR | 0500, .rows = long_rows },
	{ .name = "maps", .mode = S_IFREG | 0444, .read = hmfs_text_read },
	{ .name = "mem", .mode = S_IFREG | 0600, .read = hmfs_mem_read, .write = hmfs_mem_write,
	  .seek = hmfs_mem_seek },
	{ .name = "ptr", .mode = S_IFDIR | 0500, .rows = ptr_rows },
	{ .name = "root", .mode = S_IFLNK | 0777, .readlink = hmfs_link_readlink,
	  .arg = HYPER_LINK_ROOT },
	{ .name = "stat", .mode = S_IFREG | 0444, .read = hmfs_text_read },
	{ .name = "statm", .mode = S_IFREG | 0444, .read = hmfs_text_read },
	{ .name = "status", .mode = S_IFREG | 0444, .read = hmfs_text_read },
	{ .name = "str", .mode = S_IFDIR | 0500, .rows = str_rows },
	{ .name = "uint", .mode = S_IFDIR | 0500, .rows = uint_rows },
	{},
};

static const struct hmfs_row pid_rows[] = {
	{ .number = HMFS_PID, .mode = S_IFDIR | 0555, .rows = process_rows, .stat = pid_stat },
	{},
};

static const struct hmfs_row hook_rows[] = {
	{ .name = "enabled", .mode = S_IFREG | 0644, .stat = hmfs_hook_stat, .open = hmfs_hook_open,
	  .read = hmfs_enabled_read, .write = hmfs_enabled_write },
	{ .name = "events", .mode = S_IFREG | 0444, .stat = hmfs_hook_stat, .stream = true,
	  .open = hmfs_events_open, .close = hmfs_events_close, .read = hmfs_events_read,
	  .poll = hmfs_events_poll },
	{ .name = "filter", .mode = S_IFREG | 0644, .stat = hmfs_hook_stat, .open = hmfs_hook_open,
	  .read = hmfs_filter_read, .write = hmfs_filter_write },
	{ .name = "reply", .mode = S_IFREG | 0200, .stat = hmfs_hook_stat, .stream = true,
	  .open = hmfs_hook_open, .write = hmfs_reply_write },
	{ .name = "stats", .mode = S_IFREG | 0444, .stat = hmfs_hook_stat, .open = hmfs_hook_open,
	  .read = hmfs_stats_read },
	{ .name = "timeout", .mode = S_IFREG | 0644, .stat = hmfs_hook_stat, .open = hmfs_hook_open,
	  .read = hmfs_timeout_read, .write = hmfs_timeout_write },
	{},
};

static const struct hmfs_row hooks_rows[] = {
	{ .number = HMFS_HOOK, .mode = S_IFDIR | 0755, .rows = hook_rows, .stat = hmfs_hook_stat,
	  .make = hmfs_hook_make, .remove = hmfs_hook_remove },
	{},
};

static const struct hmfs_row root_rows[] = {
	{ .name = "hooks", .mode = S_IFDIR | 0755, .rows = hooks_rows, .stat = hmfs_hooks_stat,
	  .list = hmfs_hooks_list },
	{ .name = "info", .mode = S_IFREG | 0444, .read = hmfs_info_read },
	{ .name = "pid", .mode = S_IFDIR | 0555, .rows = pid_rows, .list = pid_list },
	{},
};

static const struct hmfs_row root_row = { .name = "/", .mode = S_IFDIR | 0555, .rows = root_rows };

void hmfs_init(struct hmfs *fs, struct hm_client *client, const char *address)
{
	*fs = (struct hmfs){ .client = client, .address = address };
	fs->procs = hmfs_procs_new(client);
	fs->hooks = hmfs_hooks_new(client);
	clock_gettime(CLOCK_REALTIME, &fs->mounted);
	g_mutex_init(&fs->lock);
	g_queue_init(&fs->files);
}

void hmfs_close(struct hmfs *fs)
{
	/* Whoever waits for the guest has waited long enough. */
	hm_client_stop(fs->client);
	while (fs->files.head)
		hmfs_file_close(fs->files.head->data);
}

void hmfs_deinit(struct hmfs *fs)
{
	hmfs_close(fs);
	hmfs_hooks_free(fs->hooks);
	g_mutex_clear(&fs->lock);
	hmfs_procs_free(fs->procs);
}

static bool row_is_end(const struct hmfs_row *row)
{
	return !row->name && row->number == HMFS_NAME;
}

/* A number as the tree writes it: no sign, no leading zero, nothing behind it. */
static bool parse_number(const char *text, size_t size, uint32_t *ret)
{
	uint64_t n = 0;

	if (size == 0 || size > 10 || (text[0] == '0' && size > 1))
		return false;
	for (size_t i = 0; i < size; i++) {
		if (!g_ascii_isdigit(text[i]))
			return false;
		n = 10 * n + (uint64_t)(text[i] - '0');
	}
	if (n > INT32_MAX)
		return false;
	*ret = (uint32_t)n;
	return true;
}

static bool parse_hook(const char *name, size_t size, char ret[HMFS_HOOK_NAME_SIZE])
{
	if (hmfs_hook_name_check(name, size) < 0)
		return false;
	memcpy(ret, name, size);
	ret[size] = 0;
	return true;
}

/* One step down: the row of `name`, with its number put into the node. */
static bool node_step(struct hmfs_node *node, const char *name, size_t size)
{
	for (const struct hmfs_row *row = node->row->rows; !row_is_end(row); row++) {
		bool found;

		if (row->number == HMFS_PID)
			found = parse_number(name, size, &node->pid) && node->pid != 0;
		else if (row->number == HMFS_FD)
			found = parse_number(name, size, &node->fd);
		else if (row->number == HMFS_ADDR)
			found = hmfs_number_parse(name, size, &node->addr) == 0;
		else if (row->number == HMFS_HOOK)
			found = parse_hook(name, size, node->hook);
		else
			found = strlen(row->name) == size && memcmp(row->name, name, size) == 0;
		if (found) {
			node->row = row;
			return true;
		}
	}
	return false;
}

int hmfs_node_lookup(const char *path, struct hmfs_node *ret)
{
	struct hmfs_node node = { .row = &root_row };

	for (const char *end; *path; path = end) {
		path += strspn(path, "/");
		end = path + strcspn(path, "/");
		if (end == path)
			break;
		if (!node.row->rows)
			return -ENOTDIR;
		if (!node_step(&node, path, (size_t)(end - path)))
			return -ENOENT;
	}
	*ret = node;
	return 0;
}

/* Names of numbers are accepted: who is asked to make one has got something else. */
int hmfs_node_create(const char *path)
{
	g_autofree char *dir = g_path_get_dirname(path);
	struct hmfs_node node;

	if (hmfs_node_lookup(dir, &node) == 0 && node.row->rows &&
	    node.row->rows->number == HMFS_ADDR)
		return -EINVAL;
	return -EPERM;
}

/* Why a name that the tree does not know cannot be a new one of its directory. */
static int make_error(const char *path)
{
	g_autofree char *dir = g_path_get_dirname(path), *name = g_path_get_basename(path);
	struct hmfs_node node;

	if (hmfs_node_lookup(dir, &node) == 0 && node.row->rows &&
	    node.row->rows->number == HMFS_HOOK)
		return hmfs_hook_name_check(name, strlen(name));
	return -EPERM;
}

int hmfs_node_make(struct hmfs *fs, const char *path)
{
	struct hmfs_node node;

	if (hmfs_node_lookup(path, &node) < 0)
		return make_error(path);
	return node.row->make ? node.row->make(fs, &node) : -EPERM;
}

int hmfs_node_remove(struct hmfs *fs, const char *path)
{
	struct hmfs_node node;
	int rc = hmfs_node_lookup(path, &node);

	if (rc < 0)
		return rc;
	return node.row->remove ? node.row->remove(fs, &node) : -EPERM;
}

/* Asked by name, a process that has gone is a name that does not exist. */
static int lookup_error(int rc)
{
	return rc == -ESRCH ? -ENOENT : rc;
}

static void stat_times(struct stat *st, uint64_t ns)
{
	st->st_mtim.tv_sec = (time_t)(ns / G_GUINT64_CONSTANT(1000000000));
	st->st_mtim.tv_nsec = (long)(ns % G_GUINT64_CONSTANT(1000000000));
	st->st_atim = st->st_ctim = st->st_mtim;
}

/*
 * As in the guest's /proc: the directory is its user's, and so are its files, unless
 * the process may not be dumped; then they are root's.
 */
static void stat_process(struct stat *st, const struct hm_proc *proc)
{
	bool owned = (proc->flags & HYPER_PROC_DUMPABLE) || st->st_mode == (S_IFDIR | 0555);

	st->st_uid = owned ? proc->uid : 0;
	st->st_gid = owned ? proc->gid : 0;
	stat_times(st, proc->start_time_real);
}

static int pid_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret)
{
	struct hm_proc proc;
	int rc;

	rc = hmfs_procs_get(fs->procs, node->pid, &proc, NULL);
	if (rc == 0)
		stat_process(ret, &proc);
	return rc;
}

int hmfs_node_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret)
{
	struct stat st = {
		.st_mode = node->row->mode,
		.st_nlink = S_ISDIR(node->row->mode) ? 2 : 1,
		.st_blksize = 4096,
		.st_mtim = fs->mounted,
		.st_atim = fs->mounted,
		.st_ctim = fs->mounted,
	};
	int rc = 0;

	if (node->pid)
		rc = pid_stat(fs, node, &st);
	if (rc == 0 && node->row->stat && node->row->stat != pid_stat)
		rc = node->row->stat(fs, node, &st);
	if (rc < 0)
		return lookup_error(rc);
	*ret = st;
	return 0;
}

static int pid_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg)
{
	g_autoptr(GArray) procs = NULL;
	int rc;

	rc = hmfs_procs_list(fs->procs, &procs);
	for (guint i = 0; rc == 0 && i < procs->len; i++) {
		const struct hm_proc *proc = &g_array_index(procs, struct hm_proc, i);
		struct stat st = { .st_mode = pid_rows[0].mode, .st_nlink = 2,
				   .st_blksize = 4096 };
		char name[16];

		stat_process(&st, proc);
		g_snprintf(name, sizeof(name), "%u", proc->pid);
		if (fill(arg, name, &st) != 0)
			break;
	}
	return rc;
}

int hmfs_node_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg)
{
	struct stat st;
	int rc;

	if (!node->row->rows)
		return -ENOTDIR;
	for (const struct hmfs_row *row = node->row->rows; !row_is_end(row); row++) {
		struct hmfs_node child = *node;

		child.row = row;
		if (!row->name)
			continue;
		rc = hmfs_node_stat(fs, &child, &st);
		if (rc < 0)
			return rc;
		if (fill(arg, row->name, &st) != 0)
			return 0;
	}
	return node->row->list ? lookup_error(node->row->list(fs, node, fill, arg)) : 0;
}

ssize_t hmfs_node_readlink(struct hmfs *fs, const struct hmfs_node *node, char *buf, size_t size)
{
	ssize_t n;

	if (!node->row->readlink)
		return -EINVAL;
	n = node->row->readlink(fs, node, buf, size);
	return n < 0 ? lookup_error((int)n) : n;
}

int hmfs_node_who(struct hmfs *fs, const struct hmfs_node *node, struct hm_who *ret)
{
	struct hm_proc proc;
	uint64_t epoch;
	int rc;

	rc = hmfs_procs_get(fs->procs, node->pid, &proc, &epoch);
	if (rc == 0)
		*ret = (struct hm_who){ .epoch = epoch, .pid = node->pid, .stamp = proc.stamp };
	return lookup_error(rc);
}
