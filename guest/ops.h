/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ops: a request from its header to its reply.
 *
 * ops.c has the table of operations and is the only place that knows byte order;
 * request.c validates, dispatches by that table, and is the only place that replies.
 * A handler finds everything checked and in CPU order, puts what it has to say into
 * the reply and returns 0 or -errno; bytes before an error go out as a partial reply.
 */
#ifndef HYPERMEM_OPS_H
#define HYPERMEM_OPS_H

#include <linux/list.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "uapi/hypermem.h"

#define HYPERMEM_MODULE_VERSION	"0.1.0"

struct hypermem_frame;
struct hypermem_link;
struct mm_struct;
struct page;
struct task_struct;

struct hypermem_header {
	u32 op;
	u32 pid;
	u64 addr;
	u32 size;
	u16 tag;
	u16 stamp;
};

struct hypermem_request {
	struct work_struct work;
	struct list_head node;		/* of those that wait for an event */
	int rc;				/* how it went, if that is said later */
	struct hypermem_link *link;
	u32 session;
	bool readonly;			/* the session's */
	u32 max_data;			/* the session's */
	struct hypermem_header header;
	const struct hypermem_op *op;	/* NULL: there is no such operation */
	struct task_struct *task;	/* pinned, for operations on a process */

	u8 *out;			/* the reply's data ... */
	u32 out_max;			/* ... its room ... */
	u32 out_size;			/* ... and what is in use: the handler's */
	u64 out_addr;			/* the reply's addr: the handler's, or the request's */
	struct hypermem_frame *frame;	/* that `out` is in */

	u32 data_room;			/* bytes that `data` has room for, without the NUL */
	u8 data[];			/* of the request: header.size bytes, and a NUL */
};

enum {
	HYPERMEM_OP_WRITES = 0x1,	/* refused in a read-only session; replies are WRITE_* */
	HYPERMEM_OP_PROCESS = 0x2,	/* on a process: request->task is pinned */
	HYPERMEM_OP_LIMIT = 0x4,	/* size is the limit of the reply's data */
	HYPERMEM_OP_QUICK = 0x8,	/* never waits: is done by who receives it, in order */
	HYPERMEM_OP_SILENT = 0x10,	/* is not answered, whatever becomes of it */
};

#define HYPERMEM_OUT_FRAME	U32_MAX

/**
 * struct hypermem_op - an operation
 * @op: its number, with HYPER_DATA if it comes with data
 * @flags: HYPERMEM_OP_*
 * @out: room for the reply's data, in bytes, as far as a frame of the session holds it;
 *	with LIMIT the host says
 * @handle: does it; NULL for HELLO, which is not done in the workqueue
 */
struct hypermem_op {
	u32 op;
	u32 flags;
	u32 out;
	int (*handle)(struct hypermem_request *request);
};

/* NULL: there is no such operation. */
const struct hypermem_op *hypermem_op_find(u32 op);

void hypermem_header_decode(const u8 *bytes, struct hypermem_header *ret);
/* The header of a reply to `request`. */
void hypermem_header_encode(const struct hypermem_header *request, u32 resp, u64 addr, u32 size,
			    u8 *bytes);
bool hypermem_header_is_hello(const struct hypermem_header *header);
/* The wire's errno for this architecture's. */
u32 hypermem_errno_encode(int error);
/* HELLO: answered in the receiver's context, so that what follows meets the new session. */
void hypermem_hello(struct hypermem_request *request);

/* A request for a header whose data (if any) is still to come; NULL: no memory. */
struct hypermem_request *hypermem_request_new(struct hypermem_link *link,
					      const struct hypermem_header *header);
void hypermem_request_free(struct hypermem_request *request);
/*
 * From the receiver's context: it has come whole.  HELLO, and what is QUICK, is done at
 * once; another one goes to the link's workqueue, or, if the receiver works itself, becomes
 * link->last.
 */
void hypermem_request_submit(struct hypermem_request *request);
/* Do it in the link's workqueue, or here; either frees it. */
void hypermem_request_queue(struct hypermem_request *request);
void hypermem_request_do(struct hypermem_request *request);
/* Its task is still the one that has the pid that was asked for. */
bool hypermem_request_alive(const struct hypermem_request *request);
/* For a handler that has returned -EINPROGRESS: say what it would have, later; frees it. */
void hypermem_request_complete(struct hypermem_request *request, int rc);
/* The same if that takes no waiting; false: it is still to be completed. */
bool hypermem_request_try_complete(struct hypermem_request *request, int rc);

/* A frame without data, ready to send; NULL: no memory. */
struct hypermem_frame *hypermem_frame_status(const struct hypermem_header *request, u32 resp,
					     u64 addr, u32 size);
struct hypermem_frame *hypermem_frame_error(const struct hypermem_header *request, int error);

/* The number that the request's data is; false: it is none. */
bool hypermem_get_number(const struct hypermem_request *request, u64 *ret);

/* Records in CPU order. */
struct hypermem_proc_record {
	u32 pid, ppid, uid, gid;
	u16 stamp;
	u8 state, flags;
	u32 threads;
	u64 start_time, start_time_real;
	u64 arg_start, arg_end, env_start, env_end, task_size;
	char comm[16];
};

struct hypermem_map_record {
	u64 start, end, offset, inode;
	u32 dev_major, dev_minor, flags;
};

/* Append a record to the reply; false: there is no room. */
bool hypermem_put_proc(struct hypermem_request *request, const struct hypermem_proc_record *rec);
bool hypermem_put_fd(struct hypermem_request *request, u32 fd, u32 mode);
bool hypermem_put_map(struct hypermem_request *request, const struct hypermem_map_record *rec);

