/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook: system calls that the host is told of, or that wait for it.
 *
 *	hook.c		hooks and their operations; what a session has of them
 *	hook_wire.c	how they look on the wire
 *	hook_filter.c	the program that says whether a call matches
 *	hook_symbol.c	which kernel functions are calls
 *	hook_probe.c	probes on them
 *	hook_frame.c	calls that are being looked at: one per task at most
 *	hook_call.c	such a call from its entry to its return
 *	hook_event.c	events on their way to the host
 *	hook_step.h	a probed function's first instruction
 *	hook_text.h	that it is what processors see
 *	hook_arch.h	where an architecture has arguments and registers
 *
 * A probe's handler cannot sleep.  So it sends the call to hook_call.c, by changing the
 * instruction pointer: from there on it is ordinary code of that task, which may wait for
 * the host and then makes the call, or not.  Calls without a probe are untouched.
 *
 * Locks, outermost first: hook_mutex (hook.c: which hooks and probes there are), a home's
 * lock, the frames' lock.
 */
#ifndef HYPERMEM_HOOK_H
#define HYPERMEM_HOOK_H

#include <linux/atomic.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "ops.h"

/* The counts of a hook, whatever is set under its number. */
struct hook_counts {
	refcount_t refs;
	atomic64_t matched, sent, replied, continued, timed_out, killed, abandoned, unattended;
	atomic64_t dropped, restarted, missed;
	atomic64_t lost;	/* events dropped since the last one that was not */
};

struct hook_test {
	u8 test, field, compare, flags;
	u64 mask, a, b;
};

/* A link's hooks.  Lives as long as there are hooks of it, or the link. */
struct hook_home {
	refcount_t refs;
	struct hypermem_link *link;
	struct list_head hooks;		/* by number; under hook_mutex */
	unsigned int n_hooks;

	spinlock_t lock;		/* protects what follows */
	struct list_head waits;		/* the host's WAITs that have no answer */
	unsigned int n_waits;
	u8 *events;			/* a ring; records as they go over the wire; NULL: closed */
	u32 first, used;		/* bytes */
	bool sending;			/* an answer to a WAIT: one at a time, in order */
	unsigned int n_polling;		/* tasks that look for data on the link */
	struct hypermem_request *late;	/* that answer, if a worker is to send it */
	wait_queue_head_t idle;		/* nobody is sending, or polling, any more */
	struct delayed_work flush;	/* events that are not urgent; not while closed */
};

/* Immutable but for `gone` and `skip`. */
struct hook {
	struct list_head node;		/* home->hooks */
	refcount_t refs;
	struct hook_home *home;
	struct hook_counts *counts;
	u32 number, flags, timeout_ms;
	bool gone;			/* removed or replaced */
	u8 skip;			/* so many calls need not look for their replies */
	struct hook_probe **probes;	/* under hook_mutex */
	u32 n_probes;

	const char *names;		/* NUL-terminated each */
	u32 names_size;
	const char *text;		/* that tests refer to */
	u32 text_size;
	u32 n_tests;
	struct hook_test tests[];	/* names and text behind them */
};

/* The hooks of one probe, by number; immutable. */
struct hook_set {
	struct rcu_head rcu;
	u32 n;
	struct hook *hooks[];
};

/* A kernel function that is a system call. */
struct hook_probe {
	struct list_head node;		/* under hook_mutex */
	refcount_t refs;
	struct kprobe kprobe;
	struct hook_set __rcu *set;	/* NULL: the probe is gone, or about to be */
	bool leaves;			/* the call never returns */
	bool gone;			/* no task comes by any more; under the frames' lock */
	bool renames;			/* the call may change who the caller is */
	bool reboots;
	bool unchanged;			/* its arguments are not the program's */
	const char *call;		/* the symbol without prefix */
	const struct hook_symbol *symbol;
	void *function;			/* to make the call */
};

#define HOOK_SYMBOL_SIZE 64

/* A function that is a system call. */
struct hook_symbol {
	unsigned long addr;		/* 0: this kernel does not tell */
	u8 call;			/* offset of the call's own name in name */
	char name[HOOK_SYMBOL_SIZE];
};

#define HOOK_VERDICT_ARGS (HYPER_VERDICT_ARG(6) - HYPER_VERDICT_ARG(0))

/* A call that is being looked at. */
struct hook_frame {
	struct hlist_node node;		/* by task */
	struct hlist_node waiting;	/* by id */
	struct task_struct *task;	/* pinned: one that dies in its call stays in the table */
	struct hook_probe *probe;
	bool leaves;			/* the task will not come back: released as it comes by */
	bool woken;			/* by hook_frames_exit(), without a signal */

	u32 nr;
	bool compat;
	bool narrow;			/* the caller's arguments and results have 32 bits */
	u8 args_changed;		/* bits */
	bool returns;			/* it has been made, or skipped */
	bool skipped;
	bool killed;			/* a fatal signal came while it waited */
	u64 args[6];
	u64 retval;

	u64 id;				/* of the event whose reply it waits for */
	struct hook *hook;		/* that made it; NULL: a reply came, or the hook's end */
	bool replied;
	struct hook_verdict {
		u32 flags;
		u64 retval, args[6];
	} verdict;
};

