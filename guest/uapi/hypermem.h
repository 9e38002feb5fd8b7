/* SPDX-License-Identifier: MIT */
/*
 * The hypermem protocol: what the host's hypermemfs and the guest's
 * hypermem.ko say to each other over a QEMU chardev.
 *
 * This header is the reference; docs/protocol.md explains it.  Everything on
 * the wire is little-endian, on every architecture.
 *
 * The unit is the region of the original hypermem: a 24-byte header and up to
 * 4072 bytes of data, one page together.  A frame is the header and the data
 * in use, never padding, and HELLO may agree on more data than a region holds.
 *
 *   op    bits  0-31  operation (host to guest) or response (guest to host)
 *         bits 32-63  pid, in the guest's initial pid namespace
 *   addr              address, offset or cursor; in a failure the errno
 *   size  bits  0-31  byte count
 *         bits 32-47  tag: chosen by the host, echoed by the guest
 *         bits 48-63  stamp: which process of that pid is meant, 0 for any
 *
 * An operation or response with HYPER_DATA set is followed by `size` bytes of
 * data; one without is followed by nothing, and `size` is only a number.  So a
 * receiver finds the next frame even after an operation that it does not know.
 *
 * Replies come in any order.  Each has the tag, pid and stamp of its request.
 * A request with a stamp fails with ESRCH if the process of that pid has
 * another one: a reused pid is never mistaken for the old process.
 */
#ifndef HYPERMEM_UAPI_H
#define HYPERMEM_UAPI_H

#include <linux/types.h>

#define HYPERMEM_VERSION	1
#define HYPERMEM_MAGIC		0x004d454d52505948ULL	/* "HYPRMEM\0" in memory */
#define HYPERMEM_PORT_PREFIX	"org.hypermem."		/* virtio-serial port names */

#define HYPERMEM_HEADER_SIZE	24
#define HYPERMEM_CHUNK_SIZE	4072			/* data of one region */
#define HYPERMEM_DATA_MAX	(1024 * 1024)		/* data of any frame */
#define HYPERMEM_PID_MAX	(4 * 1024 * 1024)	/* PID_MAX_LIMIT */

struct mem_region {
	__le64 op;
	__le64 addr;
	__le64 size;
	char data[HYPERMEM_CHUNK_SIZE];
};

#define HYPER_PID_SHIFT		32
#define HYPER_TAG_SHIFT		32
#define HYPER_STAMP_SHIFT	48

#define HYPER_DATA		0x100	/* `size` bytes of data follow */
#define HYPER_OP_INDEX(op)	((op) & 0xff)	/* bit of `op` in a mask of operations */

/*
 * On a serial line, each frame stands between flags, with its CRC-32 (IEEE 802.3,
 * little-endian) behind it.  Bytes in between that are special, which are those that
 * something on the way might take for itself, are sent as an escape and the byte
 * XOR 0x20.  What is not a whole frame with the right CRC is dropped: noise, another
 * host's half a frame, a frame that has lost a byte.
 */
#define HYPER_SERIAL_FLAG	0x7e
#define HYPER_SERIAL_ESCAPE	0x7d
#define HYPER_SERIAL_XOR	0x20
#define HYPER_SERIAL_CRC_SIZE	4
#define HYPER_SERIAL_IS_SPECIAL(byte) \
	(((byte) > 0 && (byte) < 0x20) || ((byte) >= 0x7d && (byte) <= 0x7f))

/*
 * Operations.  "size: limit" is the greatest number of data bytes that the
 * host takes in the reply; it must not exceed what HELLO agreed on.
 */
enum HYPER_OP {
	HYPER_OP_NONE = 0,

	/*
	 * First after every (re)connect; nothing else is answered before it.
	 * addr: HYPERMEM_MAGIC, data: struct hypermem_hello.
	 * READ_OK, addr: the nonce, data: struct hypermem_hello_reply.
	 */
	HYPER_OP_HELLO = 1 | HYPER_DATA,

	/*
	 * Memory of process pid.  addr: virtual address, size: limit.
	 * READ_OK, addr: the address, data: all the bytes asked for.
	 * READ_PARTIAL, data: the bytes before the fault.
	 * READ_OK without data: the process has no memory (kernel thread, zombie).
	 */
	HYPER_OP_READ = 2,

