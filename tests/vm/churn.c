/* SPDX-License-Identifier: MIT */
/*
 * churn: processes of the guest whose memory says what it is (churn.h), for
 * churn_reader.c and test_window.py.  Like victim.c each prints one line of `key=value`
 * words and goes on until it is killed.
 *
 *   churn run SEED [REGION]
 *                     changes its memory as fast as it can, in all ways that there are
 *   churn exec        executes itself again and again, with the same memory map
 *   churn still       stays as it is, with many kinds of mappings
 *   churn brief       one large region that stays as it is, to be killed
 *   churn spread      one region with pages below and above 4 GiB of the guest's RAM
 *   churn stranger    writes to memory that others had, or will have
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "churn.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define MOVE_ALL (1 << 2)	/* MPOL_MF_MOVE_ALL */

#define HUGE	(2UL << 20)
#define MAP_HUGE	(MAP_HUGETLB | 21 << MAP_HUGE_SHIFT)	/* of that size, the default or not */
#define MIB	(1UL << 20)

/* Where things are, in every process and after every exec. */
#if UINTPTR_MAX > UINT32_MAX
#define BASE	0x2000000000UL	/* some have no more than 38 bits of it */
#else
#define BASE	0x50000000UL
#endif
#define STATUS	BASE
#define STAGE	(BASE + 1 * 16 * MIB)	/* what is to be moved into a region */
#define JUNK	(BASE + 2 * 16 * MIB)	/* what gets a region's page frames */
#define REGION	(BASE + 3 * 16 * MIB)	/* the first one; each has 16 MiB of room */
#define ALIAS	(8 * MIB)		/* behind a region: all of its file */

#define STATUS_FD	100
#define TLB_PAGES	12
#define CHILDREN	4

enum backing {
	ANON = 1,
	THP = 2,	/* transparent huge pages */
	TLB = 4,	/* hugetlb */
	SHARED = 8,	/* a file's pages; the file has two halves */
	PRIVATE = 16,	/* the same, copied on write */
};

struct region {
	const char *name;
	enum backing backing;
	size_t size;
	unsigned int weight;
	char *addr;
	uint32_t generation;
	struct churn_row *row;
	int fd;
	unsigned int half;	/* of its file, which is mapped */
};

struct op {
	bool gap;	/* zeros, or nothing, may be seen meanwhile */
	bool same;	/* the words do not change */
	unsigned int backings;
	unsigned int weight;
	void (*run)(struct region *r);
};

static size_t page;
static uint64_t random_state;
static unsigned int children;