struct hook_event {
	u64 id;
	u32 hook, flags, pid, tid, nr;
	u16 stamp;
	u64 time, lost;
	const struct hook_frame *frame;	/* args and retval */
	const char *call;
	char comm[16];
	bool regs;			/* with the user's registers */
};

/* hook_wire.c */
/* -EINVAL: it is none; names and text are checked, tests are not. */
int hypermem_hook_decode(const struct hypermem_request *request, struct hook **ret);
int hypermem_verdict_decode(const struct hypermem_request *request, struct hook_verdict *ret);
void hypermem_put_counts(struct hypermem_request *request, const struct hook_counts *counts);
/* Into `raw`, of HYPER_EVENT_SIZE_MAX bytes; returns its size. */
u32 hypermem_event_encode(const struct hook_event *event, void *raw);
/* The size of the record at `raw`, that is in one piece at least up to its n_regs. */
u32 hypermem_event_size(const void *raw);

/* hook_filter.c */
enum hook_match { HOOK_NO, HOOK_YES, HOOK_PERHAPS };

int hook_filter_check(const struct hook *hook);
/*
 * May sleep only if `deep`; without it, tests that would have to are PERHAPS.  In the end
 * PERHAPS, if deep, is no match.
 */
enum hook_match hook_filter(const struct hook *hook, const struct hook_frame *frame, bool deep);

/* hook.c */
/* The link's; NULL: no memory. */
struct hook_home *hook_home_of(struct hypermem_link *link);
void hook_get(struct hook *hook);
void hook_put(struct hook *hook);

/* hook_symbol.c; under hook_mutex */
/* Once, before the others. */
int hook_symbols_find(void);
void hook_symbols_forget(void);
/* From NULL on, until NULL. */
const struct hook_symbol *hook_symbol_next(const struct hook_symbol *symbol);
/* Does a user mean it by this name? */
bool hook_symbol_is(const struct hook_symbol *symbol, const char *name);
u32 hook_symbols_max(void);

/* hook_probe.c; all but _put under hook_mutex */
/* Find or make the probes of hook->names; hook gets a reference to each.  -ENOENT: none. */
int hook_probes_find(struct hook *hook);
/* `add` comes into the probes' sets, `remove` out of its; either may be NULL. */
int hook_probes_change(struct hook *add, struct hook *remove);
/* Take those away that have no hooks: true if some are left; it can take long. */
bool hook_probes_sweep(void);
void hook_probe_put(struct hook_probe *probe);
/* A reference to the first of the probe's hooks, as they are now, behind `number`; or NULL. */
struct hook *hook_probe_next(struct hook_probe *probe, u32 number);
void hook_probe_restarts(struct hook_probe *probe);

/* hook_frame.c */
/* Waits until no task is in a frame; those that sleep in their call are woken up. */
void hook_frames_exit(void);
/* In the probe's handler: the task is in a frame, so this is the call itself. */
bool hook_frame_passes(const struct hook_probe *probe);
/* NULL: there is none at hand. */
struct hook_frame *hook_frame_take(struct hook_probe *probe);
struct hook_frame *hook_frame_current(void);
/* More for others, in process context. */
void hook_frames_refill(void);
void hook_frame_release(struct hook_frame *frame);
/* The task is about to make a call that does not return; the frame is not its caller's any more. */
void hook_frame_leave(struct hook_frame *frame);
/* The probe has been taken away. */
void hook_frames_forget(struct hook_probe *probe);

/* From now on the frame can be found by its id; -ESRCH: the hook has gone. */
int hook_frame_wait_begin(struct hook_frame *frame, struct hook *hook, u64 id);
/* What is left of the jiffies, 0, or -EINTR if a fatal signal came. */
long hook_frame_wait(struct hook_frame *frame, long left);
void hook_frame_wait_end(struct hook_frame *frame);
/* -ESRCH: nobody waits for it; or as hook_call_check(). */
int hook_frame_reply(const struct hook_home *home, u64 id, const struct hook_verdict *verdict);
/* Whoever waits for this hook goes on. */
void hook_frames_abandon(const struct hook *hook);

/* hook_call.c */
/* Where probes send the call: the same arguments, the same result. */
void *hook_call_entry(void);
/* The call as the caller has made it.  Some architectures fetch arguments from its stack. */
void hook_call_look(struct hook_frame *frame);
/*
 * Can it go on so?  -EINVAL: not such a call; -ERANGE: a value has more bits than its caller
 * has.  Of any task, with the frames' lock held.
 */
int hook_call_check(const struct hook_frame *frame, const struct hook_verdict *verdict);

/* hook_event.c */
void hook_events_init(struct hook_home *home);
/* Take events from now on; may be called again. */
int hook_events_open(struct hook_home *home);
/* false: it has no room. */
bool hook_event_put(struct hook_home *home, const struct hook_event *event);
/* Have the host's WAITs answered, now or soon; without waiting. */
void hook_event_send(struct hook_home *home, bool now);
/* Look for the host's reply, and take it, as long as goes_on(), asked with preemption off. */
void hook_event_poll(struct hook_home *home, bool (*goes_on)(void *arg), void *arg);
/* Answer nobody any more, and forget the events. */
void hook_events_close(struct hook_home *home);

#endif
