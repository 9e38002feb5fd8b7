/* SPDX-License-Identifier: MIT */
/*
 * request: how client.c and its like ask the guest something.
 */
#ifndef HM_REQUEST_H
#define HM_REQUEST_H

#include "bridge/client.h"
#include "bridge/session.h"

struct hm_window;

struct hm_client {
	struct hm_session session;
	bool readonly;

	/* window.c */
	enum hm_ram_use ram;
	sem_t window_search;		/* to look for it; a signal ends the wait for it */
	GMutex window_lock;		/* protects what follows, for no longer than it takes to look */
	struct hm_window *window;	/* NULL: none, and window_rc says why */
	int window_rc;
	uint64_t window_epoch;		/* what it was looked for in: which boot of the guest ... */
	pid_t window_peer;		/* ... in which process; 0: not yet */
	int64_t window_again;		/* g_get_monotonic_time() from which on it may be looked for again */

	gint ahead;			/* atomic: guesses under way, see reader.c */
};

/*
 * The window that there is, for the caller to unref; it is looked for if need be.
 * -ECANCELED: ram=off.  -EOPNOTSUPP: the guest's module cannot.  -ENODEV: QEMU's process
 * is not known.  Or as hm_window_find(), or why the guest could not be asked.
 */
int hm_client_window(struct hm_client *client, struct hm_window **ret);
/* It does not work any more. */
void hm_client_window_lost(struct hm_client *client, struct hm_window *window, int rc);
void hm_client_window_init(struct hm_client *client);
void hm_client_window_deinit(struct hm_client *client);

/* What to tell of `got` bytes and what came then: see client.c. */
ssize_t hm_short_or_failed(size_t got, int rc);
/* -EFAULT, which read(2) would say of its own buffer, is -EIO. */
int hm_fault_to_io(int rc);
/* Less than `size` where that would pass the end of all addresses. */
size_t hm_size_clamp(uint64_t addr, size_t size);

/* Data of a frame, as agreed with the guest that there is or was. */
uint32_t hm_client_max_data(struct hm_client *client);

/* A request for up to `limit` bytes about a process, into `in`. */
void hm_call_prepare(struct hm_call *call, uint32_t op, struct hm_who who, uint64_t addr,
		     void *in, uint32_t limit);

/* Send it and wait for the answer: 0, or -errno. */
int hm_client_call(struct hm_client *client, struct hm_call *call);

/* The answer was one to the call, but its data cannot be used. */
int hm_client_nonsense(struct hm_client *client, const struct hm_call *call, const char *what);

#endif