static void die(const char *what)
{
	fprintf(stderr, "churn: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t pick(uint64_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 11) % n;
}

static void nap(unsigned int max_us)
{
	usleep(1 + pick(max_us));
}

static void *map_at(uintptr_t addr, size_t size, int flags, int fd, off_t offset)
{
	void *p = mmap((void *)addr, size, PROT_READ | PROT_WRITE,
		       flags | (addr ? MAP_FIXED : 0), fd, offset);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static void *map_anon(uintptr_t addr, size_t size, int advice)
{
	void *p = map_at(addr, size, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, size, advice);
	return p;
}

/* What belongs to `target`, written at `at`.  One store each: no word is ever half new. */
static void put_words(void *at, uintptr_t target, size_t size, uint64_t tag)
{
	volatile uint64_t *word = at;

	for (size_t i = 0; i < size / sizeof(*word); i++)
		word[i] = churn_word(target + i * sizeof(*word), tag);
}

static void fill(const struct region *r)
{
	put_words(r->addr, (uintptr_t)r->addr, r->size, churn_tag(r->generation));
}

static void scribble(void *at, size_t size, enum churn_marker marker)
{
	put_words(at, (uintptr_t)at, size, marker);
}

/* Pages of the region: where they begin, and how many bytes they are. */
static char *pick_part(const struct region *r, size_t *ret_size)
{
	size_t pages = r->size / page, first = pick(pages);

	*ret_size = (1 + pick(pages - first)) * page;
	return r->addr + first * page;
}

/*
 * Regions.
 */

static char *region_alias(const struct region *r, unsigned int half)
{
	return r->addr + ALIAS + half * r->size;
}

static void region_map_part(const struct region *r, char *addr, size_t size)
{
	off_t offset = (off_t)(r->half * r->size) + (addr - r->addr);

	switch (r->backing) {
	case ANON:
		map_anon((uintptr_t)addr, size, MADV_NOHUGEPAGE);
		break;
	case THP:
		map_anon((uintptr_t)addr, size, MADV_HUGEPAGE);
		break;
	case TLB:
		map_at((uintptr_t)addr, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGE, -1, 0);
		break;
	case SHARED:
		map_at((uintptr_t)addr, size, MAP_SHARED, r->fd, offset);
		break;
	case PRIVATE:
		map_at((uintptr_t)addr, size, MAP_PRIVATE, r->fd, offset);
		break;
	}
}

static void region_map(const struct region *r)
{
	region_map_part(r, r->addr, r->size);
}

static int open_file(size_t size)
{
	int fd = memfd_create("churn", 0);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		die("memfd");
	return fd;
}

/* The n-th region, in generation 1. */
static void region_init(struct region *r, unsigned int n)
{
	r->addr = (char *)(REGION + n * 16 * MIB);
	r->row = (struct churn_row *)STATUS + n;
	if (r->backing & (SHARED | PRIVATE)) {
		r->fd = open_file(2 * r->size);
		map_at((uintptr_t)r->addr + ALIAS, 2 * r->size, MAP_SHARED, r->fd, 0);
	}
	region_map(r);
	r->generation = 1;
	fill(r);
	r->row->started = r->row->finished = churn_number(r->generation);
}

/* This test's own test: what the reader is told is true. */
static void region_check(const struct region *r)
{
	const uint64_t *word = (const uint64_t *)r->addr;
	uint64_t tag = churn_tag(r->generation);

	for (size_t i = 0; i < r->size / sizeof(*word); i++)
		if (word[i] != churn_word((uintptr_t)&word[i], tag)) {
			fprintf(stderr, "churn: after %s %s has 0x%llx at %p, not tag 0x%llx\n",
				churn_op_names[(uint32_t)r->row->op], r->name,
				(unsigned long long)word[i], (const void *)&word[i],
				(unsigned long long)tag);
			exit(1);
		}
}

/*
 * What is done to them.
 */

static void op_rewrite(struct region *r)
{
	fill(r);
	/* All of it has been copied: of the file nothing is mapped. */
	if (r->backing == PRIVATE)
		scribble(region_alias(r, r->half), r->size, CHURN_FILE);
}

static void op_renew(struct region *r)
{
	if (pick(2))
		munmap(r->addr, r->size);
	region_map(r);
	fill(r);
}

static void op_move(struct region *r)
{
	void *stage = map_anon(STAGE, r->size, r->backing == THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);

	put_words(stage, (uintptr_t)r->addr, r->size, churn_tag(r->generation));
	if (mremap(stage, r->size, r->size, MREMAP_MAYMOVE | MREMAP_FIXED, r->addr) == MAP_FAILED)
		die("mremap");
}

static void reap(void)
{
	while (children && waitpid(-1, NULL, children < CHILDREN ? WNOHANG : 0) > 0)
		children--;
}

/* A child that writes to its copy of the region. */
static void fork_child(struct region *r)
{
	unsigned int before = pick(3) ? 0 : 1 + pick(2000), after = pick(2) ? 0 : 1 + pick(5000);
	pid_t parent = getpid(), pid;

	reap();
	pid = fork();
	if (pid > 0)
		children++;
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	usleep(before);
	scribble(r->addr, r->size, CHURN_CHILD);
	usleep(after);
	_exit(0);
}

static void op_fork(struct region *r)
{
	fork_child(r);
	fill(r);
}

static void op_forget(struct region *r)
{
	size_t size;
	char *part = pick_part(r, &size);

	if (madvise(part, size, pick(3) ? MADV_DONTNEED : MADV_FREE) < 0)
		die("madvise");
	fill(r);
}

static void op_hide(struct region *r)
{
	size_t size = r->size;
	char *part = r->backing == TLB ? r->addr : pick_part(r, &size);

	if (mprotect(part, size, PROT_NONE) < 0)
		die("mprotect");
	if (pick(2))
		nap(1000);
	if (mprotect(part, size, PROT_READ | PROT_WRITE) < 0)
		die("mprotect");
}

static void op_split(struct region *r)
{
	size_t size;
	char *part = pick_part(r, &size);

	munmap(part, size);
	region_map_part(r, part, size);
	fill(r);
}

static void op_recycle(struct region *r)
{
	char *junk;

	munmap(r->addr, r->size);
	junk = map_anon(JUNK, r->size, r->backing == THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	scribble(junk, r->size, CHURN_JUNK);
	if (pick(2))
		munmap(junk, r->size);
	region_map(r);
	fill(r);
}

/* Without another node to go to, whatever compaction thinks good. */
static void op_migrate(struct region *r)
{
	static void *pages[4 * MIB / 4096];
	static int nodes[4 * MIB / 4096], status[4 * MIB / 4096];
	unsigned long n = r->size / page;
	int node = (int)pick(2), fd;

	for (unsigned long i = 0; i < n; i++) {
		pages[i] = r->addr + i * page;
		nodes[i] = node;
	}
	if (access("/sys/devices/system/node/node1", F_OK) == 0) {
		if (syscall(SYS_move_pages, 0, n, pages, nodes, status, MOVE_ALL) < 0)
			die("move_pages");
		return;
	}
	if (pick(8))
		return;
	fd = open("/proc/sys/vm/compact_memory", O_WRONLY);
	if (fd < 0 && errno == ENOENT)
		return;		/* a kernel that moves no pages */
	if (fd < 0 || write(fd, "1", 1) < 0)
		die("compact_memory");
	close(fd);
}

static void op_collapse(struct region *r)
{
	madvise(r->addr, r->size, MADV_COLLAPSE);	/* as it can */
}

/* The other half of the file gets what belongs there, and becomes the region. */
static void use_other_half(struct region *r)
{
	r->half = !r->half;
	put_words(region_alias(r, r->half), (uintptr_t)r->addr, r->size, churn_tag(r->generation));
	if (pick(2)) {
		region_map(r);
		return;
	}
	map_at(STAGE, r->size, r->backing == SHARED ? MAP_SHARED : MAP_PRIVATE, r->fd,
	       (off_t)(r->half * r->size));
	if (mremap((void *)STAGE, r->size, r->size, MREMAP_MAYMOVE | MREMAP_FIXED, r->addr) ==
	    MAP_FAILED)
		die("mremap");
}

static void op_swap(struct region *r)
{
	use_other_half(r);
	scribble(region_alias(r, !r->half), r->size, CHURN_FILE);
}

static void op_punch(struct region *r)
{
	size_t size;
	char *part = pick_part(r, &size);

	if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(r->half * r->size) + (part - r->addr), (off_t)size) < 0)
		die("fallocate");
	fill(r);
}

static void op_cow(struct region *r)
{
	size_t size;
	char *part = pick_part(r, &size);

	use_other_half(r);
	put_words(part, (uintptr_t)part, size, churn_tag(r->generation));
	scribble(region_alias(r, r->half) + (part - r->addr), size, CHURN_FILE);
	scribble(region_alias(r, !r->half), r->size, CHURN_FILE);
}

static const struct op ops[CHURN_OPS] = {
	[CHURN_REWRITE] = {.backings = ANON | THP | TLB | SHARED | PRIVATE, .weight = 4,
			   .run = op_rewrite},
	[CHURN_RENEW] = {.gap = true, .backings = ANON | THP | TLB, .weight = 4, .run = op_renew},
	[CHURN_MOVE] = {.backings = ANON | THP, .weight = 6, .run = op_move},
	[CHURN_FORK] = {.backings = ANON | THP | TLB | PRIVATE, .weight = 4, .run = op_fork},
	[CHURN_LEND] = {.same = true, .backings = ANON | THP | TLB | PRIVATE, .weight = 4,
			.run = fork_child},
	[CHURN_FORGET] = {.gap = true, .backings = ANON | THP, .weight = 4, .run = op_forget},
	[CHURN_HIDE] = {.same = true, .backings = ANON | THP | TLB | SHARED | PRIVATE, .weight = 3,
			.run = op_hide},
	[CHURN_SPLIT] = {.gap = true, .backings = ANON | THP | SHARED, .weight = 4,
			 .run = op_split},
	[CHURN_RECYCLE] = {.gap = true, .backings = ANON | THP, .weight = 6, .run = op_recycle},
	[CHURN_MIGRATE] = {.same = true, .backings = ANON | THP | SHARED | PRIVATE, .weight = 2,
			   .run = op_migrate},
	[CHURN_COLLAPSE] = {.same = true, .backings = THP, .weight = 6, .run = op_collapse},
	[CHURN_SWAP] = {.backings = SHARED, .weight = 12, .run = op_swap},
	[CHURN_PUNCH] = {.gap = true, .backings = SHARED, .weight = 4, .run = op_punch},
	[CHURN_COW] = {.backings = PRIVATE, .weight = 12, .run = op_cow},
};

/* Only this one is to be.  Returns how many there are. */
static unsigned int region_choose(struct region *regions, unsigned int n, const char *name)
{
	for (unsigned int i = 0; i < n; i++)
		if (!strcmp(regions[i].name, name)) {
			regions[0] = regions[i];
			return 1;
		}
	fprintf(stderr, "churn: no region %s\n", name);
	exit(2);
}

static struct region *region_pick(struct region *regions, unsigned int n)
{
	unsigned int sum = 0, at;

	for (unsigned int i = 0; i < n; i++)
		sum += regions[i].weight;
	at = pick(sum);
	for (; at >= regions->weight; regions++)
		at -= regions->weight;
	return regions;
}

static enum churn_op op_pick(const struct region *r)
{
	unsigned int sum = 0, at;

	for (size_t i = 0; i < CHURN_OPS; i++)
		sum += ops[i].backings & r->backing ? ops[i].weight : 0;
	at = pick(sum);
	for (size_t i = 0;; i++) {
		unsigned int weight = ops[i].backings & r->backing ? ops[i].weight : 0;

		if (at < weight)
			return i;
		at -= weight;
	}
}

/* Stores stay in order: to volatile and by calls into the kernel, on a processor that keeps it. */
static void step(struct region *r)
{
	volatile struct churn_row *row = r->row;
	enum churn_op op = op_pick(r);

	row->op = churn_number(op);
	row->ops[op]++;
	if (ops[op].gap)
		row->gaps += churn_number(1);
	if (!ops[op].same) {
		r->generation++;
		row->log[r->generation % CHURN_LOG] = churn_number(op);
		row->started = churn_number(r->generation);
	}
	ops[op].run(r);
	row->finished = churn_number(r->generation);
	if (ops[op].gap)
		row->gaps += churn_number(1);
	if (!pick(16))
		region_check(r);
}

/*
 * Kinds.
 */

static void stay(void)
{
	fflush(stdout);
	for (;;)
		pause();
}

static void say_regions(const struct region *regions, unsigned int n)
{
	printf("pid=%d status=0x%lx regions=%u", getpid(), (unsigned long)STATUS, n);
	for (unsigned int i = 0; i < n; i++)
		printf(" name%u=%s addr%u=%p size%u=%zu", i, regions[i].name, i,
		       (void *)regions[i].addr, i, regions[i].size);
}

/* Returns how many there are of HUGE bytes. */
static long tlb_pages(void)
{
	FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "r+");
	long n = 0;

	if (!file)
		return 0;
	fprintf(file, "%d", TLB_PAGES);
	rewind(file);
	if (fscanf(file, "%ld", &n) != 1)
		n = 0;
	fclose(file);
	return n;
}

