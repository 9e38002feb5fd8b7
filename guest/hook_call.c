// SPDX-License-Identifier: GPL-2.0
/*
 * hook_call: a call that a hook may match, from its entry to its return.  See hook.h.
 *
 * This is the task's own code by now: it may sleep.  Nothing that must be given back is
 * held while the call itself is made, but for the frame: the call may sleep for
 * days, or end the task.
 */
#include <linux/atomic.h>
#include <linux/compat.h>
#include <linux/errno.h>
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/task_stack.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <asm/syscall.h>

#include "compat.h"
#include "hook.h"
#include "hook_arch.h"

/*
 * A processor that has nothing else to do looks for a reply for so long before it sleeps: to be
 * woken up takes it longer than a quick host takes for the reply.
 */
#define POLL_NS		(500 * NSEC_PER_USEC)
/* So often between two looks at the clock, which may be slow. */
#define POLL_LOOKS	256
/* After one that looked in vain so many calls do not, unless a reply is quick again. */
#define POLL_SKIP	15

static atomic64_t hook_last_id;

/* Results that mean: the call is to be made again, or EINTR; the signal decides. */
static bool call_is_restarted(s64 result)
{
	return result >= HYPER_RETVAL_NONE_FIRST && result <= HYPER_RETVAL_NONE_LAST;
}

static void call_tell(struct hook *hook, const struct hook_frame *frame, u64 id,
		      struct hook_event *event)
{
	*event = (struct hook_event){
		.id = id,
		.hook = hook->number,
		.flags = (frame->returns ? HYPER_EVENT_RETURN : 0) |
			 (frame->compat ? HYPER_EVENT_COMPAT : 0) |
			 (frame->skipped ? HYPER_EVENT_SKIPPED : 0) |
			 (frame->narrow ? HYPER_EVENT_NARROW : 0) |
			 (frame->probe->leaves ? HYPER_EVENT_LEAVES : 0) |
			 (frame->probe->unchanged ? HYPER_EVENT_FIXED : 0) |
			 (hook->flags & HYPER_HOOK_TRACE ? 0 : HYPER_EVENT_WAITS),
		.pid = task_tgid_nr(current),
		.tid = task_pid_nr(current),
		.nr = frame->nr,
		.stamp = hypermem_task_stamp(current->group_leader),
		.time = ktime_get_boottime_ns(),
		.lost = atomic64_xchg(&hook->counts->lost, 0),
		.frame = frame,
		.call = frame->probe->call,
		.regs = hook->flags & HYPER_HOOK_REGS,
	};
	get_task_comm(event->comm, current);
}

static bool call_put(struct hook *hook, const struct hook_frame *frame, u64 id)
{
	struct hook_event event;

	call_tell(hook, frame, id, &event);
	if (hook_event_put(hook->home, &event)) {
		atomic64_inc(&hook->counts->sent);
		return true;
	}
	atomic64_add(event.lost + 1, &hook->counts->lost);
	atomic64_inc(&hook->counts->dropped);
	return false;
}

/* As the kernel's own results are: with the sign of what the caller gets. */
static u64 call_result(const struct hook_frame *frame, const struct hook_verdict *verdict)
{
	return frame->narrow ? (u64)(s32)verdict->retval : verdict->retval;
}

static void call_obey(struct hook_frame *frame)
{
	const struct hook_verdict *verdict = &frame->verdict;
	unsigned int k;

	if (frame->returns) {
		if (verdict->flags & HYPER_VERDICT_RETVAL)
			frame->retval = call_result(frame, verdict);
		return;
	}
	for (k = 0; k < ARRAY_SIZE(frame->args); k++) {
		if (!(verdict->flags & HYPER_VERDICT_ARG(k)))
			continue;
		frame->args[k] = frame->narrow ? (u32)verdict->args[k] : verdict->args[k];
		frame->args_changed |= BIT(k);
	}
	if (verdict->flags & (HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL)) {
		frame->skipped = true;
		frame->retval = verdict->flags & HYPER_VERDICT_RETVAL ?
				call_result(frame, verdict) : 0;
	}
}

