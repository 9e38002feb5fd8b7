/* SPDX-License-Identifier: GPL-2.0 */
/*
 * compat: what differs between the kernels that the module builds for, 5.10 and
 * later.  The only file that mentions kernel versions; each entry names the
 * commit that changed the thing.
 */
#ifndef HYPERMEM_COMPAT_H
#define HYPERMEM_COMPAT_H

#include <linux/version.h>

#include <linux/delay.h>
#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/path.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/coredump.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)
#include <linux/sched/exec_state.h>
#endif
#include <linux/slab.h>
#include <linux/tty.h>
#include <linux/tty_ldisc.h>
#include <linux/uaccess.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#ifdef CONFIG_X86_64
#include <asm/vsyscall.h>
#endif

/* d9679d0013a6 "virtio: wrap config->reset calls" */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
static inline void virtio_reset_device(struct virtio_device *vdev)
{
	vdev->config->reset(vdev);
}
#endif

/* c2c6325e1f2b "virtio: ... struct virtqueue_info"; find_vqs took arrays before */
static inline int hypermem_find_vqs(struct virtio_device *vdev, unsigned int n,
				    struct virtqueue *vqs[], vq_callback_t *callbacks[],
				    const char *const names[])
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
	return virtio_find_vqs(vdev, n, vqs, callbacks, names, NULL);
#else
	struct virtqueue_info *info;
	unsigned int i;
	int rc;

	info = kcalloc(n, sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	for (i = 0; i < n; i++) {
		info[i].name = names[i];
		info[i].callback = callbacks[i];
	}
	rc = virtio_find_vqs(vdev, n, vqs, info, NULL);
	kfree(info);
	return rc;
#endif
}

/* ffb37ca3bd16 "switch file_open_root() to struct path" */
static inline struct file *hypermem_open_root(struct vfsmount *mnt, const char *name, int flags)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 13, 0)
	return file_open_root(mnt->mnt_root, mnt, name, flags, 0);
#else
	struct path root = { .mnt = mnt, .dentry = mnt->mnt_root };

	return file_open_root(&root, name, flags, 0);
#endif
}

/* 25885a35a720 "Change calling conventions for filldir_t": int, 0 to go on, before */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
typedef int hypermem_filldir_ret;
#define HYPERMEM_FILLDIR_MORE	0
#define HYPERMEM_FILLDIR_STOP	1
#else
typedef bool hypermem_filldir_ret;
#define HYPERMEM_FILLDIR_MORE	true
#define HYPERMEM_FILLDIR_STOP	false
#endif

/*
 * Whether the files of its /proc directory belong to the process's owner.  With
 * task_lock(task) held, which keeps mm.
 */
static inline bool hypermem_is_dumpable(struct task_struct *task, struct mm_struct *mm)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0)	/* dumpability has left the mm */
	bool dumpable;

	rcu_read_lock();
	dumpable = rcu_dereference(task->exec_state)->dumpable == TASK_DUMPABLE_OWNER;
	rcu_read_unlock();
	return dumpable;
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)	/* flags were a word */
	return __get_dumpable(mm->flags) == SUID_DUMP_USER;
#else
	return __mm_flags_get_dumpable(mm) == SUID_DUMP_USER;
#endif
}

/*
 * Whether a process has pointers of 4 bytes.  Asked of its address space: x32 and n32 have
 * registers, and so a regset view, of 64 bits.  Without CONFIG_COMPAT (on s390 since 6.19)
 * all processes are like the kernel.
 */
static inline bool hypermem_is_32bit(struct task_struct *task)
{
#if !defined(CONFIG_64BIT)
	return true;
#elif !defined(CONFIG_COMPAT)
	return false;
#elif defined(CONFIG_X86)
	return test_tsk_thread_flag(task, TIF_ADDR32);
#elif defined(CONFIG_MIPS)
	return test_tsk_thread_flag(task, TIF_32BIT_ADDR);
#elif defined(CONFIG_S390)
	return test_tsk_thread_flag(task, TIF_31BIT);
#else
	return test_tsk_thread_flag(task, TIF_32BIT);
#endif
}