/* So many KiB, but at least some pages. */
static size_t size_of(size_t kib)
{
	size_t pages = kib * 1024 / page;

	return (pages < 4 ? 4 : pages) * page;
}

static void churn_run(char **args)
{
	struct region regions[] = {
		{.name = "tiny", .backing = ANON, .size = size_of(32), .weight = 30},
		{.name = "small", .backing = ANON, .size = size_of(160), .weight = 10},
		{.name = "large", .backing = ANON, .size = size_of(1200), .weight = 2},
		{.name = "shared", .backing = SHARED, .size = size_of(96), .weight = 20},
		{.name = "private", .backing = PRIVATE, .size = size_of(96), .weight = 20},
		{.name = "thp", .backing = THP, .size = HUGE, .weight = 4},
		/* Last: it may be missing. */
		{.name = "tlb", .backing = TLB, .size = HUGE, .weight = 2},
	};
	unsigned int n = sizeof(regions) / sizeof(regions[0]);

	random_state = args[0] ? strtoull(args[0], NULL, 0) : 0;
	if (!random_state) {
		fprintf(stderr, "churn: run SEED: not 0\n");
		exit(2);
	}
	if (tlb_pages() < TLB_PAGES)
		n--;
	if (args[1])
		n = region_choose(regions, n, args[1]);
	map_anon(STATUS, page, MADV_NOHUGEPAGE);
	for (unsigned int i = 0; i < n; i++)
		region_init(&regions[i], i);
	say_regions(regions, n);
	printf(" seed=%s\n", args[0]);
	fflush(stdout);
	for (;;) {
		step(region_pick(regions, n));
		if (!pick(3))
			nap(2000);
	}
}

