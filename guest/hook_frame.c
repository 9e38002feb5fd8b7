// SPDX-License-Identifier: GPL-2.0
/*
 * hook_frame: calls that are being looked at.  See hook.h.
 *
 * A frame is taken in a probe's handler, where no memory can be had: so some are kept at
 * hand, and who has taken one puts another in its place as soon as it may sleep.
 */
#include <linux/delay.h>
#include <linux/hash.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "compat.h"
#include "hook.h"

#define AT_HAND		64
#define TABLE_BITS	8

static DEFINE_RAW_SPINLOCK(frames_lock);	/* protects what follows */
static struct hlist_head frames_by_task[1 << TABLE_BITS];
static struct hlist_head frames_by_id[1 << TABLE_BITS];
static HLIST_HEAD(frames_at_hand);
static unsigned int frames_n_at_hand;

static atomic_t frames_n;		/* taken */
static atomic_t frames_n_inside;	/* whose task may come back to this module's code */

static struct hlist_head *frames_of(const struct task_struct *task)
{
	return &frames_by_task[hash_ptr(task, TABLE_BITS)];
}

static struct hlist_head *frames_waiting(u64 id)
{
	return &frames_by_id[hash_64(id, TABLE_BITS)];
}

static struct hook_frame *frame_find(const struct task_struct *task)
{
	struct hook_frame *frame;

	hlist_for_each_entry(frame, frames_of(task), node)
		if (frame->task == task)
			return frame;
	return NULL;
}

struct hook_frame *hook_frame_current(void)
{
	struct hook_frame *frame;
	unsigned long flags;

	raw_spin_lock_irqsave(&frames_lock, flags);
	frame = frame_find(current);
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	return frame;
}

/* Its task will never look for it again.  A probe's own reference is not its last one. */
static void frame_left(struct hook_frame *frame)
{
	hlist_del(&frame->node);
	hlist_add_head(&frame->node, &frames_at_hand);
	frames_n_at_hand++;
	refcount_dec(&frame->probe->refs);
	atomic_dec(&frames_n);
}

bool hook_frame_passes(const struct hook_probe *probe)
{
	struct hook_frame *frame;
	unsigned long flags;
	bool left;

	if (!atomic_read(&frames_n))
		return false;
	raw_spin_lock_irqsave(&frames_lock, flags);
	frame = frame_find(current);
	left = frame && frame->leaves && frame->probe == probe;
	if (left)
		frame_left(frame);
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	if (left)
		put_task_struct(current);
	return frame;
}

struct hook_frame *hook_frame_take(struct hook_probe *probe)
{
	struct hook_frame *frame = NULL;
	unsigned long flags;

	raw_spin_lock_irqsave(&frames_lock, flags);
	if (!hlist_empty(&frames_at_hand)) {
		frame = hlist_entry(frames_at_hand.first, struct hook_frame, node);
		hlist_del(&frame->node);
		frames_n_at_hand--;
		memset(frame, 0, sizeof(*frame));
		frame->task = get_task_struct(current);
		frame->probe = probe;
		refcount_inc(&probe->refs);
		hlist_add_head(&frame->node, frames_of(current));
		atomic_inc(&frames_n);
		atomic_inc(&frames_n_inside);
	}
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	return frame;
}

/* Into those at hand, or away if there are enough; NULL is fine. */
static bool frame_keep(struct hook_frame *frame)
{
	unsigned long flags;
	bool keep;

	raw_spin_lock_irqsave(&frames_lock, flags);
	keep = frame && frames_n_at_hand < AT_HAND;
	if (keep) {
		hlist_add_head(&frame->node, &frames_at_hand);
		frames_n_at_hand++;
	}
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	if (!keep)
		kfree(frame);
	return keep;
}

void hook_frames_refill(void)
{
	while (READ_ONCE(frames_n_at_hand) < AT_HAND &&
	       frame_keep(kmalloc(sizeof(struct hook_frame), GFP_KERNEL)))
		;
}

void hook_frame_release(struct hook_frame *frame)
{
	struct hook_probe *probe = frame->probe;
	unsigned long flags;

	raw_spin_lock_irqsave(&frames_lock, flags);
	hlist_del(&frame->node);
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	put_task_struct(frame->task);
	frame_keep(frame);
	hook_probe_put(probe);
	atomic_dec(&frames_n);
	/* Who waits for the last one still waits for us to leave this module's code. */
	atomic_dec(&frames_n_inside);
}

/* If there is no probe in its way, no handler will see the task come by. */
void hook_frame_leave(struct hook_frame *frame)
{
	struct hook_probe *probe = frame->probe;
	unsigned long flags;
	bool gone;

	raw_spin_lock_irqsave(&frames_lock, flags);
	gone = probe->gone;
	if (!gone) {
		frame->leaves = true;
		atomic_dec(&frames_n_inside);
	}
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	if (gone)
		hook_frame_release(frame);
}

/* Out of the table, into `out`, for frames_free(). */
static void frame_move(struct hook_frame *frame, struct hlist_head *out)
{
	hlist_del(&frame->node);
	hlist_add_head(&frame->node, out);
}

/* Of tasks that will never look for them again. */
static void frames_free(struct hlist_head *frames)
{
	struct hook_frame *frame;
	struct hlist_node *next;

	hlist_for_each_entry_safe(frame, next, frames, node) {
		put_task_struct(frame->task);
		hook_probe_put(frame->probe);
		atomic_dec(&frames_n);
		kfree(frame);
	}
}