struct hypermem_hold_record {
	u64 generation, word, mm_addr;
	unsigned long mm;
	u32 pages;
};

#define HYPERMEM_TRANSLATE_OUT (sizeof(struct hypermem_hold) + 8 * HYPERMEM_TRANSLATE_PAGES)

bool hypermem_put_ram(struct hypermem_request *request, u64 start, u64 end, u64 proof);
void hypermem_proof_fill(void *page, u64 challenge, u64 addr);
/* Runs stand behind the hold, which is filled in when their number is known. */
bool hypermem_put_run(struct hypermem_request *request, u64 addr, u32 pages);
void hypermem_hold_fill(struct hypermem_request *request, const struct hypermem_hold_record *rec);
void hypermem_word_set(void *word, u64 value);

/* Load-time self-test of the operation table; -EINVAL if it is inconsistent. */
int hypermem_ops_init(void);

/* mem.c */
int hypermem_read(struct hypermem_request *request);
int hypermem_write(struct hypermem_request *request);
/*
 * Do something with the memory of the request's process; `without` is for one that has none.
 * Again, if it runs another program by then: what was read may be what somebody wrote since
 * who has the former memory still.
 */
int hypermem_mem_use(struct hypermem_request *request, int without,
		     int (*use)(struct hypermem_request *request, struct mm_struct *mm));
/* How many of the `size` bytes at addr are mapped without a gap, no stack being grown. */
u32 hypermem_mem_mapped(struct mm_struct *mm, u64 addr, u32 size);
/* Up to n pages that are mapped from addr on, each with a reference; or -errno. */
long hypermem_mem_get_pages(struct mm_struct *mm, unsigned long addr, unsigned long n,
			    unsigned int flags, struct page **pages);
/*
 * Read (flags: FOLL_*) up to the first byte that cannot be had: *ret_done bytes, and if that is
 * not all of them why.  -EIO: not mapped.
 */
int hypermem_mem_read(struct mm_struct *mm, u64 addr, void *buf, u32 size, unsigned int flags,
		      u32 *ret_done);
/* The bytes that could be written, in order, while the process had that mm. */
u32 hypermem_mem_write(struct task_struct *task, struct mm_struct *mm, u64 addr, void *buf,
		       u32 size);

/* value.c */
int hypermem_read_ptr(struct hypermem_request *request);
int hypermem_write_ptr(struct hypermem_request *request);
int hypermem_read_str(struct hypermem_request *request);

/* maps.c */
int hypermem_list_maps(struct hypermem_request *request);

/* proc.c */
int hypermem_read_procargs(struct hypermem_request *request);
int hypermem_read_procenv(struct hypermem_request *request);
int hypermem_list_procs(struct hypermem_request *request);
int hypermem_read_proc(struct hypermem_request *request);
u16 hypermem_task_stamp(const struct task_struct *task);
/* The task that has the request's pid and stamp now, pinned; or NULL. */
struct task_struct *hypermem_task_get(const struct hypermem_header *header);

/* procfs.c */
int hypermem_read_fd_name(struct hypermem_request *request);
int hypermem_read_link(struct hypermem_request *request);
int hypermem_list_fds(struct hypermem_request *request);
int hypermem_read_proc_file(struct hypermem_request *request);
/*
 * Each record of a text of /proc, by its path there, but for those longer than a line.  The
 * caller knows that it is a file of records (seq_file): not all that are show it.
 */
int hypermem_procfs_records(const char *path, void (*record)(const char *text, void *data),
			    void *data);
int hypermem_procfs_init(void);
void hypermem_procfs_exit(void);

/* window.c, translate.c; without MMU notifiers there is no window. */
#ifdef CONFIG_MMU_NOTIFIER
int hypermem_window(struct hypermem_request *request);
void hypermem_window_exit(void);
int hypermem_translate(struct hypermem_request *request);
int hypermem_translate_init(void);
void hypermem_translate_exit(void);
/* The page that has the words, not in high memory. */
struct page *hypermem_translate_page(void);
/* A session has ended: no translation is good any more. */
void hypermem_translate_forget(void);
#else
static inline void hypermem_window_exit(void) {}
static inline int hypermem_translate_init(void) { return 0; }
static inline void hypermem_translate_exit(void) {}
static inline void hypermem_translate_forget(void) {}
#endif

/* hook.c, hook_event.c; Kbuild says whether there are hooks. */
#ifdef HYPERMEM_HOOKS
int hypermem_hook_set(struct hypermem_request *request);
int hypermem_hook_remove(struct hypermem_request *request);
int hypermem_hook_wait(struct hypermem_request *request);
int hypermem_hook_reply(struct hypermem_request *request);
int hypermem_hook_counts(struct hypermem_request *request);
void hypermem_hooks_init(void);
/* Requests that wait for events, and may do so for ever. */
u32 hypermem_hooks_waiting(struct hypermem_link *link);
/* There are no hooks any more. */
void hypermem_hooks_exit(void);
/* A session of the link has ended, and its hooks with it. */
void hypermem_hooks_forget(struct hypermem_link *link);
void hypermem_hooks_deinit(struct hypermem_link *link);
#else
static inline void hypermem_hooks_init(void) {}
static inline u32 hypermem_hooks_waiting(struct hypermem_link *link) { return 0; }
static inline void hypermem_hooks_exit(void) {}
static inline void hypermem_hooks_forget(struct hypermem_link *link) {}
static inline void hypermem_hooks_deinit(struct hypermem_link *link) {}
#endif

#endif