	/*
	 * addr: virtual address, data: the bytes.  Writes as a debugger does:
	 * read-only private mappings get a private copy.
	 * WRITE_OK or WRITE_PARTIAL, size: bytes written.
	 */
	HYPER_OP_WRITE = 3 | HYPER_DATA,

	/*
	 * A C string.  addr: virtual address, size: limit.
	 * READ_OK, data: the string with its NUL, or `limit` bytes without one.
	 * READ_PARTIAL, data: the bytes before a fault, none of them NUL.
	 */
	HYPER_OP_READ_STR = 4,

	/*
	 * The process's argument vector, as its /proc/PID/cmdline says.
	 * addr: offset, size: limit.  READ_OK with less than `limit`: the end.
	 */
	HYPER_OP_READ_PROCARGS = 5,

	/* The same for /proc/PID/environ. */
	HYPER_OP_READ_PROCENV = 6,

	/*
	 * What readlink of /proc/PID/fd/FD says.  addr: fd, size: limit.
	 * READ_OK, data: the text, without NUL.
	 */
	HYPER_OP_READ_FD_NAME = 7,

	/*
	 * Processes (thread group leaders) with pid >= addr, ascending.
	 * addr: cursor, from 0; size: limit.
	 * READ_OK, data: struct hypermem_proc[], addr: the next cursor, 0 at the end.
	 */
	HYPER_OP_LIST_PROCS = 8,

	/* READ_OK, data: struct hypermem_proc of process (or thread) pid. */
	HYPER_OP_READ_PROC = 9,

	/* As LIST_PROCS: the open files of pid with fd >= addr, struct hypermem_fd[]. */
	HYPER_OP_LIST_FDS = 10,

	/* As LIST_PROCS: the mappings of pid that end above addr, struct hypermem_map[]. */
	HYPER_OP_LIST_MAPS = 11,

	/* What readlink of /proc/PID/NAME says.  addr: enum HYPER_LINK, size: limit. */
	HYPER_OP_READ_LINK = 12,

	/*
	 * A text file of /proc/PID, byte for byte, whole records at a time.
	 * addr: cursor, from 0; data: its name, without NUL or slash.
	 * READ_OK, data: text, addr: the next cursor, 0 at the end.
	 */
	HYPER_OP_READ_PROC_FILE = 13 | HYPER_DATA,

	/*
	 * How to find this guest's RAM from outside.  addr: a challenge, size: limit.
	 * Before it answers the guest writes the challenge and its own address into each
	 * of its proof pages: struct hypermem_proof, at the beginning.
	 * READ_OK, data: struct hypermem_ram[].
	 */
	HYPER_OP_WINDOW = 14,

	/*
	 * Where memory of process pid is, made resident.  addr: virtual address,
	 * size: bytes; at most HYPERMEM_TRANSLATE_PAGES pages are looked at.
	 * READ_OK, data: struct hypermem_hold and __le64 runs[], see there.
	 * READ_PARTIAL: the same, up to memory that has no place in RAM.
	 * READ_FAIL with EAGAIN: the mappings are changing right now.
	 */
	HYPER_OP_TRANSLATE = 15,

	/*
	 * System calls to be told of, or to be stopped at: see "Hooks" below.
	 * addr: the hook's number, the host's choice, not 0; data: struct hypermem_hook and
	 * what belongs to it.  A hook of that number is replaced, but for its counts.
	 * WRITE_OK, size: what the data had.  WRITE_FAIL with ENOENT: this kernel has none of
	 * the calls; EINVAL: the data is no hook.
	 */
	HYPER_OP_HOOK_SET = 16 | HYPER_DATA,

	/* addr: the hook's number.  Calls that wait for a reply to it go on.  READ_OK, no data. */
	HYPER_OP_HOOK_REMOVE = 17,

	/*
	 * Events of hooks.  It is answered when there are any, and so perhaps never; of
	 * several, the one that came first is the first to have some.
	 * size: limit.  READ_OK, data: struct hypermem_event[], each with what belongs to it.
	 */
	HYPER_OP_HOOK_WAIT = 18,

	/*
	 * A call goes on.  addr: the event's id, data: struct hypermem_verdict.
	 * WRITE_OK, size: what the data had.  WRITE_FAIL with ESRCH: it does not wait any more;
	 * with ERANGE: its caller has 32 bits, and a value does not fit in these.
	 */
	HYPER_OP_HOOK_REPLY = 19 | HYPER_DATA,

