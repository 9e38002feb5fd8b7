// SPDX-License-Identifier: MIT
/*
 * procs: a short memory of the guest's processes.  See procs.h.
 */
#include <errno.h>

#include "fs/procs.h"

#define FRESH_US ((gint64)(HMFS_ATTR_SECONDS * G_USEC_PER_SEC))

/* Who asks for one process and then for one so little above it goes through them all. */
#define NEAR 64

struct entry {
	struct hm_proc proc;
	uint64_t epoch;
	gint64 time;		/* g_get_monotonic_time() of the question */
};

struct hmfs_procs {
	struct hm_client *client;
	GMutex lock;		/* protects what follows */
	GHashTable *entries;	/* pid to struct entry */
	gint64 swept;		/* when old entries were dropped last */
	uint32_t asked_pid;	/* the guest was asked for last */
};

struct hmfs_procs *hmfs_procs_new(struct hm_client *client)
{
	struct hmfs_procs *procs = g_new0(struct hmfs_procs, 1);

	procs->client = client;
	g_mutex_init(&procs->lock);
	procs->entries = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	return procs;
}

void hmfs_procs_free(struct hmfs_procs *procs)
{
	if (!procs)
		return;
	g_hash_table_unref(procs->entries);
	g_mutex_clear(&procs->lock);
	g_free(procs);
}

static gboolean entry_is_old(gpointer key, gpointer value, gpointer now)
{
	const struct entry *entry = value;

	return *(const gint64 *)now - entry->time >= FRESH_US;
}

/* With the lock held. */
static void procs_put(struct hmfs_procs *procs, const struct hm_proc *proc, uint64_t epoch,
		      gint64 asked)
{
	struct entry *entry = g_new(struct entry, 1);

	*entry = (struct entry){ .proc = *proc, .epoch = epoch, .time = asked };
	g_hash_table_replace(procs->entries, GUINT_TO_POINTER(proc->pid), entry);
}

/* With the lock held. */
static void procs_sweep(struct hmfs_procs *procs, gint64 now)
{
	if (now - procs->swept < FRESH_US)
		return;
	procs->swept = now;
	g_hash_table_foreach_remove(procs->entries, entry_is_old, &now);
}

static bool procs_find(struct hmfs_procs *procs, uint32_t pid, struct hm_proc *ret,
		       uint64_t *ret_epoch)
{
	gint64 now = g_get_monotonic_time();
	struct hm_guest guest;
	struct entry *entry;
	bool found;

	if (hm_client_guest(procs->client, &guest) < 0)
		return false;
	g_mutex_lock(&procs->lock);
	entry = g_hash_table_lookup(procs->entries, GUINT_TO_POINTER(pid));
	found = entry && !entry_is_old(NULL, entry, &now) && entry->epoch == guest.epoch;
	if (found) {
		*ret = entry->proc;
		*ret_epoch = entry->epoch;
	}
	g_mutex_unlock(&procs->lock);
	return found;
}

static void procs_put_all(struct hmfs_procs *procs, const GArray *list, uint64_t epoch,
			  gint64 asked)
{
	g_mutex_lock(&procs->lock);
	procs_sweep(procs, asked);
	for (guint i = 0; i < list->len; i++)
		procs_put(procs, &g_array_index(list, struct hm_proc, i), epoch, asked);
	g_mutex_unlock(&procs->lock);
}

static bool procs_is_walk(struct hmfs_procs *procs, uint32_t pid)
{
	bool walk;

	g_mutex_lock(&procs->lock);
	walk = pid > procs->asked_pid && pid - procs->asked_pid <= NEAR;
	procs->asked_pid = pid;
	g_mutex_unlock(&procs->lock);
	return walk;
}

/* The process and some that follow it; 0 but *ret_found false: it is not listed. */
static int procs_ask_some(struct hmfs_procs *procs, uint32_t pid, struct hm_proc *ret,
			  uint64_t *ret_epoch, bool *ret_found)
{
	gint64 asked = g_get_monotonic_time();
	g_autoptr(GArray) list = NULL;
	int rc;

	rc = hm_client_list_procs_at(procs->client, pid, &list, ret_epoch);
	if (rc < 0)
		return rc;
	procs_put_all(procs, list, *ret_epoch, asked);
	*ret_found = list->len && g_array_index(list, struct hm_proc, 0).pid == pid;
	if (*ret_found)
		*ret = g_array_index(list, struct hm_proc, 0);
	return 0;
}

static int procs_ask(struct hmfs_procs *procs, uint32_t pid, struct hm_proc *ret,
		     uint64_t *ret_epoch)
{
	gint64 asked = g_get_monotonic_time();
	bool found = false;
	int rc = 0;

	if (procs_is_walk(procs, pid))
		rc = procs_ask_some(procs, pid, ret, ret_epoch, &found);
	if (rc < 0 || found)
		return rc;
	/* Threads are not listed, but have the files of a process, as in /proc. */
	rc = hm_client_read_proc(procs->client, pid, ret, ret_epoch);
	if (rc < 0)
		return rc;
	g_mutex_lock(&procs->lock);
	procs_sweep(procs, asked);
	procs_put(procs, ret, *ret_epoch, asked);
	g_mutex_unlock(&procs->lock);
	return 0;
}

int hmfs_procs_get(struct hmfs_procs *procs, uint32_t pid, struct hm_proc *ret,
		   uint64_t *ret_epoch)
{
	uint64_t epoch;
	int rc = 0;

	if (!procs_find(procs, pid, ret, &epoch))
		rc = procs_ask(procs, pid, ret, &epoch);
	if (rc == 0 && ret_epoch)
		*ret_epoch = epoch;
	return rc;
}

int hmfs_procs_list(struct hmfs_procs *procs, GArray **ret)
{
	gint64 asked = g_get_monotonic_time();
	g_autoptr(GArray) list = NULL;
	uint64_t epoch;
	int rc;

	rc = hm_client_list_procs(procs->client, &list, &epoch);
	if (rc < 0)
		return rc;
	procs_put_all(procs, list, epoch, asked);
	*ret = g_steal_pointer(&list);
	return 0;
}