/* Behind a call that does not return, the kernel may have no code to come back to. */
static u32 call_flags(const struct hook_frame *frame)
{
	if (frame->returns)
		return HYPER_VERDICT_RETVAL;
	return (frame->probe->leaves ? 0 : HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL) |
	       (frame->probe->unchanged ? 0 : HOOK_VERDICT_ARGS);
}

/* A number of 32 bits, with or without a sign. */
static bool call_has_bits(const struct hook_frame *frame, u64 value)
{
	return !frame->narrow || value == (u32)value || value == (u64)(s32)value;
}

int hook_call_check(const struct hook_frame *frame, const struct hook_verdict *verdict)
{
	unsigned int k;

	if (verdict->flags & ~call_flags(frame))
		return -EINVAL;
	for (k = 0; k < ARRAY_SIZE(verdict->args); k++)
		if ((verdict->flags & HYPER_VERDICT_ARG(k)) &&
		    !call_has_bits(frame, verdict->args[k]))
			return -ERANGE;
	if (!(verdict->flags & HYPER_VERDICT_RETVAL))
		return 0;
	if (!call_has_bits(frame, verdict->retval))
		return -ERANGE;
	return call_is_restarted(call_result(frame, verdict)) ? -EINVAL : 0;
}

static void call_killed(struct hook_frame *frame)
{
	frame->killed = true;
	frame->skipped = !frame->probe->leaves;
	frame->retval = -EINTR;
}

struct call_poll {
	const struct hook_frame *frame;
	u64 until;
	unsigned int looks;
};

static bool call_polls(void *arg)
{
	struct call_poll *poll = arg;

	if (!READ_ONCE(poll->frame->hook) || need_resched() || !single_task_running())
		return false;
	return ++poll->looks % POLL_LOOKS || ktime_get_ns() < poll->until;
}

/* Until there is a reply, or something like one; what is left as hook_frame_wait(). */
static long call_wait(struct hook *hook, struct hook_frame *frame)
{
	struct call_poll poll = { .frame = frame, .until = ktime_get_ns() + POLL_NS };
	u8 skip = READ_ONCE(hook->skip);
	long left;

	if (!skip)
		hook_event_poll(hook->home, call_polls, &poll);
	left = hook_frame_wait(frame, msecs_to_jiffies(hook->timeout_ms) + 1);
	if (ktime_get_ns() < poll.until)
		WRITE_ONCE(hook->skip, 0);
	else
		WRITE_ONCE(hook->skip, skip ? skip - 1 : POLL_SKIP);
	return left;
}

/* Tell the host, and wait until it says how to go on. */
static void call_ask(struct hook *hook, struct hook_frame *frame)
{
	struct hook_counts *counts = hook->counts;
	u64 id = atomic64_inc_return(&hook_last_id);
	long left;

	if (hook_frame_wait_begin(frame, hook, id)) {
		atomic64_inc(&counts->abandoned);
		return;
	}
	if (!call_put(hook, frame, id)) {
		hook_frame_wait_end(frame);
		return;
	}
	hook_event_send(hook->home, true);
	left = call_wait(hook, frame);
	hook_frame_wait_end(frame);
	/* A reply that came at the last moment counts, since the host was told that it does. */
	if (frame->replied) {
		call_obey(frame);
	} else if (left > 0) {
		atomic64_inc(&counts->abandoned);
	} else if (left == 0) {
		atomic64_inc(&counts->timed_out);
	} else {
		atomic64_inc(&counts->killed);
		call_killed(frame);
	}
}

