/* SPDX-License-Identifier: MIT */
/*
 * wire: what the guest's frames say, decoded once, checked, in CPU order.
 *
 * The only place in the host, with wire_window.c and wire_hook.c, that knows byte order
 * and the layout of guest/uapi/hypermem.h.  Nothing the guest sends is believed before a
 * function of these files has accepted it.  It moves no bytes and knows no sockets.
 */
#ifndef HM_WIRE_H
#define HM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/uapi/hypermem.h"

/* A header in CPU order. */
struct hm_header {
	uint32_t op;
	uint32_t pid;
	uint64_t addr;
	uint32_t size;
	uint16_t tag;
	uint16_t stamp;
};

/* What HELLO said.  Strings are NUL-terminated printable ASCII ('?' for what is not). */
struct hm_guest {
	uint32_t version;
	uint32_t flags;		/* HYPER_HELLO_* */
	uint64_t epoch;
	uint64_t ops;
	uint64_t allowed;	/* of `ops` */
	uint32_t max_data;	/* bytes of data in a frame, both ways */
	uint32_t max_inflight;
	uint32_t page_size;
	uint32_t word_bits;
	char release[80];
	char machine[48];
	char module[32];
};

struct hm_proc {
	uint32_t pid;
	uint32_t ppid;
	uint32_t uid;
	uint32_t gid;
	uint16_t stamp;
	char state;		/* 0 if not known */
	uint8_t flags;		/* HYPER_PROC_* */
	uint32_t threads;
	uint64_t start_time;		/* ns since the guest booted */
	uint64_t start_time_real;	/* ns since 1970, guest's clock */
	uint64_t arg_start;
	uint64_t arg_end;
	uint64_t env_start;
	uint64_t env_end;
	uint64_t task_size;
	char comm[17];		/* NUL-terminated, any bytes */
};

struct hm_fd {
	uint32_t fd;
	uint32_t mode;		/* mode_t of the link */
};

struct hm_map {
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	uint32_t dev_major;
	uint32_t dev_minor;
	uint32_t flags;		/* HYPER_MAP_* */
};

/* A range of guest-physical addresses that is RAM, and the page that proves it. */
struct hm_ram {
	uint64_t start;
	uint64_t end;
	uint64_t proof;
};

/* Pages in the guest's RAM that follow one another. */
struct hm_run {
	uint64_t addr;		/* guest-physical */
	uint64_t size;		/* bytes */
};

/* Where `size` bytes from the page of an address on are in the guest's RAM, and until when. */
struct hm_hold {
	uint64_t generation;
	uint64_t word;
	uint64_t mm_addr;
	uint8_t mm[8];
	uint32_t mm_size;
	uint32_t n_runs;
	uint64_t size;
	struct hm_run runs[HYPERMEM_TRANSLATE_PAGES];
};

/* Data of the reply to TRANSLATE, at most. */
#define HM_HOLD_SIZE_MAX (sizeof(struct hypermem_hold) + 8 * HYPERMEM_TRANSLATE_PAGES)

/* Bytes of data behind a header: `size` if its op says so, else 0. */
uint32_t hm_header_data_size(const struct hm_header *header);
void hm_header_encode(const struct hm_header *header, uint8_t buf[HYPERMEM_HEADER_SIZE]);
void hm_header_decode(const uint8_t buf[HYPERMEM_HEADER_SIZE], struct hm_header *ret);

/* -EPROTO: no response, or with more than max_data bytes: the next frame cannot be found. */
int hm_header_check(const struct hm_header *header, uint32_t max_data);

/*
 * What is wrong with a reply to `request`, of which `limit` bytes were asked (to
 * read or to write), as "has ..." or "is ..."; NULL: nothing.
 */
const char *hm_reply_check(const struct hm_header *request, uint32_t limit,
			   const struct hm_header *reply);
/* All of it was done; otherwise addr is an errno of the wire. */
bool hm_reply_is_ok(const struct hm_header *reply);

void hm_hello_encode(uint32_t flags, uint64_t nonce, uint32_t max_data,
		     uint8_t buf[sizeof(struct hypermem_hello)]);

/* -EPROTONOSUPPORT: another version (ret->version says which); -EPROTO: nonsense. */
int hm_hello_reply_decode(const uint8_t *data, size_t size, struct hm_guest *ret);

/*
 * Decode a record of a list.  -EPROTO if it cannot be one: a pid out of range,
 * a mapping that ends before it starts, ...
 */
int hm_proc_decode(const uint8_t *data, size_t size, struct hm_proc *ret);
int hm_fd_decode(const uint8_t *data, size_t size, struct hm_fd *ret);
int hm_map_decode(const uint8_t *data, size_t size, struct hm_map *ret);
int hm_ram_decode(const uint8_t *data, size_t size, struct hm_ram *ret);

/* The reply to TRANSLATE.  page_size: the guest's. */
int hm_hold_decode(const uint8_t *data, size_t size, uint32_t page_size, struct hm_hold *ret);
/* What a hold's word holds, and what is in a page that proves a range. */
uint64_t hm_word_decode(const uint8_t data[8]);
void hm_proof_encode(uint64_t challenge, uint64_t addr, uint8_t buf[sizeof(struct hypermem_proof)]);

/* A number of `size` bytes (at most 8) as it is in the guest's memory. */
uint64_t hm_number_decode(const uint8_t *data, size_t size, bool big_endian);
void hm_number_encode(uint64_t number, size_t size, bool big_endian, uint8_t *buf);

/* errno of the wire (generic numbering) to -errno of this host; nonsense is -EPROTO. */
int hm_errno_decode(uint64_t wire);

/* "READ", "READ_OK", ...; NULL if unknown. */
const char *hm_op_name(uint32_t op);

#endif
