// SPDX-License-Identifier: MIT
/*
 * file_mem: pid/N/mem, where the offset is the virtual address.
 *
 * It has no size, as in /proc: SEEK_DATA and SEEK_HOLE say where there is memory.
 * Writes go to the guest at once, or not at all; nothing is kept here.
 */
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include "fs/file.h"

/* Of a list of mappings: no process has more, and a guest that pretends so is not believed. */
#define PARTS_MAX 4096

ssize_t hmfs_mem_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	g_mutex_lock(&file->lock);
	if (!file->reader)
		file->reader = hm_reader_new(file->fs->client, file->who);
	g_mutex_unlock(&file->lock);
	return hm_reader_read(file->reader, (uint64_t)offset, buf, size);
}

ssize_t hmfs_mem_write(struct hmfs_file *file, const void *buf, size_t size, off_t offset)
{
	return hm_client_write(file->fs->client, file->who, (uint64_t)offset, buf, size);
}

/*
 * The first readable mapping that ends above addr, merged with those that follow it
 * without a gap.  -ENXIO: there is none.
 */
static int mem_extent(struct hmfs_file *file, uint64_t addr, uint64_t *ret_start,
		      uint64_t *ret_end)
{
	uint64_t start = 0, end = 0;

	for (unsigned int parts = 0;; parts++) {
		g_autoptr(GArray) maps = NULL;
		int rc;

		if (parts == PARTS_MAX)
			return -EFBIG;

		rc = hm_client_list_maps(file->fs->client, file->who, addr, &maps);
		if (rc < 0)
			return rc;
		for (guint i = 0; i < maps->len; i++) {
			const struct hm_map *map = &g_array_index(maps, struct hm_map, i);

			addr = map->end;
			if (map->flags & HYPER_MAP_NO_ACCESS)
				continue;
			if (end && map->start != end)
				goto out;
			if (!end)
				start = map->start;
			end = map->end;
		}
		if (maps->len == 0)
			break;
	}
	if (!end)
		return -ENXIO;
out:
	*ret_start = start;
	*ret_end = end;
	return 0;
}

off_t hmfs_mem_seek(struct hmfs_file *file, off_t offset, int whence)
{
	uint64_t addr = (uint64_t)offset, start, end;
	int rc;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	rc = mem_extent(file, addr, &start, &end);
	if (rc < 0)
		return rc;
	if (whence == SEEK_DATA)
		addr = MAX(addr, start);
	else if (addr >= start)
		addr = end;
	return addr <= INT64_MAX ? (off_t)addr : -EOVERFLOW;
}