/*
 * Has the memory of the program that was, and so keeps it from going away.  When the next
 * program has its own, this one is scribbled over.
 */
static int keep_memory(void *arg)
{
	const volatile struct churn_row *row = (struct churn_row *)STATUS;
	const uint64_t next = row->started;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (row->finished < next)
		usleep(200);
	scribble((void *)REGION, MIB, CHURN_CHILD);
	usleep(3000);
	_exit(0);
}

static void leave_memory(void)
{
	static char stack[65536] __attribute__((aligned(16)));

	if (clone(keep_memory, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL) < 0)
		die("clone");
}

/* The status page is of a file that goes along. */
static void churn_exec(char **args)
{
	struct region regions[] = {
		{.name = "large", .backing = ANON, .size = MIB},
		{.name = "small", .backing = ANON, .size = size_of(128)},
	};
	unsigned int n = sizeof(regions) / sizeof(regions[0]);
	bool first = !args[0];
	struct churn_row *rows;

	random_state = getpid() ^ (uintptr_t)&rows;
	if (first && dup2(open_file(page), STATUS_FD) < 0)
		die("dup2");
	rows = map_at(STATUS, page, MAP_SHARED, STATUS_FD, 0);
	for (unsigned int i = 0; i < n; i++) {
		struct region *r = &regions[i];
		volatile struct churn_row *row = &rows[i];

		if (first)
			row->started = row->gaps = churn_number(1);
		r->addr = (char *)(REGION + i * 16 * MIB);
		r->generation = (uint32_t)row->started;
		region_map(r);
		fill(r);
		row->finished = row->started;
		row->gaps += churn_number(1);
	}
	if (first) {
		say_regions(regions, n);
		printf("\n");
		fflush(stdout);
	}
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	nap(20000);
	for (unsigned int i = 0; i < n; i++) {
		volatile struct churn_row *row = &rows[i];

		row->op = row->log[(regions[i].generation + 1) % CHURN_LOG] = churn_number(CHURN_EXEC);
		row->ops[CHURN_EXEC]++;
		row->gaps += churn_number(1);
		row->started = churn_number(regions[i].generation + 1);
	}
	if (pick(2))
		leave_memory();
	execl("/proc/self/exe", "churn", "exec", "again", NULL);
	die("exec");
}

