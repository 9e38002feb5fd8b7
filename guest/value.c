// SPDX-License-Identifier: GPL-2.0
/*
 * value: what is in a process's memory as pointers and strings.
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/string.h>

#include "compat.h"
#include "ops.h"

/*
 * Bytes of the pointers of the program that has this mm.  execve() gives the task the mm, then
 * the width, and then the mm its size.  0: the process is about to run another program.
 */
static u32 value_pointer_size(struct task_struct *task, struct mm_struct *mm)
{
	bool narrow;

	if (!READ_ONCE(mm->task_size))
		return 0;
	smp_rmb();
	narrow = hypermem_is_32bit(task);
	smp_rmb();
	if (READ_ONCE(task->mm) != mm)
		return 0;
	return narrow ? sizeof(u32) : sizeof(u64);
}

static int value_read_ptr(struct hypermem_request *request, struct mm_struct *mm)
{
	u32 size = value_pointer_size(request->task, mm);

	if (!size)
		return -EIO;
	return hypermem_mem_read(mm, request->header.addr, request->out, size, FOLL_FORCE,
				 &request->out_size);
}

int hypermem_read_ptr(struct hypermem_request *request)
{
	return hypermem_mem_use(request, -EIO, value_read_ptr);
}

static int value_write_ptr(struct task_struct *task, struct mm_struct *mm, u64 addr, u64 number)
{
	u32 size = value_pointer_size(task, mm), narrow = number;
	void *bytes = size == sizeof(u32) ? (void *)&narrow : &number;

	if (size == sizeof(u32) && number != narrow)
		return -ERANGE;
	if (!size || (unsigned long)addr != addr ||
	    hypermem_mem_mapped(mm, hypermem_untagged(addr), size) != size)
		return -EIO;
	return hypermem_mem_write(task, mm, addr, bytes, size) == size ? 0 : -EIO;
}

int hypermem_write_ptr(struct hypermem_request *request)
{
	struct mm_struct *mm;
	u64 number;
	int rc;

	if (!hypermem_get_number(request, &number))
		return -EINVAL;
	mm = get_task_mm(request->task);
	if (!mm)
		return hypermem_request_alive(request) ? -EIO : -ESRCH;
	rc = value_write_ptr(request->task, mm, request->header.addr, number);
	mmput(mm);
	if (!rc)
		request->out_size = request->header.size;
	return rc;
}

static int value_read_str(struct hypermem_request *request, struct mm_struct *mm)
{
	u64 addr = request->header.addr;
	int rc = 0;

	while (!rc && request->out_size < request->out_max) {
		u8 *out = request->out + request->out_size, *nul;
		u32 n;

		rc = hypermem_mem_read(mm, addr, out,
				       min_t(u32, request->out_max - request->out_size,
					     PAGE_SIZE - offset_in_page(addr)), FOLL_FORCE, &n);
		nul = memchr(out, 0, n);
		if (nul) {
			request->out_size += nul + 1 - out;
			return 0;
		}
		request->out_size += n;
		addr += n;
	}
	return rc;
}

int hypermem_read_str(struct hypermem_request *request)
{
	return hypermem_mem_use(request, -EIO, value_read_str);
}
