// SPDX-License-Identifier: GPL-2.0
/*
 * maps: the mappings of a process.
 */
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/mm.h>

#include "compat.h"
#include "ops.h"

static void map_fill(const struct vm_area_struct *vma, struct hypermem_map_record *rec)
{
	unsigned long flags = vma->vm_flags;

	*rec = (struct hypermem_map_record){
		.start = vma->vm_start,
		.end = vma->vm_end,
		.flags = (flags & VM_READ ? HYPER_MAP_READ : 0) |
			 (flags & VM_WRITE ? HYPER_MAP_WRITE : 0) |
			 (flags & VM_EXEC ? HYPER_MAP_EXEC : 0) |
			 (flags & VM_MAYSHARE ? HYPER_MAP_SHARED : 0),
	};
	if ((flags & (VM_IO | VM_PFNMAP)) && !(vma->vm_ops && vma->vm_ops->access))
		rec->flags |= HYPER_MAP_NO_ACCESS;
	if (vma->vm_file) {
		const struct inode *inode = file_inode(vma->vm_file);

		rec->offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
		rec->inode = inode->i_ino;
		rec->dev_major = MAJOR(inode->i_sb->s_dev);
		rec->dev_minor = MINOR(inode->i_sb->s_dev);
	}
}

static int maps_list(struct hypermem_request *request, struct mm_struct *mm)
{
	unsigned long addr = request->header.addr;
	struct hypermem_map_record rec;
	struct vm_area_struct *vma;

	request->out_addr = 0;
	mmap_read_lock(mm);
	if (addr == request->header.addr) {
		while ((vma = find_vma(mm, addr))) {
			map_fill(vma, &rec);
			if (!hypermem_put_map(request, &rec)) {
				request->out_addr = addr;
				break;
			}
			addr = vma->vm_end;
		}
	}
	mmap_read_unlock(mm);
	return 0;
}

int hypermem_list_maps(struct hypermem_request *request)
{
	request->out_addr = 0;
	return hypermem_mem_use(request, 0, maps_list);
}