void hook_frames_forget(struct hook_probe *probe)
{
	struct hook_frame *frame;
	struct hlist_node *next;
	unsigned long flags;
	HLIST_HEAD(left);
	unsigned int i;

	if (!probe->leaves)
		return;
	raw_spin_lock_irqsave(&frames_lock, flags);
	probe->gone = true;
	for (i = 0; i < ARRAY_SIZE(frames_by_task); i++)
		hlist_for_each_entry_safe(frame, next, &frames_by_task[i], node)
			if (frame->leaves && frame->probe == probe)
				frame_move(frame, &left);
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	frames_free(&left);
}

int hook_frame_wait_begin(struct hook_frame *frame, struct hook *hook, u64 id)
{
	unsigned long flags;
	int rc = -ESRCH;

	frame->replied = false;
	frame->id = id;
	raw_spin_lock_irqsave(&frames_lock, flags);
	if (!hook->gone) {
		frame->hook = hook;
		hlist_add_head(&frame->waiting, frames_waiting(id));
		rc = 0;
	}
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	return rc;
}

/* Not a completion: those have no wait in which the machine may be suspended, and a timeout. */
long hook_frame_wait(struct hook_frame *frame, long left)
{
	for (;;) {
		set_current_state(HYPERMEM_TASK_FREEZABLE);
		if (!READ_ONCE(frame->hook) || !left)
			break;
		if (fatal_signal_pending(current)) {
			left = -EINTR;
			break;
		}
		left = hypermem_schedule_timeout(left);
	}
	__set_current_state(TASK_RUNNING);
	return left;
}

void hook_frame_wait_end(struct hook_frame *frame)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&frames_lock, flags);
	if (frame->hook)
		hlist_del(&frame->waiting);
	frame->hook = NULL;
	raw_spin_unlock_irqrestore(&frames_lock, flags);
}

/* It does not wait any more. */
static void frame_answer(struct hook_frame *frame)
{
	hlist_del(&frame->waiting);
	WRITE_ONCE(frame->hook, NULL);
	wake_up_process(frame->task);
}

int hook_frame_reply(const struct hook_home *home, u64 id, const struct hook_verdict *verdict)
{
	struct hook_frame *frame;
	unsigned long flags;
	int rc = -ESRCH;

	raw_spin_lock_irqsave(&frames_lock, flags);
	hlist_for_each_entry(frame, frames_waiting(id), waiting) {
		if (frame->id != id || frame->hook->home != home)
			continue;
		rc = hook_call_check(frame, verdict);
		if (rc)
			break;
		frame->verdict = *verdict;
		frame->replied = true;
		atomic64_inc(&frame->hook->counts->replied);
		if (!verdict->flags)
			atomic64_inc(&frame->hook->counts->continued);
		frame_answer(frame);
		break;
	}
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	return rc;
}

void hook_frames_abandon(const struct hook *hook)
{
	struct hook_frame *frame;
	struct hlist_node *next;
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&frames_lock, flags);
	for (i = 0; i < ARRAY_SIZE(frames_by_id); i++)
		hlist_for_each_entry_safe(frame, next, &frames_by_id[i], waiting)
			if (frame->hook->home == hook->home &&
			    frame->hook->number == hook->number)
				frame_answer(frame);
	raw_spin_unlock_irqrestore(&frames_lock, flags);
}

/* As the freezer does it: a call that can be interrupted returns to be made again. */
static void frame_wake(struct hook_frame *frame)
{
	wait_queue_entry_t entry = { .private = frame->task };

	frame->woken = true;
	set_tsk_thread_flag(frame->task, TIF_SIGPENDING);
	default_wake_function(&entry, TASK_INTERRUPTIBLE, 0, NULL);
}

/* Those who have died in their calls, by a bug of the kernel's perhaps, do not come back. */
static void frames_wake(void)
{
	struct hook_frame *frame;
	struct hlist_node *next;
	unsigned long flags;
	HLIST_HEAD(dead);
	unsigned int i;

	raw_spin_lock_irqsave(&frames_lock, flags);
	for (i = 0; i < ARRAY_SIZE(frames_by_task); i++) {
		hlist_for_each_entry_safe(frame, next, &frames_by_task[i], node) {
			if (READ_ONCE(frame->task->flags) & PF_EXITING) {
				frame_move(frame, &dead);
				atomic_dec(&frames_n_inside);
			} else {
				frame_wake(frame);
			}
		}
	}
	raw_spin_unlock_irqrestore(&frames_lock, flags);
	frames_free(&dead);
}

void hook_frames_exit(void)
{
	struct hook_frame *frame;
	struct hlist_node *next;
	unsigned int tries;

	for (tries = 0; atomic_read(&frames_n_inside); tries++) {
		frames_wake();
		if (tries == 100)
			pr_notice("hypermem: waiting for %d calls that were hooked, and cannot be interrupted, to return\n",
				  atomic_read(&frames_n_inside));
		msleep(tries < 100 ? 10 : 1000);
	}
	/* They may still be on their way out of here. */
	synchronize_rcu_tasks();
	hlist_for_each_entry_safe(frame, next, &frames_at_hand, node)
		kfree(frame);
	INIT_HLIST_HEAD(&frames_at_hand);
}
