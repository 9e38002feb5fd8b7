// SPDX-License-Identifier: GPL-2.0
/*
 * proc: which processes there are, their arguments and environments.
 *
 * Pids are those of the initial pid namespace, whatever namespace a process
 * lives in.  cmdline and environ follow fs/proc/base.c to the byte: they cannot be
 * read through the guest's own /proc, which copies them to user space only.
 */
#include <linux/cred.h>
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/uidgid.h>

#include "compat.h"
#include "ops.h"

/* The start time survives exec, also by a thread that becomes the leader. */
u16 hypermem_task_stamp(const struct task_struct *task)
{
	return hash_64(task->start_boottime, 16) ?: 1;
}

struct task_struct *hypermem_task_get(const struct hypermem_header *header)
{
	struct task_struct *task = NULL;

	if (header->pid && header->pid < HYPERMEM_PID_MAX) {
		rcu_read_lock();
		task = pid_task(find_pid_ns(header->pid, &init_pid_ns), PIDTYPE_PID);
		if (task)
			get_task_struct(task);
		rcu_read_unlock();
	}
	if (task && header->stamp && header->stamp != hypermem_task_stamp(task)) {
		put_task_struct(task);
		task = NULL;
	}
	return task;
}

static void proc_fill_mm(struct task_struct *task, struct hypermem_proc_record *rec)
{
	struct mm_struct *mm;

	task_lock(task);	/* keeps task->mm */
	mm = task->flags & PF_KTHREAD ? NULL : task->mm;
	if (mm) {
		rec->flags |= HYPER_PROC_MM;
		if (hypermem_is_dumpable(task, mm))
			rec->flags |= HYPER_PROC_DUMPABLE;
		rec->task_size = mm->task_size;
		spin_lock(&mm->arg_lock);
		rec->arg_start = mm->arg_start;
		rec->arg_end = mm->arg_end;
		rec->env_start = mm->env_start;
		rec->env_end = mm->env_end;
		spin_unlock(&mm->arg_lock);
	}
	task_unlock(task);
}

/* When the guest booted, in ns; it changes when somebody sets the clock. */
static s64 proc_boot_time(void)
{
	struct timespec64 boot;

	getboottime64(&boot);
	return timespec64_to_ns(&boot);
}

static void proc_fill(struct task_struct *task, s64 boot, struct hypermem_proc_record *rec)
{
	const struct cred *cred;

	memset(rec, 0, sizeof(*rec));
	rec->stamp = hypermem_task_stamp(task);
	rec->state = task_state_to_char(task);
	rec->threads = get_nr_threads(task);
	rec->start_time = task->start_boottime;
	rec->start_time_real = boot + task->start_boottime;
	if (task->flags & PF_KTHREAD)
		rec->flags |= HYPER_PROC_KTHREAD;
	if (hypermem_is_32bit(task))
		rec->flags |= HYPER_PROC_32BIT;
	get_task_comm(rec->comm, task);
	rcu_read_lock();
	rec->pid = task_pid_nr(task);
	if (pid_alive(task))
		rec->ppid = task_tgid_nr(rcu_dereference(task->real_parent));
	cred = __task_cred(task);
	rec->uid = __kuid_val(cred->euid);	/* as in init_user_ns */
	rec->gid = __kgid_val(cred->egid);
	rcu_read_unlock();
	proc_fill_mm(task, rec);
}

int hypermem_read_proc(struct hypermem_request *request)
{
	struct hypermem_proc_record rec;

	proc_fill(request->task, proc_boot_time(), &rec);
	/* Reaped meanwhile, or a thread of it that has executed a program has taken its place. */
	if (!hypermem_request_alive(request))
		return -ESRCH;
	hypermem_put_proc(request, &rec);
	return 0;
}

/* The first thread group leader with pid >= *pid, pinned; *pid is its. */
static struct task_struct *proc_next(u32 *pid)
{
	struct task_struct *task = NULL;
	struct pid *found;

	rcu_read_lock();
	while ((found = hypermem_find_ge_pid(*pid, &init_pid_ns))) {
		*pid = pid_nr(found);
		task = pid_task(found, PIDTYPE_TGID);
		if (task) {
			get_task_struct(task);
			break;
		}
		++*pid;
	}
	rcu_read_unlock();
	return task;
}

