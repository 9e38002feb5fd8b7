/* SPDX-License-Identifier: GPL-2.0 */
/*
 * link: frames out of a stream of bytes, and the session with the host behind it.
 *
 * What all links share.  A device (link_virtio.c) feeds bytes in and sends
 * frames out; ops.c does the requests.  A session begins with the host's HELLO
 * and ends when the device says that the host has gone, when the stream makes no
 * sense any more, or with the next HELLO.  Replies to an earlier session are
 * dropped, so that no host sees an answer to another's question.
 */
#ifndef HYPERMEM_LINK_H
#define HYPERMEM_LINK_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "uapi/hypermem.h"

#define HYPERMEM_LINK_DATA_MAX	65536	/* data of a frame that this side offers */
#define HYPERMEM_INFLIGHT	64	/* requests at a time that the host may count on */
#define HYPERMEM_INFLIGHT_MAX	256	/* the same with those that the host gave up on */

struct hook_home;
struct hypermem_link;
struct hypermem_request;

/* A frame on its way out.  It may lie in vmalloc memory. */
struct hypermem_frame {
	struct list_head node;		/* frame.c's */
	size_t size;			/* header and data */
	u32 number;			/* the device's */
	bool large;			/* frame.c's */
	u8 bytes[] __aligned(8);
};

/*
 * A mutex that may be held until the host reads, which is for as long as the host pleases:
 * whoever waits for it meanwhile is idle, and not taken for a task that hangs.
 */
struct hypermem_lock {
	struct mutex mutex;
	wait_queue_head_t wait;
};

#define hypermem_lock_init(lock) do {			\
	mutex_init(&(lock)->mutex);			\
	init_waitqueue_head(&(lock)->wait);		\
} while (0)
void hypermem_lock_take(struct hypermem_lock *lock);
void hypermem_lock_release(struct hypermem_lock *lock);

struct hypermem_link_ops {
	/*
	 * Send a frame, whole; frees it with hypermem_frame_free() when it is
	 * out.  May sleep until there is room.  Called one at a time.
	 */
	void (*send)(struct hypermem_link *link, struct hypermem_frame *frame);
	/* The same if that takes no waiting; false: the frame is still the caller's.  Or NULL. */
	bool (*try_send)(struct hypermem_link *link, struct hypermem_frame *frame);
	/*
	 * Look for data as long as goes_on(), which is asked with preemption off.  What is quick
	 * to do is done here at once, without an interrupt and a worker; the rest is left to
	 * the receiver.  Or NULL.
	 */
	void (*poll)(struct hypermem_link *link, bool (*goes_on)(void *arg), void *arg);
};

struct hypermem_link {
	const struct hypermem_link_ops *ops;
	const char *name;
	u32 data_max;			/* of a frame; at most HYPERMEM_LINK_DATA_MAX */

	struct hypermem_lock send_lock;	/* orders sends; protects the session */
	u32 session;			/* counts; a request remembers its own */
	bool open;			/* HELLO has been said */
	bool readonly;			/* the host wants no writes */
	u32 max_data;			/* agreed with the host */

	struct workqueue_struct *wq;	/* requests; each may sleep */
	struct hook_home *hooks;	/* cmpxchg: hook.c's; NULL: there are none */
	struct hypermem_request *spare;	/* xchg: for the next one, so that it needs no memory */
	atomic_t inflight;		/* requests that exist */
	bool resting;			/* none is taken on now */

	/* The receiver's own, which is one context at a time. */
	bool synced;			/* header starts at a frame's first byte */
	bool told;			/* RESET has been sent since the last HELLO */
	u8 header[HYPERMEM_HEADER_SIZE];
	u32 header_n;
	struct hypermem_request *request;	/* the one whose data is arriving */
	u32 data_n;
	u32 skip;			/* data to drop: of a request that was refused */
	bool receiver_works;		/* it does requests itself: set by who receives */
	struct hypermem_request *last;	/* that has come, and that nobody does yet */
};

int hypermem_link_init(struct hypermem_link *link, const char *name, u32 data_max,
		       const struct hypermem_link_ops *ops);
/* Waits for the requests in flight.  No receive may be going on or come. */
void hypermem_link_deinit(struct hypermem_link *link);

/*
 * Take on no more requests, and wait a second for those that there are, except those that
 * wait for events.  -EBUSY: some do not end, and requests are taken on again.
 */
int hypermem_link_rest(struct hypermem_link *link);

/* From the receiver's context: bytes as they came. */
void hypermem_link_receive(struct hypermem_link *link, const u8 *bytes, size_t n);
/*
 * From the receiver's context: of bytes as they came, the first frame, if it is a request that
 * is quick to do.  Returns how many bytes that was; 0: it is for hypermem_link_receive().
 */
size_t hypermem_link_receive_quick(struct hypermem_link *link, const u8 *bytes, size_t n);
/* From the receiver's context: forget what came; a new host, or none. */
void hypermem_link_reset(struct hypermem_link *link);
/* From the receiver's context: ask the host for a HELLO. */
void hypermem_link_invite(struct hypermem_link *link);

/* Send a reply if its session still is the session; frees the frame in any case. */
void hypermem_link_reply(struct hypermem_link *link, u32 session, struct hypermem_frame *frame);
/* The same without waiting; false: it would have to wait, and the frame is the caller's. */
bool hypermem_link_try_reply(struct hypermem_link *link, u32 session,
			     struct hypermem_frame *frame);
/*
 * From the receiver's context: answer the host's HELLO.  It ends the session that
 * there was, and begins another if the host can be talked to (max_data not 0).
 */
void hypermem_link_begin(struct hypermem_link *link, u32 max_data, bool readonly,
			 struct hypermem_frame *frame);

/* data_size: at most HYPERMEM_LINK_DATA_MAX.  What is in it is not known. */
struct hypermem_frame *hypermem_frame_alloc(u32 data_size);
void hypermem_frame_free(struct hypermem_frame *frame);
/* Free those that are kept for later. */
void hypermem_frame_trim(void);

/* The controllers that there are, and that will be. */
#if IS_ENABLED(CONFIG_VIRTIO)
/*
 * Text of a file of sysfs, ended by NUL: bytes, at most size - 1.  -ENOENT: there is none;
 * -EOPNOTSUPP: there is no way to tell.
 */
ssize_t hypermem_sysfs_read(const char *path, char *text, size_t size);

int hypermem_virtio_register(void);
void hypermem_virtio_unregister(void);
/* Say it if no controller is served. */
void hypermem_virtio_report(void);
#else
static inline int hypermem_virtio_register(void) { return 0; }
static inline void hypermem_virtio_unregister(void) {}
static inline void hypermem_virtio_report(void) {}
#endif

/* The serial line that the module parameter names, if it does. */
#ifdef CONFIG_TTY
int hypermem_tty_register(void);
void hypermem_tty_unregister(void);
#else
static inline int hypermem_tty_register(void) { return 0; }
static inline void hypermem_tty_unregister(void) {}
#endif

#endif
