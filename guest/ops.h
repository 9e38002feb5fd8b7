/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ops: a request from its header to its reply.
 *
 * ops.c validates, dispatches by table and is the only place that replies and
 * that knows byte order.  A handler finds everything checked and in CPU order,
 * puts what it has to say into the reply and returns 0 or -errno; bytes before
 * an error go out as a partial reply.
 */
#ifndef HYPERMEM_OPS_H
#define HYPERMEM_OPS_H

#include <linux/types.h>
#include <linux/workqueue.h>

#include "uapi/hypermem.h"

struct hypermem_frame;
struct hypermem_link;
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
	struct hypermem_link *link;
	u32 session;
	bool readonly;			/* the session's */
	u32 max_data;			/* the session's */
	struct hypermem_header header;
	struct task_struct *task;	/* pinned, for operations on a process */

	u8 *out;			/* the reply's data ... */
	u32 out_max;			/* ... its room ... */
	u32 out_size;			/* ... and what is in use: the handler's */
	u64 out_addr;			/* the reply's addr: the handler's, or the request's */
	struct hypermem_frame *frame;	/* that `out` is in */

	u8 data[];			/* of the request: header.size bytes, and a NUL */
};

void hypermem_header_decode(const u8 *bytes, struct hypermem_header *ret);
bool hypermem_header_is_hello(const struct hypermem_header *header);

/* A request for a header whose data (if any) is still to come; NULL: no memory. */
struct hypermem_request *hypermem_request_new(struct hypermem_link *link,
					      const struct hypermem_header *header);
void hypermem_request_free(struct hypermem_request *request);
/* Do it, here (HELLO) or in the link's workqueue. */
void hypermem_request_submit(struct hypermem_request *request);

/* A frame without data, ready to send; NULL: no memory. */
struct hypermem_frame *hypermem_frame_status(const struct hypermem_header *request, u32 resp,
					     u64 addr, u32 size);
struct hypermem_frame *hypermem_frame_error(const struct hypermem_header *request, int error);

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

/* Load-time self-test of the operation table; -EINVAL if it is inconsistent. */
int hypermem_ops_init(void);

/* mem.c */
int hypermem_read(struct hypermem_request *request);
int hypermem_write(struct hypermem_request *request);
int hypermem_read_str(struct hypermem_request *request);
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
int hypermem_procfs_init(void);
void hypermem_procfs_exit(void);

#endif