static void call_offer(struct hook *hook, struct hook_frame *frame)
{
	struct hook_counts *counts = hook->counts;

	if (!(hook->flags & HYPER_HOOK_ENABLED) ||
	    !(hook->flags & (frame->returns ? HYPER_HOOK_RETURN : HYPER_HOOK_ENTER)) ||
	    hook_filter(hook, frame, true) != HOOK_YES)
		return;
	atomic64_inc(&counts->matched);
	if (READ_ONCE(hook->gone)) {	/* meanwhile */
		atomic64_inc(&counts->abandoned);
	} else if (!(hook->flags & HYPER_HOOK_ATTENDED)) {
		atomic64_inc(hook->flags & HYPER_HOOK_TRACE ? &counts->dropped :
							      &counts->unattended);
	} else if (hook->flags & HYPER_HOOK_TRACE) {
		if (call_put(hook, frame, atomic64_inc_return(&hook_last_id)))
			hook_event_send(hook->home, false);
	} else {
		call_ask(hook, frame);
	}
}

/*
 * By number; who skips the call has the last word before it.  They are looked for one by one:
 * while one holds the call up, others come, go and are replaced.
 */
static void call_offer_all(struct hook_frame *frame)
{
	u32 number = 0;
	struct hook *hook;

	while (!frame->killed && (frame->returns || !frame->skipped) &&
	       (hook = hook_probe_next(frame->probe, number))) {
		call_offer(hook, frame);
		number = hook->number;
		hook_put(hook);
	}
}

void hook_call_look(struct hook_frame *frame)
{
	struct pt_regs *regs = current_pt_regs();
	unsigned long args[6] = { };
	unsigned int k;

	syscall_get_arguments(current, regs, args);
	frame->narrow = hook_args_are_32();
	for (k = 0; k < ARRAY_SIZE(args); k++)
		frame->args[k] = frame->narrow ? (u32)args[k] : args[k];
	frame->nr = syscall_get_nr(current, regs);
	frame->compat = in_compat_syscall() && IS_ENABLED(CONFIG_64BIT);
}

static long call_make(struct hook_frame *frame, const unsigned long *words)
{
	void *function = frame->probe->function;
	const u8 changed = frame->args_changed;
	u64 args[ARRAY_SIZE(frame->args)];

	memcpy(args, frame->args, sizeof(args));
	if (frame->probe->leaves)
		hook_frame_leave(frame);	/* it is somebody else's from now on */
	return hook_function_call(function, words, args, changed);
}

/*
 * Who has been woken for this module to go has had no signal.  Most calls say then that they
 * are to be made again; these fail, and so may be.
 */
static bool call_has_failed_for_us(const struct hook_frame *frame, long result)
{
	static const char *const calls[] = {
		"epoll_", "rt_sigtimedwait", "semop", "semtimedop", "io_getevents", "io_pgetevents",
		"recv", "accept", "send", "connect", "io_uring_enter",
	};
	/* It is the task's own, which it keeps while it runs. */
	struct sighand_struct *sighand = rcu_dereference_protected(current->sighand, true);
	unsigned int i;

	if (result != -EINTR || !READ_ONCE(frame->woken))
		return false;
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (!strncmp(frame->probe->call, calls[i], strlen(calls[i])))
			break;
	if (i == ARRAY_SIZE(calls))
		return false;
	spin_lock_irq(&sighand->siglock);
	recalc_sigpending();
	spin_unlock_irq(&sighand->siglock);
	if (signal_pending(current))
		return false;
	set_thread_flag(TIF_SIGPENDING);	/* on whose way out calls are made again */
	return true;
}

static HOOK_LINKAGE long hook_call(HOOK_WORDS)
{
	const unsigned long words[] = { HOOK_PASS };
	struct hook_frame *frame = hook_frame_current();
	long result;

	hook_frames_refill();
	hook_call_look(frame);	/* again: now it can wait for memory */
	call_offer_all(frame);
	result = frame->skipped ? (long)frame->retval : call_make(frame, words);
	if (call_has_failed_for_us(frame, result))
		result = -ERESTARTNOINTR;
	if (call_is_restarted(result)) {
		hook_probe_restarts(frame->probe);
	} else {
		frame->returns = true;
		frame->retval = result;
		call_offer_all(frame);
		result = frame->retval;
	}
	hook_frame_release(frame);
	return result;
}

void *hook_call_entry(void)
{
	return hook_call;
}
