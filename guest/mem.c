// SPDX-License-Identifier: GPL-2.0
/*
 * mem: memory and mappings of a process.
 *
 * What is written goes by access_process_vm(), the kernel's own way for debuggers: it holds
 * the pages that it touches, breaks copy-on-write and keeps caches coherent.  What it must
 * not do is make memory: it would grow a stack downwards to meet an address, so only what
 * is mapped already is asked of it.  What is read is read from one mm: access_process_vm()
 * takes that of the program that the process runs by now.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>
#include <linux/string.h>

#include "compat.h"
#include "ops.h"

#define BATCH	16		/* pages that are looked up at a time */

u32 hypermem_mem_mapped(struct mm_struct *mm, u64 addr, u32 size)
{
	unsigned long start = addr, end = start;
	struct vm_area_struct *vma;

	if (start != addr || !size)
		return 0;
	/*
	 * Beyond user space only the gate area (vsyscall, vectors) can be; it is no vma.  The mm
	 * of an exec under way does not know yet how large user space is.
	 */
	if (mm->task_size && addr >= mm->task_size)
		return size;
	mmap_read_lock(mm);
	while (end - start < size) {
		vma = find_vma(mm, end);
		if (!vma || vma->vm_start > end)
			break;
		end = vma->vm_end;
	}
	mmap_read_unlock(mm);
	return min_t(unsigned long, end - start, size);
}

/*
 * memcpy() is one string instruction on some processors, which an emulator does byte by
 * byte.  READ_ONCE() keeps the compiler from finding memcpy() in the loop.
 */
static void mem_copy(void *to, const void *from, size_t n)
{
	const unsigned long *in = from;
	unsigned long *out = to;

	if (IS_ALIGNED((unsigned long)to | (unsigned long)from, sizeof(long))) {
		for (; n >= 8 * sizeof(long); n -= 8 * sizeof(long), in += 8, out += 8) {
			out[0] = READ_ONCE(in[0]);
			out[1] = READ_ONCE(in[1]);
			out[2] = READ_ONCE(in[2]);
			out[3] = READ_ONCE(in[3]);
			out[4] = READ_ONCE(in[4]);
			out[5] = READ_ONCE(in[5]);
			out[6] = READ_ONCE(in[6]);
			out[7] = READ_ONCE(in[7]);
		}
	}
	memcpy(out, in, n);
}

/* Copy from the pages at addr; returns bytes. */
static u32 mem_copy_pages(struct page **pages, long n, unsigned long addr, u8 *buf, u32 size)
{
	size_t offset = offset_in_page(addr);
	u32 done = 0;
	long i;

	for (i = 0; i < n; i++, offset = 0) {
		u32 part = min_t(u32, PAGE_SIZE - offset, size - done);
		void *from = hypermem_kmap(pages[i]);

		if (!hypermem_copy_aliased(pages[i], addr + done, buf + done, from + offset, part))
			mem_copy(buf + done, from + offset, part);
		hypermem_kunmap(from);
		done += part;
	}
	return done;
}

static void mem_put_pages(struct page **pages, long n)
{
	while (n-- > 0)
		put_page(pages[n]);
}

/*
 * Read from some pages.  The locked mappings cannot be changed meanwhile, but a fault may
 * put a copy in a page's place; then the page is somebody else's, who may write to it. So
 * the pages are looked up again when they have been copied, and what was read from one
 * that has gone does not count.  Returns bytes, 0: try again, or -errno.
 */
static long mem_read_batch(struct mm_struct *mm, unsigned long addr, u8 *buf, u32 size,
			   unsigned int flags)
{
	unsigned long n = min_t(unsigned long, BATCH,
				DIV_ROUND_UP(offset_in_page(addr) + size, PAGE_SIZE));
	struct page *pages[BATCH], *again[BATCH];
	long got, got_again = 0, same = 0;
	int locked = 1;

	mmap_read_lock(mm);
	got = hypermem_get_pages_locked(mm, addr, n, flags, pages, &locked);
	if (got > 0 && locked) {
		mem_copy_pages(pages, got, addr, buf, size);
		got_again = hypermem_get_pages_locked(mm, addr, got, flags, again, &locked);
		while (locked && same < got_again && pages[same] == again[same])
			same++;
		mem_put_pages(again, got_again);
	}
	if (locked)
		mmap_read_unlock(mm);
	mem_put_pages(pages, got);
	if (got <= 0)
		return got ?: -EFAULT;
	return same ? min_t(unsigned long, same * PAGE_SIZE - offset_in_page(addr), size) : 0;
}

/* Lookups that had to wait, or whose pages went, one after the other: the machine thrashes. */
#define TRIES	100

/* Up to the first byte that no page has. */
static u32 mem_read_pages(struct mm_struct *mm, unsigned long addr, u8 *buf, u32 size,
			  unsigned int flags)
{
	unsigned int tries = 0;
	u32 done = 0;
	long n;

	do {
		n = mem_read_batch(mm, addr + done, buf + done, size - done, flags);
		if (n > 0)
			done += n;
		tries = n ? 0 : tries + 1;
		cond_resched();
	} while (n >= 0 && tries < TRIES && done < size);
	return done;
}

