/* SPDX-License-Identifier: MIT */
/*
 * churn_reader: reads the regions of churn.c through a mount, and checks for every byte
 * that it was at that address at some moment of the read.
 *
 *   churn_reader MEMFILE STATUS REGIONS ADDR SIZE [ADDR SIZE]... [OPTION]...
 *
 * Before and behind each read the region's row of the status page is read, through the
 * same mount: no byte may be older than what was finished before, or newer than what
 * had been started behind.  Exit status: 0 all is well, 1 something was read that was
 * not there, 2 the test itself is at fault, or has seen too little to mean anything.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "churn.h"

#define REGIONS_MAX	16
#define THREADS_MAX	16
#define PAGE		4096UL
#define READ_MIN	(16UL << 10)
#define READ_MAX	(1UL << 20)
#define IN_ORDER_MAX	16	/* reads one behind the other */
#define ROW_SECONDS	10	/* to get hold of a row that is always being written */

/*
 * A word that is read while it is written may be partly old, the more so as a guest that
 * sends what is not aligned copies it byte by byte.  In one read that happens where reader
 * and writer meet, or go side by side for a while; a page of such words is something else.
 */
#define TORN_MAX	256

struct region {
	uint64_t addr;
	size_t size;
	atomic_ulong reads;
	struct churn_row first;		/* before all reads */
};

/* What may end the reading before the time is up. */
enum end {
	END_NONE,
	END_GONE,	/* the process has exited */
	END_LOST,	/* the link is down */
};

struct counts {
	uint64_t reads, bytes, words, unaligned, in_order, gap_reads, short_reads, eio, zeros, torn,
		exact, rows, row_retries;
};

static struct {
	const char *path;
	uint64_t status;
	struct region regions[REGIONS_MAX];
	unsigned int n_regions;
	double seconds, at_most;	/* at_most: if the process has not done its steps until then */
	unsigned int threads;
	uint64_t seed, min_reads, min_words, min_steps, min_exact;
	bool ways[CHURN_OPS];	/* that steps are to have gone */
	enum end until;
	bool big_endian;	/* the guest */
} options = {
	.seconds = 4, .threads = 1, .seed = 1, .min_reads = 50, .min_words = 500000, .min_steps = 20,
};

static int shared_fd;
static struct timespec started;
static atomic_bool stop, violated, ended, enough;
static pthread_mutex_t print_lock = PTHREAD_MUTEX_INITIALIZER;

struct thread {
	pthread_t thread;
	unsigned int number;
	int fd, status_fd;
	uint64_t random;
	uint8_t *buf;
	struct counts counts;
};

/* A read, and what was known around it. */
struct sample {
	struct region *region;
	uint64_t addr;
	size_t size;
	ssize_t n;
	int error;
	double begin, end;
	struct churn_row before, after;
	uint32_t lo, hi;	/* generations that may be seen */
	bool gap;		/* zeros may be seen, or nothing */
};

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "churn_reader: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)(t.tv_sec - started.tv_sec) + (double)(t.tv_nsec - started.tv_nsec) / 1e9;
}

static uint64_t pick(struct thread *t, uint64_t n)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return (t->random >> 11) % n;
}

/*
 * Violations.
 */

static void print_row(const char *when, const struct churn_row *row)
{
	uint32_t last = (uint32_t)row->started;

	fprintf(stderr, "  %s: finished %u, started %u, gaps %u, last op %s; generations made by:",
		when, (uint32_t)row->finished, last, (uint32_t)row->gaps,
		churn_op_names[(uint32_t)row->op % CHURN_OPS]);
	for (uint32_t g = last < CHURN_LOG ? 1 : last - CHURN_LOG + 1; g <= last; g++)
		fprintf(stderr, " %u:%s", g, churn_op_names[(uint32_t)row->log[g % CHURN_LOG] % CHURN_OPS]);
	fprintf(stderr, "\n");
}