	/* addr: the hook's number.  READ_OK, data: struct hypermem_hook_counts. */
	HYPER_OP_HOOK_COUNTS = 20,

	/*
	 * A pointer, as wide as the process has them now.  addr: virtual address.
	 * READ_OK, data: it, as it is in memory: 4 or 8 bytes.
	 * READ_PARTIAL, data: the bytes before the fault.
	 */
	HYPER_OP_READ_PTR = 21,

	/*
	 * addr: virtual address, data: __le64, the pointer.  All of it is mapped, or nothing
	 * is written.  WRITE_OK, size: what the data had.  WRITE_FAIL with ERANGE: it does
	 * not fit into the process's pointers.
	 */
	HYPER_OP_WRITE_PTR = 22 | HYPER_DATA,

	/*
	 * The same as HOOK_REPLY, and never answered: who sends it sees in the event's flags
	 * what such a call may be told, and in its hook's counts whether it had gone on already.
	 */
	HYPER_OP_HOOK_POST = 23 | HYPER_DATA,

	HYPER_OP_MAX = 24,	/* one more than the greatest index */
};

enum HYPER_RESP {
	/* Success.  addr: the request's, or what the operation says. */
	HYPER_RESP_READ_OK = 0xf0000001 | HYPER_DATA,
	/* Data up to a fault.  addr: errno of the fault. */
	HYPER_RESP_READ_PARTIAL = 0xf0000002 | HYPER_DATA,
	/* Nothing.  addr: errno, size: 0. */
	HYPER_RESP_READ_FAIL = 0xf0000003,

	/* The same for WRITE; size: bytes written. */
	HYPER_RESP_WRITE_OK = 0xf0000004,
	HYPER_RESP_WRITE_PARTIAL = 0xf0000005,
	HYPER_RESP_WRITE_FAIL = 0xf0000006,

	/*
	 * Not a reply (tag 0): the guest has no session with this host, or has
	 * lost track of its frames.  Nothing in flight will be answered: the
	 * host says HELLO again.
	 */
	HYPER_RESP_RESET = 0xf0000007,
};

/* READ_LINK's addr. */
enum HYPER_LINK {
	HYPER_LINK_EXE = 0,
	HYPER_LINK_CWD = 1,
	HYPER_LINK_ROOT = 2,
	HYPER_LINK_MAX = 3,
};

/*
 * errno on the wire is Linux's generic numbering (asm-generic/errno.h), a
 * positive number.  1 to 34 are the same everywhere; these are not.
 */
enum HYPER_ERRNO {
	HYPER_ENAMETOOLONG = 36,
	HYPER_ELOOP = 40,
	HYPER_EPROTO = 71,
	HYPER_EOVERFLOW = 75,
	HYPER_EOPNOTSUPP = 95,
	HYPER_ETIMEDOUT = 110,
	HYPER_ESTALE = 116,
};

#define HYPER_HELLO_READONLY	0x1	/* refuse WRITE, whoever asks */

struct hypermem_hello {
	__le32 version;		/* HYPERMEM_VERSION of the host */
	__le32 flags;		/* HYPER_HELLO_* */
	__le64 nonce;		/* random; the reply's addr */
	__le32 max_data;	/* greatest data of a frame that the host takes */
	__le32 reserved;	/* 0 */
};

#define HYPER_HELLO_BIG_ENDIAN	0x2	/* the guest's own byte order */

/*
 * Later versions may append to the reply; the host ignores what it does not
 * know.  The first 16 bytes are the same in all versions.
 */
struct hypermem_hello_reply {
	__le32 version;		/* HYPERMEM_VERSION of the guest */
	__le32 flags;		/* HYPER_HELLO_* */
	__le64 epoch;		/* random, per load of the module, not 0 */
	__le64 ops;		/* operations that the module has, by index */
	__le64 allowed;		/* operations that it will do in this session */
	__le32 max_data;	/* greatest data of any frame, either way */
	__le32 max_inflight;	/* requests that it works on at a time */
	__le32 page_size;	/* bytes */
	__le32 word_bits;	/* of the kernel: 32 or 64 */
	char release[80];	/* uname -r, NUL-terminated, as the next two */
	char machine[48];	/* uname -m */
	char module[32];	/* version of the module */
};

