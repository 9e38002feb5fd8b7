// SPDX-License-Identifier: GPL-2.0
/*
 * mem: memory of a process, as bytes.
 *
 * What is written goes by access_process_vm(), the kernel's own way for debuggers: it holds
 * the pages that it touches, breaks copy-on-write and keeps caches coherent.  What it must
 * not do is make memory: it would grow a stack downwards to meet an address, so only what
 * is mapped already is asked of it.  What is read is read from one mm, which the process
 * still has when it has been read: access_process_vm() takes that of the program that the
 * process runs by then.
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

/* With the mappings locked. */
static u32 mem_mapped(struct mm_struct *mm, unsigned long addr, u32 size)
{
	unsigned long end = addr;
	struct vm_area_struct *vma;

	while (end - addr < size) {
		vma = find_vma(mm, end);
		if (!vma || vma->vm_start > end)
			break;
		end = vma->vm_end;
	}
	if (end == addr && hypermem_is_gate(addr))	/* it is no vma */
		end = (addr & PAGE_MASK) + PAGE_SIZE;
	return min_t(unsigned long, end - addr, size);
}

u32 hypermem_mem_mapped(struct mm_struct *mm, u64 addr, u32 size)
{
	u32 mapped;

	if ((unsigned long)addr != addr)
		return 0;
	mmap_read_lock(mm);
	mapped = mem_mapped(mm, addr, size);
	mmap_read_unlock(mm);
	return mapped;
}

long hypermem_mem_get_pages(struct mm_struct *mm, unsigned long addr, unsigned long n,
			    unsigned int flags, struct page **pages)
{
	int locked = 1;
	long got = -EFAULT;

	mmap_read_lock(mm);
	n = mem_mapped(mm, addr, n * PAGE_SIZE) / PAGE_SIZE;
	if (n)
		got = hypermem_get_pages_locked(mm, addr, n, flags, pages, &locked);
	if (locked)
		mmap_read_unlock(mm);
	return got;
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
	struct page *pages[BATCH], *again[BATCH];
	long got = -EFAULT, got_again = 0, same = 0;
	int locked = 1;

	mmap_read_lock(mm);
	size = mem_mapped(mm, addr, min_t(u32, size, BATCH * PAGE_SIZE - offset_in_page(addr)));
	if (size)
		got = hypermem_get_pages_locked(mm, addr,
						DIV_ROUND_UP(offset_in_page(addr) + size, PAGE_SIZE),
						flags, pages, &locked);
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
		return got && got != -EEXIST ? got : -EFAULT;	/* EEXIST: it has no struct page */
	return same ? min_t(unsigned long, same * PAGE_SIZE - offset_in_page(addr), size) : 0;
}

/* Lookups that had to wait, or whose pages went, one after the other: the machine thrashes. */
#define TRIES	100

/* Bytes, or if there are none why: -EFAULT: there is no page. */
static long mem_read_pages(struct mm_struct *mm, unsigned long addr, u8 *buf, u32 size,
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
	return done ? (long)done : n ?: -ENOMEM;
}

/*
 * Device memory has no pages, but perhaps a way to be read: a page at a time, since
 * generic_access_phys() looks up no more.  Returns bytes.
 */
static long mem_read_device(struct mm_struct *mm, unsigned long addr, u8 *buf, u32 size)
{
	struct vm_area_struct *vma;
	int n = 0;

	size = min_t(u32, size, PAGE_SIZE - offset_in_page(addr));
	mmap_read_lock(mm);
	vma = find_vma(mm, addr);
	if (vma && vma->vm_start <= addr && vma->vm_ops && vma->vm_ops->access)
		n = vma->vm_ops->access(vma, addr, buf, size, 0);
	mmap_read_unlock(mm);
	return max(n, 0);
}

int hypermem_mem_read(struct mm_struct *mm, u64 addr, void *buf, u32 size, unsigned int flags,
		      u32 *ret_done)
{
	unsigned long start = hypermem_untagged(addr);
	u32 done = 0;
	long n;

	*ret_done = 0;
	if ((unsigned long)addr != addr)
		return -EIO;
	while (done < size) {
		n = mem_read_pages(mm, start + done, buf + done, size - done, flags);
		if (n == -EFAULT)
			n = mem_read_device(mm, start + done, buf + done, size - done) ?: -EIO;
		if (n < 0)
			return n;
		done += n;
		*ret_done = done;
	}
	return 0;
}

