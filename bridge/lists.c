// SPDX-License-Identifier: MIT
/*
 * lists: processes, open files and mappings, part by part.
 *
 * The records of a list ascend by a number, which is also its cursor; that is what
 * makes an endless list impossible.
 */
#include <errno.h>

#include "bridge/request.h"

/* Records of a list, in memory: no guest has more, and one that pretends to must not fill it. */
#define LIST_MAX (64 * 1024 * 1024)

/* Processes that are told in hardly more time than one. */
#define PROCS_SOME 32

int hm_client_read_proc(struct hm_client *client, uint32_t pid, struct hm_proc *ret,
			uint64_t *ret_epoch)
{
	uint8_t record[sizeof(struct hypermem_proc)];
	struct hm_proc proc;
	struct hm_call call;
	int rc;

	hm_call_prepare(&call, HYPER_OP_READ_PROC, (struct hm_who){ .pid = pid }, 0, record,
		     sizeof(record));
	rc = hm_client_call(client, &call);
	if (rc)
		return rc;
	if (call.fault || hm_proc_decode(record, call.n, &proc) || proc.pid != pid)
		return hm_client_nonsense(client, &call, "is not this process");
	*ret = proc;
	*ret_epoch = call.epoch;
	return 0;
}

/*
 * A kind of list: how records look, and the number that they ascend by.  The number
 * is what makes an endless list impossible.
 */
struct list {
	uint32_t op;
	size_t wire_size;
	size_t size;
	int (*decode)(const uint8_t *data, size_t size, void *ret);
	uint64_t (*key)(const void *record);
	uint64_t (*first)(const void *record);	/* where it begins, if it has an extent */
};

static int proc_decode(const uint8_t *data, size_t size, void *ret)
{
	return hm_proc_decode(data, size, ret);
}

static uint64_t proc_key(const void *record)
{
	return ((const struct hm_proc *)record)->pid;
}

static int fd_decode(const uint8_t *data, size_t size, void *ret)
{
	return hm_fd_decode(data, size, ret);
}

static uint64_t fd_key(const void *record)
{
	return ((const struct hm_fd *)record)->fd;
}

static int map_decode(const uint8_t *data, size_t size, void *ret)
{
	return hm_map_decode(data, size, ret);
}

/* The last address: lists of mappings are asked for by what ends above the cursor. */
static uint64_t map_key(const void *record)
{
	return ((const struct hm_map *)record)->end - 1;
}

static uint64_t map_first(const void *record)
{
	return ((const struct hm_map *)record)->start;
}

static const struct list procs_list = {
	HYPER_OP_LIST_PROCS, sizeof(struct hypermem_proc), sizeof(struct hm_proc),
	proc_decode, proc_key,
};
static const struct list fds_list = {
	HYPER_OP_LIST_FDS, sizeof(struct hypermem_fd), sizeof(struct hm_fd), fd_decode, fd_key,
};
static const struct list maps_list = {
	HYPER_OP_LIST_MAPS, sizeof(struct hypermem_map), sizeof(struct hm_map),
	map_decode, map_key, map_first,
};

/* The records of a reply, appended to `array`; *cursor: the least key that may follow. */
static int list_take(const struct list *list, const uint8_t *data, size_t size, uint64_t *cursor,
		     GArray *array)
{
	guint before = array->len;

	if (size % list->wire_size)
		return -EPROTO;
	for (; size; data += list->wire_size, size -= list->wire_size) {
		guint i = array->len;
		const void *record;

		g_array_set_size(array, i + 1);
		record = array->data + i * list->size;
		if (list->decode(data, list->wire_size, array->data + i * list->size))
			return -EPROTO;
		/* The first of a part may begin before the cursor. */
		if (list->key(record) < *cursor ||
		    (list->first && i > before && list->first(record) < *cursor))
			return -EPROTO;
		*cursor = list->key(record) + 1;
	}
	return 0;
}

/* One part of at most `limit` bytes; *cursor: the next one's, 0 at the end. */
static int list_part(struct hm_client *client, const struct list *list, struct hm_who who,
		     uint32_t limit, uint64_t *cursor, GArray *array, uint64_t *ret_epoch)
{
	g_autofree void *part = NULL;
	uint64_t least = *cursor;
	guint before = array->len;
	struct hm_call call;
	int rc;

	hm_call_prepare(&call, list->op, who, *cursor, NULL, limit);
	call.in_alloc = &part;
	rc = hm_client_call(client, &call);
	if (rc)
		return rc;
	if (call.fault || list_take(list, part, call.n, &least, array))
		return hm_client_nonsense(client, &call, "has records that cannot be");
	if (call.addr && (call.addr < least || array->len == before))
		return hm_client_nonsense(client, &call, "does not get on");
	if (array->len > LIST_MAX / list->size)
		return -EFBIG;
	*cursor = call.addr;
	if (ret_epoch)
		*ret_epoch = call.epoch;
	return 0;
}

/* All parts, or the first one only. */
static int list_all(struct hm_client *client, const struct list *list, struct hm_who who,
		    uint64_t cursor, bool first_only, GArray **ret, uint64_t *ret_epoch)
{
	g_autoptr(GArray) array = g_array_new(FALSE, FALSE, (guint)list->size);
	uint32_t limit = hm_client_max_data(client);
	int rc;

	limit -= limit % list->wire_size;
	do {
		rc = list_part(client, list, who, limit, &cursor, array, ret_epoch);
		if (rc)
			return rc;
		if (ret_epoch)
			who.epoch = *ret_epoch;		/* the rest from the same boot */
	} while (cursor && !first_only);
	*ret = g_steal_pointer(&array);
	return 0;
}

int hm_client_list_procs(struct hm_client *client, GArray **ret, uint64_t *ret_epoch)
{
	return list_all(client, &procs_list, (struct hm_who){}, 0, false, ret, ret_epoch);
}

int hm_client_list_procs_at(struct hm_client *client, uint32_t pid, GArray **ret,
			    uint64_t *ret_epoch)
{
	g_autoptr(GArray) array = g_array_new(FALSE, FALSE, sizeof(struct hm_proc));
	uint32_t limit = MIN(PROCS_SOME, hm_client_max_data(client) / sizeof(struct hypermem_proc));
	uint64_t cursor = pid;
	int rc;

	rc = list_part(client, &procs_list, (struct hm_who){},
		       limit * (uint32_t)sizeof(struct hypermem_proc), &cursor, array, ret_epoch);
	if (rc == 0)
		*ret = g_steal_pointer(&array);
	return rc;
}

int hm_client_list_fds(struct hm_client *client, struct hm_who who, GArray **ret)
{
	return list_all(client, &fds_list, who, 0, false, ret, NULL);
}

int hm_client_list_maps(struct hm_client *client, struct hm_who who, uint64_t addr, GArray **ret)
{
	return list_all(client, &maps_list, who, addr, true, ret, NULL);
}

int hm_client_read_fd(struct hm_client *client, struct hm_who who, uint32_t fd, struct hm_fd *ret)
{
	g_autoptr(GArray) array = g_array_new(FALSE, FALSE, sizeof(struct hm_fd));
	uint64_t cursor = fd;
	int rc;

	rc = list_part(client, &fds_list, who, sizeof(struct hypermem_fd), &cursor, array, NULL);
	if (rc)
		return rc;
	if (array->len == 0 || g_array_index(array, struct hm_fd, 0).fd != fd)
		return -ENOENT;
	*ret = g_array_index(array, struct hm_fd, 0);
	return 0;
}
