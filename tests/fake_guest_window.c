// SPDX-License-Identifier: MIT
/*
 * fake_guest_window: RAM that can be seen from outside, true or not.
 *
 * This process is both QEMU and the guest: a piece of its memory is the RAM, and a
 * translation copies the memory of a process there, as it is then.  So what changes
 * afterwards is not seen, as it would be in a guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fake_guest_priv.h"

#define RAM_ADDR 0x40000000ULL		/* guest-physical */
#define RAM_SIZE (64 * 1024 * 1024)
#define RAM_ALIGN (2 * 1024 * 1024)
#define PAGE 4096
#define WORDS 128
#define FIRST_PAGE 16			/* for translations; page 0: proof and words, 1: mm */

static struct ram {
	GMutex lock;
	uint8_t *bytes;			/* RAM_SIZE */
	size_t page;			/* next to use */
	unsigned int hold;
	bool proven;
} the_ram;

/* With the lock held. */
static uint8_t *ram_get(void)
{
	uint8_t *area;

	if (the_ram.bytes)
		return the_ram.bytes;
	area = mmap(NULL, RAM_SIZE + RAM_ALIGN, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	g_assert(area != MAP_FAILED);
	the_ram.bytes = area + RAM_ALIGN - (uintptr_t)area % RAM_ALIGN;
	the_ram.page = FIRST_PAGE;
	memcpy(the_ram.bytes + PAGE, "mm of it", 8);
	return the_ram.bytes;
}

static void window_reply(struct frame *reply, uint64_t challenge, enum window_lie lie)
{
	struct hypermem_ram ram = {
		.start = GUINT64_TO_LE(RAM_ADDR),
		.end = GUINT64_TO_LE(RAM_ADDR + RAM_SIZE),
		.proof = GUINT64_TO_LE(RAM_ADDR),
	};
	struct hypermem_proof proof = {
		.challenge = GUINT64_TO_LE(lie == WINDOW_NO_PROOF ? ~challenge : challenge),
		.addr = GUINT64_TO_LE(RAM_ADDR),
	};

	if (lie != WINDOW_OLD_PROOF || !the_ram.proven)
		memcpy(ram_get(), &proof, sizeof(proof));
	the_ram.proven = true;
	if (lie == WINDOW_BAD_RAM)
		ram.end = ram.start;
	g_byte_array_append(reply->data, (const guint8 *)&ram, sizeof(ram));
}

/* Copy n pages of the process into RAM; how many there are. */
static size_t copy_pages(int mem, uint64_t addr, size_t n)
{
	size_t got = 0;

	if (the_ram.page + n > RAM_SIZE / PAGE)
		the_ram.page = FIRST_PAGE;
	while (got < n && pread(mem, the_ram.bytes + (the_ram.page + got) * PAGE, PAGE,
				(off_t)(addr + got * PAGE)) == PAGE)
		got++;
	return got;
}

static void hold_append(GByteArray *data, size_t pages, enum window_lie lie)
{
	unsigned int hold = the_ram.hold++ % WORDS;
	uint64_t generation = the_ram.hold + 1000, run, addr;
	uint64_t word = GUINT64_TO_LE(lie == WINDOW_STALE ? 0 : generation);
	struct hypermem_hold raw = {
		.generation = GUINT64_TO_LE(generation),
		.word = GUINT64_TO_LE(RAM_ADDR + 16 + 8 * hold),
		.mm_addr = GUINT64_TO_LE(RAM_ADDR + PAGE),
		.mm_size = GUINT32_TO_LE(8),
		.pages = GUINT32_TO_LE(lie == WINDOW_BAD_HOLD ? pages + 1 : pages),
	};

	memcpy(the_ram.bytes + 16 + 8 * hold, &word, sizeof(word));
	memcpy(raw.mm, lie == WINDOW_EXEC ? "mm of no" : "mm of it", 8);
	g_byte_array_append(data, (const guint8 *)&raw, sizeof(raw));
	addr = RAM_ADDR + the_ram.page * PAGE;
	for (size_t i = 0; i < pages; i++) {
		if (i == 1 && lie == WINDOW_OUTSIDE)	/* only the first page is RAM */
			addr = RAM_ADDR + RAM_SIZE;
		if (i == 1 && lie == WINDOW_FAR_OUTSIDE)
			addr = 0xfffffffff000ULL - pages * PAGE;
		run = GUINT64_TO_LE(addr + i * PAGE);
		g_byte_array_append(data, (const guint8 *)&run, sizeof(run));
	}
	the_ram.page += pages;
}

static int translate_reply(struct request *request, struct frame *reply, enum window_lie lie)
{
	uint64_t addr = request->frame.addr, start = addr / PAGE * PAGE;
	size_t want = MIN((addr - start + request->frame.size + PAGE - 1) / PAGE, 1000), got;
	int mem = openat(request->dir, "mem", O_RDONLY | O_CLOEXEC);

	if (mem < 0)
		return -errno;
	got = copy_pages(mem, start, want);
	close(mem);
	if (got)
		hold_append(reply->data, got, lie);
	return got == want ? 0 : -EIO;
}

void window_answer(struct request *request, struct frame *reply, int64_t lie)
{
	int rc = 0;

	if (request->frame.op != HYPER_OP_WINDOW && request->frame.op != HYPER_OP_TRANSLATE)
		return;
	if (request->frame.op == HYPER_OP_TRANSLATE && request->dir < 0)
		return;
	g_mutex_lock(&the_ram.lock);
	g_byte_array_set_size(reply->data, 0);
	ram_get();
	if (request->frame.op == HYPER_OP_WINDOW)
		window_reply(reply, request->frame.addr, lie);
	else
		rc = translate_reply(request, reply, lie);
	g_mutex_unlock(&the_ram.lock);
	reply->op = rc == 0 ? HYPER_RESP_READ_OK :
		    reply->data->len ? HYPER_RESP_READ_PARTIAL : HYPER_RESP_READ_FAIL;
	reply->addr = rc == 0 ? request->frame.addr : (uint64_t)-rc;
}
