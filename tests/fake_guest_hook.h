/* SPDX-License-Identifier: MIT */
/*
 * What fake_guest_hook.c (which answers), fake_guest_caller.c (which makes calls) and
 * fake_guest_event.c (which tells of them) know of each other.
 */
#ifndef FAKE_GUEST_HOOK_H
#define FAKE_GUEST_HOOK_H

#include "tests/fake_guest_priv.h"

/* A hook, under the lock; counts in CPU order. */
struct hook {
	unsigned int refs;
	uint32_t number, flags, timeout_ms;
	bool gone;
	unsigned int run;	/* which name it is that its callers call */
	char name[HYPER_CALL_NAME_SIZE];
	char comm[16];
	uint64_t lost;
	struct hypermem_hook_counts counts;
};

/* A call that waits for its reply. */
struct waiter {
	struct hook *hook;
	bool leaves;		/* it does not return */
	bool replied, abandoned;
	struct hypermem_verdict verdict;	/* as it came */
};

/* An event on its way. */
struct note {
	struct hook *hook;
	GByteArray *data;
};

/* A thread that makes calls. */
struct caller {
	struct fake_guest *guest;
	struct hook *hook;
	unsigned int run, thread, n, ms;
	bool leaves;		/* they do not return */
	uint32_t pid;
	uint16_t stamp;
};

struct fake_hooks {
	GMutex lock;		/* protects what follows */
	GCond changed;		/* anything */
	unsigned int session;	/* whose hooks these are; 0: nobody's */
	GHashTable *hooks;	/* number -> struct hook */
	GHashTable *waiters;	/* &id -> struct waiter */
	GQueue notes;
	GQueue waits;		/* of requests, in the order in which they are answered */
	uint64_t last_id;
};

extern struct fake_hooks the_hooks;

/* fake_guest_hook.c; with the lock held */
void hook_unref(struct hook *hook);

/* fake_guest_caller.c; with the lock held */
bool callers_know(const char *name);
/* The hook is for another name: whoever calls that begins. */
void callers_start(struct fake_guest *guest, struct hook *hook);

/* fake_guest_event.c; with the lock held */
void note_push(const struct caller *caller, uint64_t id, uint32_t flags, const uint64_t args[6],
	       int64_t retval);
void note_free(gpointer note);

#endif
