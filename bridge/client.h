/* SPDX-License-Identifier: MIT */
/*
 * client: the host's end of the link.  One function per operation; each splits
 * its work into frames, waits for the replies and returns what the guest said.
 *
 * Any number of threads may call at the same time; many requests are in
 * flight and none waits for another.  A lost link fails what is in flight and
 * is made again in the background, HELLO included.
 *
 * Every operation may return, besides what it says itself:
 *	-ENOTCONN	no link to the guest now, or it was lost meanwhile
 *	-ESTALE		the guest has booted (or loaded the module) anew since `who`
 *	-ETIMEDOUT	no answer within the deadline; the request may still be done
 *	-EINTR		config.interrupted() said so; a write or a reply was not sent then
 *	-ESRCH		no such process, or its pid is another process's now
 *	-EOPNOTSUPP	the guest's module does not have the operation
 *	-EPERM		the guest's module forbids it
 *	-EPROTO		the guest's answer makes no sense; it was not used
 */
#ifndef HM_CLIENT_H
#define HM_CLIENT_H

#include <glib.h>

#include "bridge/wire.h"

struct hm_client;
struct hm_reader;

/* Whether guest RAM is read where QEMU has it, see ram.h. */
enum hm_ram_use {
	HM_RAM_AUTO,		/* if it can be done; otherwise the guest sends the bytes */
	HM_RAM_OFF,
	HM_RAM_REQUIRE,		/* large reads fail if it cannot be done */
};

struct hm_client_config {
	const char *address;		/* see chardev.h; copied */
	int timeout_ms;			/* deadline of one request, and of HELLO */
	bool readonly;			/* tell the guest to refuse writes */
	bool trace;			/* g_debug() a line per frame */
	enum hm_ram_use ram;
	/*
	 * Asked when a signal handler has interrupted a waiting call, in its
	 * thread: true ends the call with -EINTR.  NULL: never.
	 */
	bool (*interrupted)(void);
};

/* A process, for good: a reused pid is another one, and so is one after a reboot. */
struct hm_who {
	uint64_t epoch;
	uint32_t pid;
	uint16_t stamp;		/* 0: whoever has the pid */
};

/* More than an errno says about why there is no session. */
struct hm_refusal {
	uint32_t version;	/* the guest's, which is not ours */
	char heard[49];		/* how the text begins that came instead of an answer */
};

/*
 * Connect and say HELLO, without any thread.
 * Errors of hm_chardev_open(), -ETIMEDOUT if nobody answers HELLO, -ECONNRESET if the other
 * end hangs up, -EPROTO if the answer is nonsense; -EPROTONOSUPPORT if the versions differ
 * and -EBADMSG if what answers is not the module: *refusal says more then.
 */
int hm_client_open(const struct hm_client_config *config, struct hm_refusal *refusal,
		   struct hm_client **ret);
/* Start the thread that receives and reconnects: once, before the first operation. */
int hm_client_start(struct hm_client *client);
/*
 * End every call, now and from now on, with -ENOTCONN, so that the client can be closed
 * soon.  May be called in a signal handler.
 */
void hm_client_stop(struct hm_client *client);
/* No call may be in progress. */
void hm_client_close(struct hm_client *client);

/* The guest behind the link now.  -ENOTCONN while there is none; *ret is the last one then. */
int hm_client_guest(struct hm_client *client, struct hm_guest *ret);

/*
 * Memory of a process at a virtual address.  Returns bytes read: less than
 * `size` if the memory ends or faults there, 0 if the process has no memory.
 * -EIO: the first byte is not mapped.
 */
ssize_t hm_client_read(struct hm_client *client, struct hm_who who, uint64_t addr, void *buf,
		       size_t size);

/*
 * The same, for who reads one process's memory again and again: large reads are copied
 * from guest RAM, and what is read in order is located ahead.  Any thread may call.
 * -ENOTSUP: HM_RAM_REQUIRE, and it cannot be done.
 */
struct hm_reader *hm_reader_new(struct hm_client *client, struct hm_who who);
void hm_reader_free(struct hm_reader *reader);
ssize_t hm_reader_read(struct hm_reader *reader, uint64_t addr, void *buf, size_t size);

