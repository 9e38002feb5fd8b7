// SPDX-License-Identifier: MIT
/*
 * hooks: the names in hooks/.  See hooks.h.
 *
 * A hook that has been removed lives on, without a name, as long as a file of it is open.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "fs/hooks.h"

struct hmfs_hooks {
	struct hm_hooks *hooks;
	GMutex lock;		/* protects what follows */
	GHashTable *names;	/* name -> struct hmfs_hook, a reference each */
};

struct hmfs_hooks *hmfs_hooks_new(struct hm_client *client)
{
	struct hmfs_hooks *hooks = g_new0(struct hmfs_hooks, 1);

	hooks->hooks = hm_hooks_new(client);
	g_mutex_init(&hooks->lock);
	hooks->names = g_hash_table_new(g_str_hash, g_str_equal);
	return hooks;
}

void hmfs_hooks_free(struct hmfs_hooks *hooks)
{
	GHashTableIter iter;
	gpointer value;

	g_hash_table_iter_init(&iter, hooks->names);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		struct hmfs_hook *hook = value;

		g_hash_table_iter_remove(&iter);
		hm_hook_remove(hook->hook);
		hmfs_hook_unref(hook);
	}
	hm_hooks_free(hooks->hooks);
	g_hash_table_unref(hooks->names);
	g_mutex_clear(&hooks->lock);
	g_free(hooks);
}

static struct hmfs_hook *hook_new(const char *name)
{
	struct hmfs_hook *hook = g_new0(struct hmfs_hook, 1);

	g_atomic_ref_count_init(&hook->refs);
	g_strlcpy(hook->name, name, sizeof(hook->name));
	clock_gettime(CLOCK_REALTIME, &hook->made);
	g_mutex_init(&hook->writing);
	g_mutex_init(&hook->lock);
	return hook;
}

void hmfs_hook_unref(struct hmfs_hook *hook)
{
	if (!hook || !g_atomic_ref_count_dec(&hook->refs))
		return;
	hm_hook_free(hook->hook);
	g_clear_pointer(&hook->text, g_bytes_unref);
	g_free(hook->complaint);
	g_mutex_clear(&hook->writing);
	g_mutex_clear(&hook->lock);
	g_free(hook);
}

int hmfs_hooks_find(struct hmfs_hooks *hooks, const char *name, struct hmfs_hook **ret)
{
	struct hmfs_hook *hook;

	g_mutex_lock(&hooks->lock);
	hook = g_hash_table_lookup(hooks->names, name);
	if (hook)
		g_atomic_ref_count_inc(&hook->refs);
	g_mutex_unlock(&hooks->lock);
	*ret = hook;
	return hook ? 0 : -ENOENT;
}

int hmfs_hook_make(struct hmfs *fs, const struct hmfs_node *node)
{
	struct hmfs_hook *hook = hook_new(node->hook);
	int rc = hm_hook_new(fs->hooks->hooks, &hook->hook);
	bool taken = false;

	if (rc == 0) {
		g_mutex_lock(&fs->hooks->lock);
		taken = g_hash_table_contains(fs->hooks->names, hook->name);
		if (!taken)
			g_hash_table_insert(fs->hooks->names, hook->name, hook);
		g_mutex_unlock(&fs->hooks->lock);
	}
	if (taken)
		hm_hook_remove(hook->hook);
	if (rc < 0 || taken)
		hmfs_hook_unref(hook);
	return taken ? -EEXIST : rc;
}

int hmfs_hook_remove(struct hmfs *fs, const struct hmfs_node *node)
{
	struct hmfs_hook *hook;
	int rc = hmfs_hooks_find(fs->hooks, node->hook, &hook);

	if (rc < 0)
		return rc;
	rc = hm_hook_remove(hook->hook);
	if (rc == 0) {
		g_mutex_lock(&fs->hooks->lock);
		g_hash_table_remove(fs->hooks->names, hook->name);
		g_mutex_unlock(&fs->hooks->lock);
		hmfs_hook_unref(hook);
	}
	hmfs_hook_unref(hook);
	return rc == -ENODEV ? -ENOENT : rc;
}

static void stat_owner(struct stat *st)
{
	st->st_uid = geteuid();
	st->st_gid = getegid();
}

static void stat_hook(struct stat *st, const struct hmfs_hook *hook)
{
	stat_owner(st);
	st->st_atim = st->st_mtim = st->st_ctim = hook->made;
}

int hmfs_hooks_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret)
{
	stat_owner(ret);
	return 0;
}

int hmfs_hook_stat(struct hmfs *fs, const struct hmfs_node *node, struct stat *ret)
{
	struct hmfs_hook *hook;
	int rc = hmfs_hooks_find(fs->hooks, node->hook, &hook);

	if (rc < 0)
		return rc;
	stat_hook(ret, hook);
	hmfs_hook_unref(hook);
	return 0;
}

int hmfs_hooks_list(struct hmfs *fs, const struct hmfs_node *node, hmfs_fill_fn fill, void *arg)
{
	struct stat st = { .st_mode = node->row->rows->mode, .st_nlink = 2, .st_blksize = 4096 };
	GHashTableIter iter;
	gpointer hook;

	g_mutex_lock(&fs->hooks->lock);
	g_hash_table_iter_init(&iter, fs->hooks->names);
	while (g_hash_table_iter_next(&iter, NULL, &hook)) {
		stat_hook(&st, hook);
		if (fill(arg, ((const struct hmfs_hook *)hook)->name, &st) != 0)
			break;
	}
	g_mutex_unlock(&fs->hooks->lock);
	return 0;
}

int hmfs_hook_name_check(const char *name, size_t size)
{
	if (size >= HMFS_HOOK_NAME_SIZE)
		return -ENAMETOOLONG;
	for (size_t i = 0; i < size; i++)
		if (g_ascii_iscntrl(name[i]))
			return -EINVAL;
	return size ? 0 : -EINVAL;
}