/* Device memory has no pages, but perhaps a way to be read.  Returns bytes. */
static u32 mem_read_device(struct mm_struct *mm, unsigned long addr, u8 *buf, u32 size)
{
	struct vm_area_struct *vma;
	int n = 0;

	mmap_read_lock(mm);
	vma = find_vma(mm, addr);
	if (vma && vma->vm_start <= addr && vma->vm_ops && vma->vm_ops->access)
		n = vma->vm_ops->access(vma, addr, buf,
					min_t(unsigned long, size, vma->vm_end - addr), 0);
	mmap_read_unlock(mm);
	return max(n, 0);
}

u32 hypermem_mem_read(struct mm_struct *mm, u64 addr, void *buf, u32 size, unsigned int flags)
{
	u32 mapped = hypermem_mem_mapped(mm, addr, size), done = 0, n;

	while (done < mapped) {
		n = mem_read_pages(mm, addr + done, buf + done, mapped - done, flags) ?:
		    mem_read_device(mm, addr + done, buf + done, mapped - done);
		if (!n)
			break;
		done += n;
	}
	return done;
}

/*
 * Make pages present and writable.  Who waits for them here does so with the mappings
 * unlocked; access_process_vm() would keep them locked, and with them the process.
 */
static void mem_prepare_write(struct mm_struct *mm, unsigned long addr, u32 size)
{
	unsigned long pages_n = DIV_ROUND_UP(offset_in_page(addr) + size, PAGE_SIZE);
	struct page *pages[BATCH];
	long got, i;

	for (addr &= PAGE_MASK; pages_n; addr += got * PAGE_SIZE, pages_n -= got) {
		got = hypermem_get_pages(mm, addr, min_t(unsigned long, pages_n, BATCH),
					 FOLL_FORCE | FOLL_WRITE, pages);
		for (i = 0; i < got; i++)
			put_page(pages[i]);
		if (got <= 0)
			break;
		cond_resched();
	}
}

/* Pages may have been waited for: another program that runs by now does not get the bytes. */
static int mem_write(struct task_struct *task, struct mm_struct *mm, u64 addr, void *buf, u32 size,
		     unsigned int flags)
{
	u32 mapped = hypermem_mem_mapped(mm, addr, size);
	bool same;

	if (!mapped)
		return 0;
	mem_prepare_write(mm, addr, mapped);
	task_lock(task);
	same = task->mm == mm;
	task_unlock(task);
	return same ? access_process_vm(task, addr, buf, mapped, flags) : 0;
}

/*
 * Returns bytes copied, -ENXIO if the process has no memory, -EIO if the first byte
 * is not mapped.
 */
static int mem_access(struct task_struct *task, u64 addr, void *buf, u32 size, unsigned int flags)
{
	struct mm_struct *mm = get_task_mm(task);
	int n;

	if (!mm)
		return pid_alive(task) ? -ENXIO : -ESRCH;
	if (flags & FOLL_WRITE)
		n = mem_write(task, mm, addr, buf, size, flags);
	else
		n = hypermem_mem_read(mm, addr, buf, size, flags);
	mmput(mm);
	return n ?: -EIO;
}

int hypermem_read(struct hypermem_request *request)
{
	int n;

	if (!request->out_max)
		return 0;
	n = mem_access(request->task, request->header.addr, request->out, request->out_max,
		       FOLL_FORCE);
	if (n == -ENXIO)
		return 0;
	if (n < 0)
		return n;
	request->out_size = n;
	return n == request->out_max ? 0 : -EIO;
}

int hypermem_write(struct hypermem_request *request)
{
	u32 size = request->header.size;
	int n;

	if (!size)
		return 0;
	n = mem_access(request->task, request->header.addr, request->data, size,
		       FOLL_FORCE | FOLL_WRITE);
	if (n < 0)
		return n == -ENXIO ? -EIO : n;
	request->out_size = n;
	return n == size ? 0 : -EIO;
}

int hypermem_read_str(struct hypermem_request *request)
{
	u64 addr = request->header.addr;
	u8 *nul;
	int n;

	while (request->out_size < request->out_max) {
		u32 size = min_t(u32, request->out_max - request->out_size,
				 PAGE_SIZE - offset_in_page(addr));

		n = mem_access(request->task, addr, request->out + request->out_size, size,
			       FOLL_FORCE);
		if (n < 0)
			return n == -ENXIO ? -EIO : n;
		nul = memchr(request->out + request->out_size, 0, n);
		if (nul) {
			request->out_size = nul + 1 - request->out;
			return 0;
		}
		request->out_size += n;
		if (n < size)
			return -EIO;
		addr += n;
	}
	return 0;
}

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

int hypermem_list_maps(struct hypermem_request *request)
{
	struct mm_struct *mm = get_task_mm(request->task);
	unsigned long addr = request->header.addr;
	struct hypermem_map_record rec;
	struct vm_area_struct *vma;

	request->out_addr = 0;
	if (!mm)
		return pid_alive(request->task) ? 0 : -ESRCH;
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
	mmput(mm);
	return 0;
}