/*
 * How guest RAM can be read: 0, or -errno; *ret is a text for the user that says which
 * memory of which process it is, or why there is none.
 */
int hm_client_ram(struct hm_client *client, char **ret);

/*
 * Returns bytes written, in order from the first, and none behind them was.  -EIO: the
 * first byte cannot be written.  -EROFS: the client is read-only.  After another
 * error some may have been, in order, or may be yet.
 */
ssize_t hm_client_write(struct hm_client *client, struct hm_who who, uint64_t addr,
			const void *buf, size_t size);

/*
 * A number of `size` bytes (4 or 8) in the guest's byte order.
 * -EIO: not all of it is mapped; of a write, the bytes before that are written.
 */
int hm_client_read_number(struct hm_client *client, struct hm_who who, uint64_t addr, size_t size,
			  uint64_t *ret);
int hm_client_write_number(struct hm_client *client, struct hm_who who, uint64_t addr,
			   size_t size, uint64_t number);
/*
 * A pointer, as wide as the process has them now.  -EIO: not all of it is mapped, and nothing was
 * written.  -ERANGE: it does not fit into 4 bytes, which is how wide they are.
 */
int hm_client_read_pointer(struct hm_client *client, struct hm_who who, uint64_t addr,
			   uint64_t *ret);
int hm_client_write_pointer(struct hm_client *client, struct hm_who who, uint64_t addr,
			    uint64_t pointer);

/*
 * A C string of at most size - 1 bytes; buf is NUL-terminated.  Returns its length.
 * -EIO: it meets unmapped memory before its end.  -E2BIG: it is longer.
 */
ssize_t hm_client_read_str(struct hm_client *client, struct hm_who who, uint64_t addr, char *buf,
			   size_t size);

/*
 * /proc/PID/cmdline and environ from `offset` on.  Returns bytes: fewer than size if that was
 * the end (*ret_ended), or if what follows cannot be read.
 */
ssize_t hm_client_read_procargs(struct hm_client *client, struct hm_who who, uint64_t offset,
				void *buf, size_t size, bool *ret_ended);
ssize_t hm_client_read_procenv(struct hm_client *client, struct hm_who who, uint64_t offset,
			       void *buf, size_t size, bool *ret_ended);

/*
 * Link texts: NUL-terminated into buf of `size`; returns the length.  -ENOENT: no
 * such link (now); -ENAMETOOLONG: longer than buf or than the guest can say.
 */
ssize_t hm_client_read_fd_name(struct hm_client *client, struct hm_who who, uint32_t fd,
			       char *buf, size_t size);
ssize_t hm_client_read_link(struct hm_client *client, struct hm_who who, enum HYPER_LINK which,
			    char *buf, size_t size);

/*
 * The next part of the text file /proc/PID/NAME, whole records.  *cursor is 0 at
 * the start and after the last part.  Appends to `text`.
 */
int hm_client_read_proc_file(struct hm_client *client, struct hm_who who, const char *name,
			     uint64_t *cursor, GByteArray *text);

/* pid as it is now.  *ret_epoch: which boot of the guest said so. */
int hm_client_read_proc(struct hm_client *client, uint32_t pid, struct hm_proc *ret,
			uint64_t *ret_epoch);

/* All processes (struct hm_proc, ascending pids). */
int hm_client_list_procs(struct hm_client *client, GArray **ret, uint64_t *ret_epoch);
/* Some of them, from `pid` on: as many as are soon told. */
int hm_client_list_procs_at(struct hm_client *client, uint32_t pid, GArray **ret,
			    uint64_t *ret_epoch);
/* All open files (struct hm_fd, ascending) of a process. */
int hm_client_list_fds(struct hm_client *client, struct hm_who who, GArray **ret);
/* One open file.  -ENOENT: it is not open. */
int hm_client_read_fd(struct hm_client *client, struct hm_who who, uint32_t fd, struct hm_fd *ret);
/*
 * The mappings that end above addr (struct hm_map, ascending): as many as one
 * reply holds.  An empty array: there are no more.
 */
int hm_client_list_maps(struct hm_client *client, struct hm_who who, uint64_t addr, GArray **ret);

#endif
