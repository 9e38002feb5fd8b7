/* SPDX-License-Identifier: MIT */
/*
 * What the files of the fake guest (see fake_guest.c) know of each other.
 */
#ifndef FAKE_GUEST_PRIV_H
#define FAKE_GUEST_PRIV_H

#include <glib.h>

#include "guest/uapi/hypermem.h"
#include "tests/fake_guest.h"

struct misbehaviour;

struct fake_guest {
	struct fake_guest_config config;
	GThreadPool *workers;
	uint64_t boot_ns;	/* when the host booted, ns since 1970 */

	GMutex lock;		/* protects what follows */
	GCond idle;		/* conns has become 0 */
	unsigned int conns;	/* alive */
	uint64_t epoch;
	char *control;		/* what the control file said last */
	const struct misbehaviour *misbehaviour;	/* NULL: none */
	int64_t arg;
};

/* One frame, either way, in CPU order. */
struct frame {
	uint32_t op;
	uint32_t pid;
	uint64_t addr;
	uint32_t size;		/* of a reply with data: set when it is sent */
	uint16_t tag;
	uint16_t stamp;
	GByteArray *data;	/* never NULL */
};

/* A connection, alive until its last request has been answered. */
struct conn {
	struct fake_guest *guest;
	grefcount refs;
	int fd;
	GMutex lock;		/* protects what follows, and a frame going out */
	bool closed;
	unsigned int session;	/* counts HELLOs; 0: none yet */
	bool readonly;		/* the host asked for it */
	uint32_t max_data;	/* agreed on */
};

/* A request at work. */
struct request {
	struct conn *conn;
	struct frame frame;
	unsigned int session;	/* the one that it belongs to */
	uint32_t max_data;
	bool readonly;
	int dir;		/* /proc/PID, so that a reused pid is no danger; or -1 */
};

/*
 * A way to go wrong.  Each hook may be NULL; `arg` is the number behind the '='.
 */
struct misbehaviour {
	const char *name;
	int64_t arg;		/* if none is given */
	/* When it is chosen. */
	void (*begin)(struct fake_guest *guest, struct conn *conn);
	/* Before the request is looked at; true: it gets no answer. */
	bool (*request)(struct request *request, int64_t arg);
	/* Change the answer. */
	void (*reply)(struct request *request, struct frame *reply, int64_t arg);
	/* Send something else in place of the answer. */
	void (*send)(struct conn *conn, struct frame *reply, int64_t arg);
	/* Change what a process's start time hashes to. */
	uint16_t (*stamp)(uint16_t stamp);
};

/* The row of the table that `text` names; NULL if none.  *ret_arg is its number. */
const struct misbehaviour *misbehaviour_find(const char *text, int64_t *ret_arg);

/* A guest that boots: new epoch, and it has forgotten its host. */
void fake_guest_reboot(struct fake_guest *guest, struct conn *conn);

/* fake_guest_link.c */
/* Header and data as they go over the wire. */
GByteArray *frame_encode(const struct frame *frame);
bool frame_is_hello(const struct frame *frame);

struct conn *conn_new(struct fake_guest *guest, int fd);
struct conn *conn_ref(struct conn *conn);
void conn_unref(struct conn *conn);
bool conn_receive(struct conn *conn, struct frame *frame);
/* A whole frame, unless the connection is closed. */
void conn_send(struct conn *conn, struct frame *frame);
/* Any bytes. */
void conn_send_raw(struct conn *conn, const void *buf, size_t size);
void conn_reply(struct request *request, struct frame *reply);
void conn_send_reset(struct conn *conn);
void conn_forget_session(struct conn *conn);
/* As though QEMU had died. */
void conn_hang_up(struct conn *conn);

/* fake_guest_proc.c */
int process_open(struct fake_guest *guest, uint32_t pid, uint16_t stamp, int *ret);
/* This process, as the guest shows it. */
void fake_guest_self(struct fake_guest *guest, uint32_t *ret_pid, uint16_t *ret_stamp);
int op_list_procs(struct request *request, struct frame *reply);
int op_read_proc(struct request *request, struct frame *reply);
int op_list_fds(struct request *request, struct frame *reply);

/* fake_guest_memory.c */
int op_read(struct request *request, struct frame *reply);
int op_write(struct request *request, struct frame *reply);
int op_read_ptr(struct request *request, struct frame *reply);
int op_write_ptr(struct request *request, struct frame *reply);
int op_read_str(struct request *request, struct frame *reply);
int op_list_maps(struct request *request, struct frame *reply);

/* fake_guest_text.c */
int op_read_procargs(struct request *request, struct frame *reply);
int op_read_procenv(struct request *request, struct frame *reply);
int op_read_fd_name(struct request *request, struct frame *reply);
int op_read_link(struct request *request, struct frame *reply);
int op_read_proc_file(struct request *request, struct frame *reply);

/* fake_guest_window.c: what its window is like. */
enum window_lie {
	WINDOW_TRUE,
	WINDOW_NO_PROOF,	/* the proof is not there */
	WINDOW_OLD_PROOF,	/* ... or is another challenge's */
	WINDOW_BAD_RAM,		/* RAM that ends where it begins */
	WINDOW_STALE,		/* no translation is good when it has come */
	WINDOW_EXEC,		/* ... since the process runs another program */
	WINDOW_OUTSIDE,		/* pages where no RAM has been proven */
	WINDOW_FAR_OUTSIDE,
	WINDOW_BAD_HOLD,	/* a translation that does not add up */
};

/* fake_guest_event.c: what is wrong with an event. */
enum event_lie {
	EVENT_MANY_REGS,
	EVENT_REGS_BEYOND,	/* more registers than there is data */
	EVENT_COMM,		/* something behind its NUL */
	EVENT_CALL,		/* not a name */
	EVENT_NO_CALL,
	EVENT_HOOK,		/* a hook that there has never been */
	EVENT_NO_ID,
	EVENT_PID,
	EVENT_REGS,		/* registers that were not asked for */
	EVENT_TWICE,
	EVENT_NONE,		/* no event at all */
};
void hooks_spoil(struct request *request, struct frame *reply, int64_t how);

/* fake_guest_hook.c.  Hooks end, and are this session's from now on. */
void hooks_session(unsigned int session);
int op_hook_set(struct request *request, struct frame *reply);
int op_hook_remove(struct request *request, struct frame *reply);
int op_hook_wait(struct request *request, struct frame *reply);
/* It is to be answered behind those that came before. */
void hooks_wait_came(struct request *request);
int op_hook_reply(struct request *request, struct frame *reply);
int op_hook_counts(struct request *request, struct frame *reply);

/* Answer WINDOW and TRANSLATE with RAM of its own. */
void window_answer(struct request *request, struct frame *reply, int64_t lie);

#endif