#define HYPER_PROC_KTHREAD	0x1	/* kernel thread */
#define HYPER_PROC_MM		0x2	/* has an address space */
#define HYPER_PROC_DUMPABLE	0x4	/* its /proc files belong to its owner */
#define HYPER_PROC_32BIT	0x8	/* its pointers have 4 bytes, whatever the kernel's have */

struct hypermem_proc {
	__le32 pid;
	__le32 ppid;		/* 0: none */
	__le32 uid;		/* effective, in the initial user namespace */
	__le32 gid;
	__le16 stamp;		/* hash of the start time, not 0 */
	__u8 state;		/* letter, as in /proc/PID/stat; 0 if not known */
	__u8 flags;		/* HYPER_PROC_* */
	__le32 threads;
	__le64 start_time;	/* ns since the guest booted */
	__le64 start_time_real;	/* ns since 1970, by the guest's clock */
	__le64 arg_start;	/* addresses; 0 without HYPER_PROC_MM */
	__le64 arg_end;
	__le64 env_start;
	__le64 env_end;
	__le64 task_size;	/* end of the user address space */
	char comm[16];		/* NUL-padded */
	__le64 reserved[4];	/* 0 */
};

struct hypermem_fd {
	__le32 fd;
	__le32 mode;		/* of the link in /proc/PID/fd: S_IFLNK | 0700's */
};

#define HYPER_MAP_READ		0x1
#define HYPER_MAP_WRITE		0x2
#define HYPER_MAP_EXEC		0x4
#define HYPER_MAP_SHARED	0x8
#define HYPER_MAP_NO_ACCESS	0x10	/* device memory that nobody can read here */

struct hypermem_map {
	__le64 start;
	__le64 end;		/* first address behind */
	__le64 offset;		/* in the file, bytes */
	__le64 inode;		/* 0: no file */
	__le32 dev_major;
	__le32 dev_minor;
	__le32 flags;		/* HYPER_MAP_* */
	__le32 reserved;	/* 0 */
};

/*
 * A range of guest-physical addresses that is RAM without a hole, and a page in it; all
 * are multiples of 4096.
 */
struct hypermem_ram {
	__le64 start;
	__le64 end;		/* first address behind */
	__le64 proof;		/* the page's address */
};

/* What is in that page: who finds it there has found the range. */
struct hypermem_proof {
	__le64 challenge;	/* of the last WINDOW */
	__le64 addr;		/* guest-physical, the page's own */
};

#define HYPERMEM_TRANSLATE_PAGES	1024

/*
 * A translation.  It is good as long as two things in the guest's RAM stay as they are:
 * the word (8 bytes, little-endian) at `word` holds `generation`, and the `mm_size`
 * bytes at `mm_addr` are `mm`.  Who copies the memory and then looks at both knows whether
 * what was copied is what the process had at that address.  The guest changes the word
 * before the mappings change, when the process exits, when it needs the word for
 * another translation and when the session ends; mm changes when the process executes
 * another program.
 *
 * Each run is pages that follow one another: guest-physical address of the first one,
 * and in bits 0-11, which are 0 in any address of a page, the number of pages less one.
 * The first run begins with the page that holds the request's addr.
 */
struct hypermem_hold {
	__le64 generation;	/* not 0, never the same again */
	__le64 word;		/* guest-physical address, multiple of 8 */
	__le64 mm_addr;		/* guest-physical address */
	__u8 mm[8];		/* as in memory, in the guest's own byte order */
	__le32 mm_size;		/* 4 or 8 */
	__le32 pages;		/* in all runs together */
};

#define HYPER_RUN_PAGES_MASK	0xfff

/*
 * Hooks.  A hook has names of calls, and a filter, a program that says of a call whether
 * it matches.  It matches when a call is entered, when it returns, or both.  Then an event
 * is made; and if the hook waits (not HYPER_HOOK_TRACE) the call is held up until a REPLY
 * has come, or `timeout`, or a fatal signal.  Hooks end with their session, and all calls
 * that wait for the host then go on as if there were no hooks.
 *
 * Behind struct hypermem_hook come `tests` of struct hypermem_test, the program; then
 * `names_size` bytes, the names of calls, each with its NUL ("*": all), then `text_size` bytes,
 * which tests of strings refer to.
 */