static void churn_brief(char **args)
{
	struct region r = {.name = "brief", .backing = ANON, .size = 8 * MIB};

	map_anon(STATUS, page, MADV_NOHUGEPAGE);
	region_init(&r, 0);
	say_regions(&r, 1);
	printf("\n");
	stay();
}

static void churn_stranger(char **args)
{
	random_state = getpid();
	printf("pid=%d\n", getpid());
	fflush(stdout);
	for (;;) {
		size_t size = page + pick(pick(8) ? 64 : 1024) * 4096 / page * page;
		char *p = map_anon(0, size, pick(2) ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);

		scribble(p, size, CHURN_STRANGER);
		munmap(p, size);
		nap(2000);
	}
}

/* Words of generation 1, page after page in an order that leaves no two frames together. */
static void fill_scattered(char *addr, size_t size)
{
	size_t pages = size / page;

	for (size_t i = 0; i < pages; i++) {
		char *at = addr + i * 1021 % pages * page;

		put_words(at, (uintptr_t)at, page, churn_tag(1));
	}
}

static char *still_filled(char *addr, size_t size)
{
	put_words(addr, (uintptr_t)addr, size, churn_tag(1));
	return addr;
}

static char *still_file(size_t size, int flags)
{
	int fd = open_file(size);
	char *addr = still_filled(map_at(0, size, MAP_SHARED, fd, 0), size);

	if (flags == MAP_SHARED)
		return addr;
	/* The file is about another place, but the pages written to are about this one. */
	addr = map_at(0, size, flags, fd, 0);
	for (size_t i = 0; i < size; i += 3 * page)
		still_filled(addr + i, page);
	return addr;
}