/* find_ge_pid() was not yet exported; idr_get_next() is all that it does */
static inline struct pid *hypermem_find_ge_pid(int nr, struct pid_namespace *ns)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
	return idr_get_next(&ns->idr, &nr);
#else
	return find_ge_pid(nr, ns);
#endif
}

/*
 * Up to n pages from addr on, each with a reference.  The mappings are locked; if it had
 * to wait for a page, they are not any more, and *locked is 0.  ca5e863233e8 "mm/gup: remove
 * vmas parameter from get_user_pages_remote()"
 */
static inline long hypermem_get_pages_locked(struct mm_struct *mm, unsigned long addr,
					     unsigned long n, unsigned int flags,
					     struct page **pages, int *locked)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	return get_user_pages_remote(mm, addr, n, flags, pages, NULL, locked);
#else
	return get_user_pages_remote(mm, addr, n, flags, pages, locked);
#endif
}

/*
 * An address without what the processor ignores of it.  Where that differs from process to
 * process (x86's LAM, RISC-V's pointer masking), one with a tag is no address here.
 */
static inline unsigned long hypermem_untagged(unsigned long addr)
{
#ifdef CONFIG_ARM64
	return untagged_addr(addr);
#else
	return addr;
#endif
}

/* The page above all of a process's own that some kernels give it: vsyscall, vectors. */
static inline bool hypermem_is_gate(unsigned long addr)
{
#if defined(CONFIG_X86_64)
	return (addr & PAGE_MASK) == VSYSCALL_ADDR;
#elif defined(CONFIG_ARM)
	return (addr & PAGE_MASK) == 0xffff0000;
#else
	return false;
#endif
}

/*
 * Held, the process does not begin to run another program.  False: it is about to.  f7cfd871ae0c
 * "exec: Transform exec_update_mutex into a rw_semaphore", which is in 5.10.6, too
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 7)
static inline bool hypermem_exec_trylock(struct task_struct *task)
{
	return true;
}

static inline void hypermem_exec_unlock(struct task_struct *task)
{
}
#else
static inline bool hypermem_exec_trylock(struct task_struct *task)
{
	return down_read_trylock(&task->signal->exec_update_lock);
}

static inline void hypermem_exec_unlock(struct task_struct *task)
{
	up_read(&task->signal->exec_update_lock);
}
#endif

/*
 * To sleep as a killable task that does not keep the machine from being suspended.  f5d39b020809
 * "freezer,sched: Rewrite core freezer logic" made a bit of the task's state of it
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#define HYPERMEM_TASK_FREEZABLE	TASK_KILLABLE
#define hypermem_schedule_timeout(left) freezable_schedule_timeout(left)
#else
#define HYPERMEM_TASK_FREEZABLE	(TASK_KILLABLE | TASK_FREEZABLE)
#define hypermem_schedule_timeout(left) schedule_timeout(left)
#endif

/* 8d622d21d248 "virtio: fix up virtio_disable_cb"; before, each buffer's interrupt came still */
static inline bool hypermem_can_disable_cb(void)
{
	return LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0);
}

/*
 * 152e11f6df29 "sched/fair: Implement delayed dequeue": to single_task_running() a task that
 * sleeps may be one that runs, until all have slept
 */
static inline void hypermem_let_others_sleep(void)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	/* Without timers of high resolution it would be for a tick. */
	if (!single_task_running() && hrtimer_resolution < 100 * NSEC_PER_USEC)
		usleep_range(1, 2);
#endif
}

/* Since 7.2 the kernel warns of a workqueue that does not say that it is bound. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define HYPERMEM_WQ_PERCPU	0
#else
#define HYPERMEM_WQ_PERCPU	WQ_PERCPU
#endif

/* The function goes on at `to`, which takes the same arguments. */
static inline void hypermem_redirect(struct pt_regs *regs, void *to)
{
#ifdef CONFIG_PPC64
	regs->gpr[12] = (unsigned long)to;	/* which finds its own data by it */
#endif
	/* A pointer to Thumb instructions says so in its lowest bit; an address does not. */
	instruction_pointer_set(regs, (unsigned long)to &
				      ~(unsigned long)IS_ENABLED(CONFIG_THUMB2_KERNEL));
}