static void print_sample(const struct thread *t, const struct sample *s)
{
	fprintf(stderr, "  thread %u, region %td at %#" PRIx64 "+%#zx, read %#" PRIx64
		"+%#zx from %.6f to %.6f s: %zd%s%s\n", t->number, s->region - options.regions,
		s->region->addr, s->region->size, s->addr, s->size, s->begin, s->end, s->n,
		s->n < 0 ? " " : "", s->n < 0 ? strerror(s->error) : "");
	print_row("before", &s->before);
	print_row("after", &s->after);
	fprintf(stderr, "  allowed: generations %u to %u (tags 0x%04" PRIx64 " to 0x%04" PRIx64
		")%s\n", s->lo, s->hi, churn_tag(s->lo), churn_tag(s->hi), s->gap ? ", zero" : "");
}

/* The first thread that comes here is heard; all stop. */
static bool violation(const struct thread *t, const struct sample *s, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static bool violation(const struct thread *t, const struct sample *s, const char *format, ...)
{
	va_list args;

	pthread_mutex_lock(&print_lock);
	if (!atomic_exchange(&violated, true)) {
		fprintf(stderr, "VIOLATION: ");
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		fprintf(stderr, "\n");
		print_sample(t, s);
	}
	atomic_store(&stop, true);
	pthread_mutex_unlock(&print_lock);
	return false;
}

/*
 * The check.
 */

static bool tag_is_allowed(const struct sample *s, uint64_t tag)
{
	uint32_t behind;

	if (tag == 0 || tag > CHURN_TAGS)
		return false;
	behind = (uint32_t)((tag - 1 + CHURN_TAGS - s->lo % CHURN_TAGS) % CHURN_TAGS);
	return behind <= s->hi - s->lo;
}

/* A word as the guest has it in memory. */
static uint64_t guest_word(uint64_t word)
{
	return options.big_endian ? be64toh(word) : le64toh(word);
}

/* Which of its bytes, from the lowest on, is at addr. */
static unsigned int byte_at(uint64_t addr)
{
	return options.big_endian ? 7 - (addr & 7) : addr & 7;
}

static uint8_t byte_of(uint64_t word, unsigned int i)
{
	return (uint8_t)(word >> 8 * i);
}

/* Of a word at addr its i-th byte, by itself. */
static bool byte_is_allowed(const struct sample *s, uint64_t addr, unsigned int i, uint8_t byte)
{
	if (s->gap && byte == 0)
		return true;
	if (8 * i < CHURN_ADDR_BITS)
		return byte == byte_of(addr & CHURN_ADDR_MASK, i);
	for (uint32_t g = s->lo; g - s->lo <= s->hi - s->lo && g - s->lo < 256 * 256; g++)
		if (byte == byte_of(churn_word(addr, churn_tag(g)), i))
			return true;
	return false;
}

enum verdict { GOOD, ZERO, TORN, BAD };

static enum verdict check_word(const struct sample *s, uint64_t addr, uint64_t word)
{
	if ((word & CHURN_ADDR_MASK) == (addr & CHURN_ADDR_MASK) &&
	    tag_is_allowed(s, word >> CHURN_ADDR_BITS))
		return GOOD;
	if (word == 0)
		return s->gap ? ZERO : BAD;
	for (unsigned int i = 0; i < sizeof(word); i++)
		if (!byte_is_allowed(s, addr, i, byte_of(word, i)))
			return BAD;
	return TORN;
}

static const char *describe(const struct sample *s, uint64_t addr, uint64_t word)
{
	uint64_t tag = word >> CHURN_ADDR_BITS;

	if (word == 0)
		return "zero without a gap";
	switch (tag) {
	case CHURN_CHILD: return "what a child wrote to its copy";
	case CHURN_FILE: return "of a file's page that was no longer mapped there";
	case CHURN_JUNK: return "of other memory of the process";
	case CHURN_STRANGER: return "of another process";
	}
	if (tag > CHURN_TAGS || tag == 0)
		return "no word of churn";
	if ((word ^ addr) & CHURN_ADDR_MASK)
		return "of another address";
	return (tag - churn_tag(s->hi) + CHURN_TAGS) % CHURN_TAGS < CHURN_TAGS / 2 ?
		"of a generation that had not begun" : "of a generation that was over";
}

/* Where else the read is wrong, and what is there now. */
static void print_bad(struct thread *t, const struct sample *s, uint64_t first)
{
	uint64_t page = UINT64_MAX, word, again;
	size_t bad = 0, pages = 0;

	pthread_mutex_lock(&print_lock);
	fprintf(stderr, "  pages with bad words:");
	for (uint64_t at = first; at + 8 <= s->addr + (size_t)s->n; at += 8) {
		memcpy(&word, t->buf + (at - s->addr), sizeof(word));
		word = guest_word(word);
		if (check_word(s, at, word) != BAD)
			continue;
		bad++;
		if (at / PAGE != page && pages++ < 16)
			fprintf(stderr, " %#" PRIx64 ":0x%016" PRIx64, at, word);
		page = at / PAGE;
	}
	fprintf(stderr, "\n  %zu bad words in %zu pages\n", bad, pages);
	if (pread(t->status_fd, &again, sizeof(again), (off_t)first) == sizeof(again))
		fprintf(stderr, "  the first one is now 0x%016" PRIx64 "\n", guest_word(again));
	pthread_mutex_unlock(&print_lock);
}

static bool check_bytes(struct thread *t, const struct sample *s, uint64_t addr, size_t n)
{
	for (; n; addr++, n--) {
		uint8_t byte = t->buf[addr - s->addr];

		if (!byte_is_allowed(s, addr & ~7ULL, byte_at(addr), byte))
			return violation(t, s, "byte at %#" PRIx64 " is 0x%02x", addr, byte);
	}
	return true;
}

static bool check_words(struct thread *t, const struct sample *s, uint64_t addr, size_t n)
{
	unsigned int torn = 0;
	uint64_t word;

	for (size_t i = 0; i < n; i += sizeof(word)) {
		memcpy(&word, t->buf + (addr + i - s->addr), sizeof(word));
		word = guest_word(word);
		switch (check_word(s, addr + i, word)) {
		case GOOD:
			break;
		case ZERO:
			t->counts.zeros++;
			break;
		case TORN:
			t->counts.torn++;
			if (++torn <= TORN_MAX)
				break;
			return violation(t, s, "%u words are partly old", torn);
		case BAD:
			violation(t, s, "word at %#" PRIx64 " is 0x%016" PRIx64 ", %s", addr + i,
				  word, describe(s, addr + i, word));
			print_bad(t, s, addr + i);
			return false;
		}
	}
	t->counts.words += n / sizeof(word);
	return true;
}

static bool check_data(struct thread *t, const struct sample *s)
{
	uint64_t end = s->addr + (size_t)s->n, first = (s->addr + 7) & ~7ULL, last = end & ~7ULL;

	return check_bytes(t, s, s->addr, first - s->addr) &&
	       check_words(t, s, first, last - first) && check_bytes(t, s, last, end - last);
}

/*
 * Rows.
 */

static bool is_end(ssize_t n, int error)
{
	bool is = false;

	if (options.until == END_GONE)
		is = n == 0 || (n < 0 && error == ESRCH);
	else if (options.until == END_LOST)
		is = n < 0 && (error == ENOTCONN || error == ETIMEDOUT);
	if (is) {
		atomic_store(&ended, true);
		atomic_store(&stop, true);
	}
	return is;
}

static void row_decode(struct churn_row *row)
{
	uint64_t *words = (uint64_t *)row;

	for (size_t i = 0; i < sizeof(*row) / sizeof(*words); i++)
		words[i] = guest_word(words[i]);
}

static bool row_is_whole(const struct churn_row *row)
{
	return churn_number_is_whole(row->started) && churn_number_is_whole(row->finished) &&
	       churn_number_is_whole(row->gaps);
}

/* false: the reading has ended.  A process that executes a program has no page for a moment. */
static bool row_read(struct thread *t, const struct region *region, struct churn_row *ret)
{
	uint64_t addr = options.status + (uint64_t)(region - options.regions) * sizeof(*ret);
	double end = now() + ROW_SECONDS;
	ssize_t n;

	do {
		errno = 0;
		n = pread(t->status_fd, ret, sizeof(*ret), (off_t)addr);
		t->counts.rows++;
		row_decode(ret);
		if (n == sizeof(*ret) && row_is_whole(ret))
			return true;
		if (is_end(n, errno))
			return false;
		if (n < 0 && errno != EIO)
			fail("the status page: %s", strerror(errno));
		t->counts.row_retries++;
		usleep(200);
	} while (now() < end);
	fail("no row of the status page in %d s: %zd", ROW_SECONDS, n);
}

/*
 * Reading.
 */

static void sample_judge(struct sample *s)
{
	s->lo = (uint32_t)s->before.finished;
	s->hi = (uint32_t)s->after.started;
	s->gap = (s->before.gaps & 1) || s->before.gaps != s->after.gaps;
	if (s->hi < s->lo)
		fail("generation %u has started and %u was finished", s->hi, s->lo);
}

static bool sample_check(struct thread *t, struct sample *s)
{
	sample_judge(s);
	t->counts.reads++;
	t->counts.exact += s->lo == s->hi;
	t->counts.gap_reads += s->gap;
	t->counts.unaligned += s->addr % 8 != 0;
	s->region->reads++;
	if (s->n < 0) {
		t->counts.eio++;
		return (s->gap && s->error == EIO) || violation(t, s, "the read fails");
	}
	t->counts.bytes += (uint64_t)s->n;
	if ((size_t)s->n < s->size) {
		t->counts.short_reads++;
		if (!atomic_load(&ended) && (!s->gap || s->n == 0))
			return violation(t, s, "the read is short");
	}
	return check_data(t, s);
}

/* One read.  false: no more. */
static bool sample_take(struct thread *t, struct region *region, uint64_t addr, size_t size)
{
	struct sample s = { .region = region, .addr = addr, .size = size };

	if (!row_read(t, region, &s.before))
		return false;
	memset(t->buf, 0x55, size);
	s.begin = now();
	s.n = pread(t->fd, t->buf, size, (off_t)addr);
	s.error = errno;
	s.end = now();
	if (is_end(s.n, s.error))
		return false;
	/* A process that has gone meanwhile was as it was: those that go do not change. */
	if (!row_read(t, region, &s.after))
		s.after = s.before;
	return sample_check(t, &s) && !atomic_load(&stop);
}

static size_t pick_size(struct thread *t, size_t max)
{
	size_t size = READ_MIN << pick(t, 7);

	if (pick(t, 2))
		size = READ_MIN + pick(t, READ_MAX - READ_MIN + 1);
	return size < max ? size : max;
}

/* Anywhere, from the edge of a page, of a word or of neither. */
static uint64_t pick_offset(struct thread *t, uint64_t max)
{
	static const uint64_t edges[] = { PAGE, 8, 1 };
	uint64_t edge = edges[pick(t, 3)];

	return pick(t, max + 1) / edge * edge;
}

static bool read_anywhere(struct thread *t, struct region *r)
{
	size_t size = pick_size(t, r->size);

	return sample_take(t, r, r->addr + pick_offset(t, r->size - size), size);
}

static bool read_in_order(struct thread *t, struct region *r)
{
	static const size_t sizes[] = { 4096, 16384, 50001, 65536, 262144 };
	size_t size = sizes[pick(t, 5)];
	uint64_t offset = pick_offset(t, r->size - READ_MIN);

	for (unsigned int i = 0; i < IN_ORDER_MAX && offset < r->size; i++, offset += size) {
		size_t n = size < r->size - offset ? size : (size_t)(r->size - offset);

		t->counts.in_order++;
		if (!sample_take(t, r, r->addr + offset, n))
			return false;
	}
	return true;
}

/* Steps of all regions since the beginning; 0 if that cannot be known any more. */
static uint64_t count_steps(struct thread *t, uint64_t ops[CHURN_OPS])
{
	uint64_t steps = 0;
	struct churn_row row;

	for (unsigned int i = 0; i < options.n_regions; i++) {
		if (!row_read(t, &options.regions[i], &row))
			return 0;
		steps += (uint32_t)row.finished - (uint32_t)options.regions[i].first.finished;
		for (size_t op = 0; op < CHURN_OPS; op++)
			ops[op] += row.ops[op] - options.regions[i].first.ops[op];
	}
	return steps;
}

static bool steps_suffice(struct thread *t)
{
	uint64_t ops[CHURN_OPS] = {};

	if (count_steps(t, ops) < options.min_steps)
		return false;
	for (size_t op = 0; op < CHURN_OPS; op++)
		if (options.ways[op] && !ops[op])
			return false;
	return true;
}

/*
 * The time is up.  A guest whose only processor has been busy with what is asked of it
 * may not have come to its steps: then it is asked less often, until it has.
 */
static bool is_over(struct thread *t)
{
	if (options.until != END_NONE || atomic_load(&enough) || now() >= options.at_most)
		return true;
	if (t->number == 0 && steps_suffice(t))
		atomic_store(&enough, true);
	usleep(20000);
	return false;
}

static void *thread_run(void *arg)
{
	struct thread *t = arg;
	bool go_on = true;

	while (go_on && !atomic_load(&stop) && (now() < options.seconds || !is_over(t))) {
		struct region *r = &options.regions[pick(t, options.n_regions)];

		go_on = pick(t, 4) ? read_anywhere(t, r) : read_in_order(t, r);
	}
	return NULL;
}

static int open_mem(void)
{
	int fd = open(options.path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("%s: %s", options.path, strerror(errno));
	return fd;
}

/* Every other thread has a file of its own. */
static void thread_init(struct thread *t, unsigned int number)
{
	t->number = number;
	t->random = options.seed * 1000003 + number + 1;
	t->fd = number % 2 ? open_mem() : shared_fd;
	t->status_fd = open_mem();
	t->buf = malloc(READ_MAX);
	if (!t->buf)
		fail("no memory");
}

/*
 * The result.
 */

static void print_counts(const struct counts *c, double seconds, uint64_t steps,
			 const uint64_t ops[CHURN_OPS])
{
	printf("seconds=%.2f reads=%" PRIu64 " bytes=%" PRIu64 " mb_s=%.1f words=%" PRIu64
	       " unaligned=%" PRIu64 " in_order=%" PRIu64 " exact=%" PRIu64 " gap=%" PRIu64
	       " short=%" PRIu64 " eio=%" PRIu64 " zeros=%" PRIu64 " torn=%" PRIu64 " rows=%" PRIu64
	       " row_retries=%" PRIu64 " steps=%" PRIu64, seconds, c->reads, c->bytes,
	       (double)c->bytes / 1e6 / seconds, c->words, c->unaligned, c->in_order, c->exact,
	       c->gap_reads, c->short_reads, c->eio, c->zeros, c->torn, c->rows, c->row_retries,
	       steps);
	for (size_t op = 0; op < CHURN_OPS; op++)
		if (ops[op])
			printf(" %s=%" PRIu64, churn_op_names[op], ops[op]);
	printf("\n");
	fflush(stdout);
}

static void require(const char *what, uint64_t is, uint64_t min)
{
	if (is < min)
		fail("too little to mean anything: %" PRIu64 " %s, less than %" PRIu64, is, what,
		     min);
}

static void require_steps(uint64_t steps, const uint64_t ops[CHURN_OPS])
{
	require("steps", steps, options.min_steps);
	for (size_t op = 0; op < CHURN_OPS; op++)
		if (options.ways[op])
			require(churn_op_names[op], ops[op], 1);
}

static void require_minimums(const struct counts *c, uint64_t steps, const uint64_t ops[CHURN_OPS])
{
	require("reads", c->reads, options.min_reads);
	require("words checked", c->words, options.min_words);
	require("reads of what did not change", c->exact, options.min_exact);
	if (options.until == END_NONE)
		require_steps(steps, ops);
	else if (!atomic_load(&ended))
		fail("the process, or the link, was to end, and has not");
	for (unsigned int i = 0; i < options.n_regions; i++)
		require("reads of one region", options.regions[i].reads,
			options.min_reads / options.n_regions / 4);
}

static void counts_add(struct counts *sum, const struct counts *c)
{
	const uint64_t *from = (const uint64_t *)c;
	uint64_t *to = (uint64_t *)sum;

	for (size_t i = 0; i < sizeof(*c) / sizeof(*from); i++)
		to[i] += from[i];
}

static int run(void)
{
	struct thread threads[THREADS_MAX] = {};
	uint64_t ops[CHURN_OPS] = {}, steps;
	struct counts sum = {};
	double seconds;
	int rc;

	shared_fd = open_mem();
	for (unsigned int i = 0; i < options.threads; i++)
		thread_init(&threads[i], i);
	for (unsigned int i = 0; i < options.n_regions; i++)
		if (!row_read(&threads[0], &options.regions[i], &options.regions[i].first))
			fail("it has ended before it began");
	clock_gettime(CLOCK_MONOTONIC, &started);
	for (unsigned int i = 0; i < options.threads; i++) {
		rc = pthread_create(&threads[i].thread, NULL, thread_run, &threads[i]);
		if (rc)
			fail("pthread_create: %s", strerror(rc));
	}
	for (unsigned int i = 0; i < options.threads; i++) {
		pthread_join(threads[i].thread, NULL);
		counts_add(&sum, &threads[i].counts);
	}
	seconds = now();
	steps = options.until == END_NONE ? count_steps(&threads[0], ops) : 0;
	print_counts(&sum, seconds, steps, ops);
	for (unsigned int i = 0; i < options.threads; i++)
		free(threads[i].buf);
	if (atomic_load(&violated))
		return 1;
	require_minimums(&sum, steps, ops);
	return 0;
}

static uint64_t parse_number(const char *text)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = text ? strtoull(text, &end, 0) : 0;
	if (!text || errno || end == text || *end)
		fail("not a number: %s", text ? text : "nothing");
	return n;
}

static enum end parse_end(const char *text)
{
	if (strcmp(text, "gone") == 0)
		return END_GONE;
	if (strcmp(text, "lost") == 0)
		return END_LOST;
	fail("--until gone, or lost");
}

/* Names, with commas between them. */
static void parse_ways(char *text)
{
	for (char *name = strtok(text, ","); name; name = strtok(NULL, ",")) {
		size_t op = 0;

		while (op < CHURN_OPS && strcmp(name, churn_op_names[op]) != 0)
			op++;
		if (op == CHURN_OPS)
			fail("no way to change memory: %s", name);
		options.ways[op] = true;
	}
}

static void parse_option(int c, char *arg)
{
	switch (c) {
	case 's': options.seconds = (double)parse_number(arg); break;
	case 't': options.threads = (unsigned int)parse_number(arg); break;
	case 'r': options.seed = parse_number(arg); break;
	case 'A': options.at_most = (double)parse_number(arg); break;
	case 'R': options.min_reads = parse_number(arg); break;
	case 'W': options.min_words = parse_number(arg); break;
	case 'S': options.min_steps = parse_number(arg); break;
	case 'w': parse_ways(arg); break;
	case 'E': options.min_exact = parse_number(arg); break;
	case 'u': options.until = parse_end(arg); break;
	case 'b': options.big_endian = true; break;
	default: fail("usage: see churn_reader.c");
	}
}

static void parse_regions(char **args)
{
	options.path = args[0];
	if (!options.path)
		fail("usage: see churn_reader.c");
	options.status = parse_number(args[1]);
	options.n_regions = (unsigned int)parse_number(args[2]);
	if (options.n_regions < 1 || options.n_regions > REGIONS_MAX)
		fail("%u regions", options.n_regions);
	for (unsigned int i = 0; i < options.n_regions; i++) {
		options.regions[i].addr = parse_number(args[3 + 2 * i]);
		options.regions[i].size = parse_number(args[4 + 2 * i]);
		if (options.regions[i].size < READ_MIN)
			fail("a region that is too small");
	}
	if (args[3 + 2 * options.n_regions])
		fail("more than %u regions", options.n_regions);
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "seed", required_argument, NULL, 'r' },
		{ "min-reads", required_argument, NULL, 'R' },
		{ "min-words", required_argument, NULL, 'W' },
		{ "min-steps", required_argument, NULL, 'S' },
		{ "ways", required_argument, NULL, 'w' },
		{ "min-exact", required_argument, NULL, 'E' },
		{ "at-most", required_argument, NULL, 'A' },
		{ "until", required_argument, NULL, 'u' },
		{ "big-endian", no_argument, NULL, 'b' },
		{}
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
		parse_option(c, optarg);
	if (options.threads < 1 || options.threads > THREADS_MAX)
		fail("%u threads", options.threads);
	parse_regions(argv + optind);
	return run();
}
