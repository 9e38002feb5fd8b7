/* SPDX-License-Identifier: MIT */
/*
 * churn: what the memory of churn.c looks like, so that churn_reader.c can tell for each
 * byte whether it was there.
 *
 * Each 8-byte word of a region is its own address and the tag of a generation.  A
 * process may change a region to its next generation at any time, and says so in the
 * region's row of the status page, before and behind.
 */
#ifndef CHURN_H
#define CHURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHURN_ADDR_BITS	48
#define CHURN_ADDR_MASK	((1ULL << CHURN_ADDR_BITS) - 1)
#define CHURN_TAGS	0x7fff

/* In place of a tag: nobody may see this in a region.  The address is the writer's own. */
enum churn_marker {
	CHURN_CHILD = 0x8081,		/* a child, in its copy */
	CHURN_FILE = 0x8082,		/* in pages of a file that are mapped there no more */
	CHURN_JUNK = 0x8083,		/* the same process, in other memory */
	CHURN_STRANGER = 0x8084,	/* another process */
};

/* How a region is changed. */
enum churn_op {
	CHURN_REWRITE,	/* in place */
	CHURN_RENEW,	/* mapped anew, with or without munmap() before */
	CHURN_MOVE,	/* mremap() of memory that was filled elsewhere */
	CHURN_FORK,	/* a child and this process write to their copies */
	CHURN_LEND,	/* the child alone does: nothing changes here */
	CHURN_FORGET,	/* MADV_DONTNEED or MADV_FREE for a part */
	CHURN_HIDE,	/* PROT_NONE for a part, and back: nothing changes */
	CHURN_SPLIT,	/* a part is unmapped and mapped anew */
	CHURN_RECYCLE,	/* unmapped, and what gets the page frames writes to them first */
	CHURN_MIGRATE,	/* to other page frames: nothing changes */
	CHURN_COLLAPSE,	/* to a huge page: nothing changes */
	CHURN_SWAP,	/* other pages of a shared file, whose former pages are scribbled over */
	CHURN_PUNCH,	/* a hole in the file under it */
	CHURN_COW,	/* other pages of a private file, of which some are written to */
	CHURN_EXEC,	/* another program with the same memory map */
	CHURN_OPS
};

static const char *const churn_op_names[CHURN_OPS] = {
	[CHURN_REWRITE] = "rewrite", [CHURN_RENEW] = "renew", [CHURN_MOVE] = "move",
	[CHURN_FORK] = "fork", [CHURN_LEND] = "lend", [CHURN_FORGET] = "forget",
	[CHURN_HIDE] = "hide", [CHURN_SPLIT] = "split", [CHURN_RECYCLE] = "recycle",
	[CHURN_MIGRATE] = "migrate", [CHURN_COLLAPSE] = "collapse", [CHURN_SWAP] = "swap",
	[CHURN_PUNCH] = "punch", [CHURN_COW] = "cow", [CHURN_EXEC] = "exec",
};

#define CHURN_LOG 11

/*
 * Of each region.  Numbers are there twice, in both halves: who reads them while they are
 * written, byte by byte perhaps, sees that.
 */
struct churn_row {
	uint64_t started;	/* the generation that may be there since */
	uint64_t finished;	/* no earlier one is there since */
	uint64_t gaps;		/* odd: zeros, or nothing, may be there for now */
	uint64_t op;		/* enum churn_op, the last one begun */
	uint64_t ops[CHURN_OPS];	/* how many there were of each */
	uint64_t log[CHURN_LOG];	/* [generation % CHURN_LOG]: what has made it */
	uint64_t unused[2];
};

_Static_assert(sizeof(struct churn_row) == 256, "16 rows are a page");

static inline uint64_t churn_number(uint32_t n)
{
	return n | (uint64_t)n << 32;
}

static inline bool churn_number_is_whole(uint64_t twice)
{
	return (uint32_t)twice == twice >> 32;
}

static inline uint64_t churn_tag(uint64_t generation)
{
	return 1 + generation % CHURN_TAGS;
}

static inline uint64_t churn_word(uint64_t addr, uint64_t tag)
{
	return (addr & CHURN_ADDR_MASK) | tag << CHURN_ADDR_BITS;
}

#endif