/*
 * Make pages present and writable.  Who waits for them here does so with the mappings
 * unlocked; access_process_vm() would keep them locked, and with them the process.
 */
static void mem_prepare_write(struct mm_struct *mm, unsigned long addr, u32 size)
{
	unsigned long pages_n = DIV_ROUND_UP(offset_in_page(addr) + size, PAGE_SIZE);
	struct page *pages[BATCH];
	long got;

	for (addr &= PAGE_MASK; pages_n; addr += got * PAGE_SIZE, pages_n -= got) {
		got = hypermem_mem_get_pages(mm, addr, min_t(unsigned long, pages_n, BATCH),
					     FOLL_FORCE | FOLL_WRITE, pages);
		if (got <= 0)
			break;
		mem_put_pages(pages, got);
		cond_resched();
	}
}

/* A page at a time: what is behind it may be no memory of this mapping, or not be mapped. */
static u32 mem_write_pages(struct task_struct *task, struct mm_struct *mm, unsigned long addr,
			   void *buf, u32 size)
{
	u32 done = 0, part;
	int n;

	while (done < size) {
		part = min_t(u32, size - done, PAGE_SIZE - offset_in_page(addr + done));
		if (hypermem_mem_mapped(mm, addr + done, part) != part)
			break;
		n = access_process_vm(task, addr + done, buf + done, part,
				      FOLL_FORCE | FOLL_WRITE);
		if (n <= 0)
			break;
		done += n;
		cond_resched();
	}
	return done;
}

/*
 * access_process_vm() takes the memory of the program that the process runs by then, and the
 * pages may have been waited for: that must still be the one that was looked at.
 */
u32 hypermem_mem_write(struct task_struct *task, struct mm_struct *mm, u64 addr, void *buf,
		       u32 size)
{
	unsigned long start = hypermem_untagged(addr);
	u32 mapped = 0, done = 0;

	if ((unsigned long)addr == addr)
		mapped = hypermem_mem_mapped(mm, start, size);
	if (!mapped)
		return 0;
	mem_prepare_write(mm, start, mapped);
	if (!hypermem_exec_trylock(task))
		return 0;
	if (READ_ONCE(task->mm) == mm)
		done = mem_write_pages(task, mm, start, buf, mapped);
	hypermem_exec_unlock(task);
	return done;
}

int hypermem_mem_use(struct hypermem_request *request, int without,
		     int (*use)(struct hypermem_request *request, struct mm_struct *mm))
{
	unsigned int tries = 0;
	struct mm_struct *mm;
	bool same;
	int rc;

	do {
		mm = get_task_mm(request->task);
		if (!mm)
			return hypermem_request_alive(request) ? without : -ESRCH;
		rc = use(request, mm);
		smp_rmb();
		same = READ_ONCE(request->task->mm) == mm;
		mmput(mm);
		if (!same)
			request->out_size = 0;
	} while (!same && ++tries < TRIES);
	return same ? rc : -EIO;
}

static int mem_read(struct hypermem_request *request, struct mm_struct *mm)
{
	return hypermem_mem_read(mm, request->header.addr, request->out, request->out_max,
				 FOLL_FORCE, &request->out_size);
}

int hypermem_read(struct hypermem_request *request)
{
	return request->out_max ? hypermem_mem_use(request, 0, mem_read) : 0;
}

int hypermem_write(struct hypermem_request *request)
{
	u32 size = request->header.size;
	struct mm_struct *mm;

	if (!size)
		return 0;
	mm = get_task_mm(request->task);
	if (!mm)
		return hypermem_request_alive(request) ? -EIO : -ESRCH;
	request->out_size = hypermem_mem_write(request->task, mm, request->header.addr,
					       request->data, size);
	mmput(mm);
	return request->out_size == size ? 0 : -EIO;
}