/* Mappings of all kinds, next to nothing. */
static void churn_still(char **args)
{
	const size_t size = 8 * MIB;
	char *scattered = map_anon(BASE + 64 * MIB, size, MADV_NOHUGEPAGE);
	char *huge = map_anon(BASE + 80 * MIB, size, MADV_HUGEPAGE);
	char *none = still_filled(map_anon(BASE + 96 * MIB, size, MADV_NOHUGEPAGE), size);
	char *untouched = map_anon(BASE + 112 * MIB, size, MADV_NOHUGEPAGE);
	char *holes = still_filled(map_anon(BASE + 128 * MIB, size, MADV_NOHUGEPAGE), size);
	char *tlb = NULL;

	fill_scattered(scattered, size);
	still_filled(huge, size);
	mprotect(none, size, PROT_NONE);
	if (tlb_pages() >= TLB_PAGES)
		tlb = still_filled(map_at(BASE + 144 * MIB, size, MAP_PRIVATE | MAP_ANONYMOUS |
					  MAP_HUGE, -1, 0), size);
	munmap(holes + MIB + 3 * page, page);
	munmap(holes + 5 * MIB, 3 * page);
	printf("pid=%d size=%zu scattered=%p huge=%p none=%p untouched=%p tlb=0x%lx shared=%p "
	       "private=%p holes=%p hole1=%p end1=%p hole2=%p end2=%p\n",
	       getpid(), size, (void *)scattered, (void *)huge, (void *)none, (void *)untouched,
	       (unsigned long)tlb, (void *)still_file(size, MAP_SHARED),
	       (void *)still_file(size, MAP_PRIVATE), (void *)holes,
	       (void *)(holes + MIB + 3 * page), (void *)(holes + MIB + 4 * page),
	       (void *)(holes + 5 * MIB), (void *)(holes + 5 * MIB + 3 * page));
	stay();
}

static bool is_above_4g(const char *addr)
{
	static int fd = -1;
	uint64_t entry;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY);
	if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)addr / page * sizeof(entry))) !=
	    sizeof(entry) || !(entry & 1ULL << 63))
		die("pagemap");
	return (entry & ((1ULL << 55) - 1)) >= (1ULL << 32) / page;
}

/* Memory below (0) and above (1) 4 GiB, half of the region each. */
static void find_both(char *found[2], size_t half)
{
	const size_t size = 64 * MIB;

	while (!found[0] || !found[1]) {
		char *chunk = map_anon(0, size, MADV_HUGEPAGE);

		for (size_t i = 0; i < size; i += page)
			chunk[i] = 1;
		for (size_t i = 0; i < size; i += half)
			if (is_above_4g(chunk + i) == is_above_4g(chunk + i + half - page))
				found[is_above_4g(chunk + i)] = chunk + i;
	}
}

static void churn_spread(char **args)
{
	const size_t size = 8 * MIB, part = 16 * page;
	char *region = map_anon(REGION, size, MADV_NOHUGEPAGE), *found[2] = {};
	unsigned int n[2] = {};

	find_both(found, size);
	for (size_t i = 0; i + part <= size; i += part)
		if (mremap(found[i / part % 2] + i, part, part, MREMAP_MAYMOVE | MREMAP_FIXED,
			   region + i) == MAP_FAILED)
			die("mremap");
	still_filled(region, size);
	for (size_t i = 0; i < size; i += page)
		n[is_above_4g(region + i)]++;
	printf("pid=%d region=%p size=%zu below=%u above=%u\n", getpid(), (void *)region, size,
	       n[0], n[1]);
	stay();
}

static const struct {
	const char *name;
	void (*run)(char **args);
} kinds[] = {
	{"brief", churn_brief},
	{"exec", churn_exec},
	{"run", churn_run},
	{"spread", churn_spread},
	{"still", churn_still},
	{"stranger", churn_stranger},
};

int main(int argc, char **argv)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; argc > 1 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(argv[1], kinds[i].name))
			kinds[i].run(argv + 2);
	fprintf(stderr, "usage: churn KIND [ARGUMENT]; see churn.c\n");
	return 2;
}