/* f3ba3c710ac5 "mm/highmem: Provide kmap_local*" */
static inline void *hypermem_kmap(struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
	return kmap_atomic(page);
#else
	return kmap_local_page(page);
#endif
}

static inline void hypermem_kunmap(void *addr)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
	kunmap_atomic(addr);
#else
	kunmap_local(addr);
#endif
}

/*
 * Where the cache holds a page once for each of its addresses, one that was looked up can be
 * read here; except on MIPS, where flush_dcache_page() leaves alone what a process has
 * written to a file that it has mapped.  False: there is nothing of that, copy it as any memory.
 */
static inline bool hypermem_copy_aliased(struct page *page, unsigned long addr, void *to,
					 const void *from, size_t n)
{
#ifdef CONFIG_MIPS
	if (cpu_has_dc_aliases) {
		copy_from_user_page(NULL, page, addr, to, from, n);
		return true;
	}
#endif
	return false;
}

/* "tty: ... tty_kopen_exclusive" renamed tty_kopen() when it added tty_kopen_shared() */
static inline struct tty_struct *hypermem_tty_kopen(dev_t dev)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 12, 0)
	return tty_kopen(dev);
#else
	return tty_kopen_exclusive(dev);
#endif
}

/*
 * N_DEVELOPMENT: for what is not in the kernel's tree.  The owner of a line discipline
 * cannot be unloaded while a line has it; this one's lines are closed by the module itself.
 */
#define HYPERMEM_LDISC_NUMBER	29

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 14, 0)
static inline int hypermem_register_ldisc(struct tty_ldisc_ops *ops)
{
	return tty_register_ldisc(HYPERMEM_LDISC_NUMBER, ops);
}

static inline void hypermem_unregister_ldisc(struct tty_ldisc_ops *ops)
{
	tty_unregister_ldisc(HYPERMEM_LDISC_NUMBER);
}
#else
static inline int hypermem_register_ldisc(struct tty_ldisc_ops *ops)
{
	return tty_register_ldisc(ops);
}

static inline void hypermem_unregister_ldisc(struct tty_ldisc_ops *ops)
{
	tty_unregister_ldisc(ops);
}
#endif

/* What its functions are given, and return, has changed more than once. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 14, 0)
#define HYPERMEM_LDISC_FLAGS	char *
#elif LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define HYPERMEM_LDISC_FLAGS	const char *
#else
#define HYPERMEM_LDISC_FLAGS	const u8 *
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define HYPERMEM_LDISC_COUNT	int
#else
#define HYPERMEM_LDISC_COUNT	size_t
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 17, 0)
#define HYPERMEM_LDISC_HANGUP	int
#define HYPERMEM_LDISC_HUNG_UP	return 0
#else
#define HYPERMEM_LDISC_HANGUP	void
#define HYPERMEM_LDISC_HUNG_UP	do {} while (0)
#endif

#define HYPERMEM_LDISC(name_, open_, close_, hangup_, receive_, wakeup_)			\
static void name_##_receive(struct tty_struct *tty, const unsigned char *bytes,			\
			    HYPERMEM_LDISC_FLAGS flags, HYPERMEM_LDISC_COUNT n)			\
{												\
	receive_(tty, bytes, (const u8 *)flags, n);						\
}												\
												\
static HYPERMEM_LDISC_HANGUP name_##_hangup(struct tty_struct *tty)				\
{												\
	hangup_(tty);										\
	HYPERMEM_LDISC_HUNG_UP;									\
}												\
												\
static struct tty_ldisc_ops name_ = {								\
	.num = HYPERMEM_LDISC_NUMBER,								\
	.name = "hypermem",									\
	.open = open_,										\
	.close = close_,									\
	.hangup = name_##_hangup,								\
	.receive_buf = name_##_receive,								\
	.write_wakeup = wakeup_,								\
}

#endif