#define HYPER_HOOK_ENTER	0x1
#define HYPER_HOOK_RETURN	0x2
#define HYPER_HOOK_TRACE	0x4	/* events are told, no call waits */
#define HYPER_HOOK_REGS		0x8	/* events have the user's registers */
#define HYPER_HOOK_ENABLED	0x10	/* otherwise it matches nothing */
#define HYPER_HOOK_ATTENDED	0x20	/* somebody takes its events: otherwise no call waits */

#define HYPER_HOOKS_MAX		256	/* in a session */
#define HYPER_TESTS_MAX		128	/* of a hook */
#define HYPER_HOOK_TEXT_MAX	1024	/* bytes, and as many of names */
#define HYPER_STRING_MAX	4096	/* of a string that is tested, with its NUL */
#define HYPER_TIMEOUT_MAX_MS	3600000

struct hypermem_hook {
	__le32 flags;		/* HYPER_HOOK_* */
	__le32 timeout_ms;	/* 1 to HYPER_TIMEOUT_MAX_MS */
	__le16 tests;		/* 0: every call matches */
	__le16 names_size;
	__le16 text_size;
	__le16 reserved;	/* 0 */
};

/* A program is run from its beginning on a stack of truth values; one must be left. */
enum HYPER_TEST {
	HYPER_TEST_NUMBER = 1,	/* push: (field & mask) compared with a, or a to b */
	HYPER_TEST_STRING = 2,	/* push: the field's string compared with text[a, a + b) */
	HYPER_TEST_AND = 3,	/* pop two, push one; the same: */
	HYPER_TEST_OR = 4,
	HYPER_TEST_NOT = 5,	/* pop one, push one */
};

enum HYPER_FIELD {
	HYPER_FIELD_ARG0 = 0,	/* to 5: arguments, as numbers or as addresses of strings */
	HYPER_FIELD_RETVAL = 6,	/* no test of it holds when a call is entered, nor its NOT */
	HYPER_FIELD_PID = 7,	/* of the process */
	HYPER_FIELD_TID = 8,
	HYPER_FIELD_UID = 9,	/* effective, in the initial user namespace */
	HYPER_FIELD_NR = 10,	/* of the call, in the caller's ABI */
	HYPER_FIELD_COMPAT = 11, /* 1: a call of 32 bits to a kernel of 64 */
	HYPER_FIELD_COMM = 12,	/* a string */
	HYPER_FIELD_MAX = 13,
};

enum HYPER_COMPARE {
	HYPER_EQ = 0,
	HYPER_NE = 1,
	HYPER_LT = 2,
	HYPER_LE = 3,
	HYPER_GT = 4,
	HYPER_GE = 5,
	HYPER_IN = 6,		/* from a to b, both included */
	HYPER_NOT_IN = 7,
	HYPER_COMPARE_NUMBERS = 8,
	/* Strings: EQ, NE, and */
	HYPER_BEGINS = 8,
	HYPER_ENDS = 9,
	HYPER_CONTAINS = 10,
	HYPER_COMPARE_MAX = 11,
};

#define HYPER_TEST_SIGNED	0x1	/* numbers are signed ... */
#define HYPER_TEST_INT		0x2	/* ... and of 32 bits, whatever is above */

/*
 * A string that cannot be read, and a result that is not there yet, make a test neither
 * true nor false; so does NOT of it, and what depends on it.  In the end it is not a match.
 */
struct hypermem_test {
	__u8 test;		/* enum HYPER_TEST */
	__u8 field;		/* enum HYPER_FIELD */
	__u8 compare;		/* enum HYPER_COMPARE */
	__u8 flags;		/* HYPER_TEST_SIGNED, _INT */
	__le32 reserved;	/* 0 */
	__le64 mask;		/* of a number; all ones: none */
	__le64 a, b;
};

#define HYPER_EVENT_RETURN	0x1	/* the call returns; otherwise it is entered */
#define HYPER_EVENT_COMPAT	0x2
#define HYPER_EVENT_WAITS	0x4	/* for a REPLY to `id` */
#define HYPER_EVENT_SKIPPED	0x8	/* it returns without having been made */
#define HYPER_EVENT_NARROW	0x10	/* its caller has 32 bits: no verdict with more */
#define HYPER_EVENT_LEAVES	0x20	/* it does not return: no SKIP, no RETVAL */
#define HYPER_EVENT_FIXED	0x40	/* its arguments are not the caller's: no ARG */