int hypermem_list_procs(struct hypermem_request *request)
{
	struct hypermem_proc_record rec;
	s64 boot = proc_boot_time();
	struct task_struct *task;
	bool alive;
	u32 pid;

	request->out_addr = 0;
	if (request->header.addr >= HYPERMEM_PID_MAX)
		return 0;
	for (pid = max_t(u32, request->header.addr, 1); (task = proc_next(&pid)); pid++) {
		proc_fill(task, boot, &rec);
		alive = pid_alive(task) && rec.pid == pid;
		put_task_struct(task);
		if (!alive) {
			pid--;		/* who has that pid now? */
			continue;
		}
		if (!hypermem_put_proc(request, &rec)) {
			request->out_addr = pid;
			break;
		}
	}
	return 0;
}

/* Where arguments and environment are, all of one moment. */
struct proc_area {
	u64 arg_start, arg_end, env_start, env_end;
};

static void proc_area_get(struct mm_struct *mm, struct proc_area *ret)
{
	spin_lock(&mm->arg_lock);
	ret->arg_start = mm->arg_start;
	ret->arg_end = mm->arg_end;
	ret->env_start = mm->env_start;
	ret->env_end = mm->env_end;
	spin_unlock(&mm->arg_lock);
}

/*
 * FOLL_ANON, as fs/proc does: a process that has mapped a file over its arguments
 * gets no one to wait for that file.
 */
static int proc_access(struct mm_struct *mm, u64 addr, void *buf, u32 size, u32 *ret_done)
{
	return hypermem_mem_read(mm, addr, buf, size, FOLL_ANON, ret_done);
}

/* `size` bytes at addr into the reply. */
static int proc_copy(struct hypermem_request *request, struct mm_struct *mm, u64 addr, u64 size)
{
	return proc_access(mm, addr, request->out, min_t(u64, size, request->out_max),
			   &request->out_size);
}

/* setproctitle(3) has overwritten the end of argv: a title, at most a page of it. */
static int proc_copy_title(struct hypermem_request *request, struct mm_struct *mm, u64 start)
{
	u64 offset = request->header.addr;
	char *page;
	size_t size;
	u32 n;
	int rc;

	if (offset >= PAGE_SIZE)
		return 0;
	page = (char *)__get_free_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	rc = proc_access(mm, start, page, PAGE_SIZE, &n);
	if (n) {
		size = strnlen(page, n);
		if (size < n)
			size++;		/* the NUL too */
		size = size > offset ? min_t(size_t, size - offset, request->out_max) : 0;
		memcpy(request->out, page + offset, size);
		request->out_size = size;
	}
	free_page((unsigned long)page);
	return n ? 0 : rc;
}

static int proc_args(struct hypermem_request *request, struct mm_struct *mm)
{
	u64 offset = request->header.addr, size, title_size;
	struct proc_area area;
	char last;
	u32 n;

	proc_area_get(mm, &area);
	title_size = size = area.arg_end - area.arg_start;
	if (!area.env_end || area.arg_start >= area.arg_end)
		return 0;
	if (area.env_start == area.arg_end && area.env_end >= area.env_start)
		title_size = area.env_end - area.arg_start;
	if (offset >= title_size)
		return 0;
	if (!proc_access(mm, area.arg_end - 1, &last, 1, &n) && last)
		return proc_copy_title(request, mm, area.arg_start);
	return offset < size ? proc_copy(request, mm, area.arg_start + offset, size - offset) : 0;
}

static int proc_env(struct hypermem_request *request, struct mm_struct *mm)
{
	u64 offset = request->header.addr;
	struct proc_area area;

	proc_area_get(mm, &area);
	if (!area.env_end || area.env_start >= area.env_end ||
	    offset >= area.env_end - area.env_start)
		return 0;
	return proc_copy(request, mm, area.env_start + offset,
			 area.env_end - area.env_start - offset);
}

int hypermem_read_procargs(struct hypermem_request *request)
{
	return hypermem_mem_use(request, 0, proc_args);
}

int hypermem_read_procenv(struct hypermem_request *request)
{
	return hypermem_mem_use(request, 0, proc_env);
}