#define HYPER_CALL_NAME_SIZE	32

/* Behind it come `n_regs` of struct hypermem_reg. */
struct hypermem_event {
	__le64 id;		/* not 0, never the same again in this load of the module */
	__le32 hook;		/* its number */
	__le32 flags;		/* HYPER_EVENT_* */
	__le32 pid;		/* of the process */
	__le32 tid;
	__le32 nr;		/* of the call, in the caller's ABI */
	__le16 stamp;		/* the process's */
	__le16 n_regs;
	__le64 time;		/* ns since the guest booted */
	__le64 args[6];		/* as they are now: what handlers have changed is changed */
	__le64 retval;		/* signed; 0 when the call is entered */
	__le64 lost;		/* events of this hook that did not come, since the last that did */
	char comm[16];		/* of the thread, NUL-padded, as the next */
	char call[HYPER_CALL_NAME_SIZE]; /* without sys_ */
};

struct hypermem_reg {
	char name[8];		/* NUL-padded */
	__le64 value;
};

#define HYPER_REGS_MAX		40
#define HYPER_EVENT_SIZE_MAX	(sizeof(struct hypermem_event) + \
				 HYPER_REGS_MAX * sizeof(struct hypermem_reg))

/* Entered: do not make the call.  EINVAL: it is one that does not return, as exit(). */
#define HYPER_VERDICT_SKIP	0x1
/* Its result is `retval`; entered: skip it, too.  EINVAL: it is none, see below. */
#define HYPER_VERDICT_RETVAL	0x2
#define HYPER_VERDICT_ARG(k)	(0x100U << (k))	/* entered: argument k is args[k] */

/* By these a kernel tells itself to make a call again. */
#define HYPER_RETVAL_NONE_FIRST	(-516)
#define HYPER_RETVAL_NONE_LAST	(-512)

struct hypermem_verdict {
	__le32 flags;		/* HYPER_VERDICT_*; 0: go on */
	__le32 reserved;	/* 0 */
	__le64 retval;
	__le64 args[6];
};

struct hypermem_hook_counts {
	__le64 matched;		/* by the filter, while enabled */
	__le64 sent;		/* events for which there was room */
	__le64 replied;		/* calls that went on by a REPLY or POST ... */
	__le64 continued;	/* ... of these, by one that changed nothing */
	__le64 timed_out;	/* calls that went on without, after the timeout */
	__le64 killed;		/* calls that ended waiting, by a fatal signal */
	__le64 abandoned;	/* calls that went on because the hook or its host went */
	__le64 unattended;	/* calls that did not wait, since nobody takes events */
	__le64 dropped;		/* events for which there was no room, or nobody */
	__le64 restarted;	/* returns to be called again: no event */
	__le64 missed;		/* calls of its names that could not be looked at, by whatever hook */
};

_Static_assert(sizeof(struct mem_region) == 4096, "one page");
_Static_assert(sizeof(struct hypermem_hello) == 24, "ABI");
_Static_assert(sizeof(struct hypermem_hello_reply) == 208, "ABI");
_Static_assert(sizeof(struct hypermem_proc) == 128, "ABI");
_Static_assert(sizeof(struct hypermem_fd) == 8, "ABI");
_Static_assert(sizeof(struct hypermem_map) == 48, "ABI");
_Static_assert(sizeof(struct hypermem_ram) == 24, "ABI");
_Static_assert(sizeof(struct hypermem_proof) == 16, "ABI");
_Static_assert(sizeof(struct hypermem_hold) == 40, "ABI");
_Static_assert(sizeof(struct hypermem_hook) == 16, "ABI");
_Static_assert(sizeof(struct hypermem_test) == 32, "ABI");
_Static_assert(sizeof(struct hypermem_event) == 152, "ABI");
_Static_assert(sizeof(struct hypermem_reg) == 16, "ABI");
_Static_assert(sizeof(struct hypermem_verdict) == 64, "ABI");
_Static_assert(sizeof(struct hypermem_hook_counts) == 88, "ABI");

#endif
