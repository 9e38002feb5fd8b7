// SPDX-License-Identifier: MIT
/*
 * ram: guest RAM seen from the host.  See ram.h.
 */
#include "bridge/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * Smaller memory than this is no guest's RAM, nor is memory so many times larger than
 * what the guest says it has: a QEMU built with sanitizers has terabytes.  But a kernel
 * may use little of what there is.
 */
#define AREA_MIN (1024 * 1024)
#define AREA_MAX_TIMES 4
#define AREA_MAX_LEAST (16ULL << 30)

/*
 * Where in an area of QEMU's a page can be: RAM begins at a multiple of this in the
 * guest, and in QEMU at a multiple of it or where the area begins.
 */
static const uint64_t strides[] = { 2 * 1024 * 1024, 64 * 1024 };

/* So long the search may take, whatever the guest says of its RAM. */
#define SEARCH_TIME G_TIME_SPAN_SECOND
#define SEARCH_STEP 4096	/* pages between looks at the clock */

#define RUNS_MAX 1000		/* in one process_vm_readv(), which takes 1024 (UIO_MAXIOV) */

#define PAGEMAP_PRESENT (1ULL << 63)

/* A search for proofs. */
struct search {
	pid_t pid;
	int pagemap;
	uint64_t challenge;
	int64_t deadline;
	uint32_t looked;	/* pages */
};

/* Writable memory of QEMU's. */
struct area {
	uint64_t start;
	uint64_t end;
};

/* A range of guest-physical addresses, at offset `shift` in QEMU's memory. */
struct piece {
	struct hm_ram ram;
	uint64_t shift;		/* modulo 2^64 */
};

struct hm_window {
	pid_t pid;
	GArray *pieces;
};

static ssize_t peek(pid_t pid, uint64_t addr, void *buf, size_t size)
{
	struct iovec local = { buf, size }, remote = { (void *)(uintptr_t)addr, size };
	ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

	return n < 0 ? -errno : n;
}

static int areas_read(pid_t pid, uint64_t max, GArray **ret)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/maps", (int)pid);
	g_autoptr(GArray) areas = g_array_new(FALSE, FALSE, sizeof(struct area));
	g_autofree char *line = NULL;
	size_t room = 0;
	FILE *maps = fopen(path, "re");

	if (!maps)
		return errno == ENOENT ? -ESRCH : errno == EACCES ? -EPERM : -errno;
	while (getline(&line, &room, maps) > 0) {
		struct area area;
		char perms[5];

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &area.start, &area.end, perms) == 3 &&
		    perms[0] == 'r' && perms[1] == 'w' && area.end - area.start >= AREA_MIN &&
		    area.end - area.start <= max)
			g_array_append_val(areas, area);
	}
	fclose(maps);
	*ret = g_steal_pointer(&areas);
	return 0;
}

/* Looking at memory that is not there yet would make it: the guest's RAM would grow. */
static bool is_present(int pagemap, uint64_t addr)
{
	uint64_t entry;
	off_t offset = (off_t)(addr / (uint64_t)getpagesize() * sizeof(entry));

	return pread(pagemap, &entry, sizeof(entry), offset) == sizeof(entry) &&
	       (entry & PAGEMAP_PRESENT);
}

static bool shows(pid_t pid, uint64_t addr, uint64_t challenge, uint64_t proof)
{
	uint8_t want[sizeof(struct hypermem_proof)], is[sizeof(want)];

	hm_proof_encode(challenge, proof, want);
	return peek(pid, addr, is, sizeof(is)) == sizeof(is) && memcmp(is, want, sizeof(is)) == 0;
}

/* -ETIMEDOUT: to stop. */
static int search_check(struct search *search)
{
	if (++search->looked % SEARCH_STEP)
		return 0;
	return g_get_monotonic_time() < search->deadline ? 0 : -ETIMEDOUT;
}

/*
 * The range, as far as it lies in the area, whose proof is at `first` or a multiple of
 * `stride` behind it; -ENOENT: it is not there.
 */
static int area_search(struct search *search, const struct area *area, const struct hm_ram *ram,
		       uint64_t first, uint64_t stride, struct piece *ret)
{
	uint64_t size = sizeof(struct hypermem_proof);

	for (uint64_t addr = first; addr < area->end && area->end - addr >= size; addr += stride) {
		int rc = search_check(search);

		if (rc)
			return rc;
		if (!is_present(search->pagemap, addr) ||
		    !shows(search->pid, addr, search->challenge, ram->proof))
			continue;
		*ret = (struct piece){ .ram = *ram, .shift = addr - ram->proof };
		ret->ram.start = ram->proof - MIN(ram->proof - ram->start, addr - area->start);
		ret->ram.end = ram->proof + MIN(ram->end - ram->proof, area->end - addr);
		return 0;
	}
	return -ENOENT;
}

/* RAM that begins at a multiple of stride in QEMU, or where the area begins. */
static int area_search_both(struct search *search, const struct area *area,
			    const struct hm_ram *ram, uint64_t stride, struct piece *ret)
{
	uint64_t offset = ram->proof % stride, start = area->start / stride * stride;
	int rc;

	if (start + offset < area->start)
		start += stride;
	rc = area_search(search, area, ram, start + offset, stride, ret);
	if (rc == -ENOENT && area->start % stride)
		rc = area_search(search, area, ram, area->start + offset, stride, ret);
	return rc;
}

static int ram_search(struct search *search, const GArray *areas, const struct hm_ram *ram,
		      struct piece *ret)
{
	int rc = -ENOENT;

	for (size_t s = 0; s < G_N_ELEMENTS(strides); s++)
		for (guint i = 0; i < areas->len && rc == -ENOENT; i++)
			rc = area_search_both(search, &g_array_index(areas, struct area, i), ram,
					      strides[s], ret);
	return rc;
}

static int window_check_access(pid_t pid, const GArray *areas)
{
	uint8_t byte;
	ssize_t n;

	if (areas->len == 0)
		return -ENOENT;
	n = peek(pid, g_array_index(areas, struct area, 0).start, &byte, 1);
	return n == -EPERM || n == -ESRCH ? (int)n : 0;
}

static uint64_t area_max(const struct hm_ram *rams, size_t n)
{
	uint64_t end = AREA_MAX_LEAST / AREA_MAX_TIMES;

	for (size_t i = 0; i < n; i++)
		end = MAX(end, rams[i].end);
	return end < UINT64_MAX / AREA_MAX_TIMES ? end * AREA_MAX_TIMES : UINT64_MAX;
}

int hm_window_find(pid_t pid, const struct hm_ram *rams, size_t n, uint64_t challenge,
		   struct hm_window **ret)
{
	struct search search = { .pid = pid, .challenge = challenge,
				 .deadline = g_get_monotonic_time() + SEARCH_TIME };
	g_autofree char *path = g_strdup_printf("/proc/%d/pagemap", (int)pid);
	g_autoptr(GArray) pieces = g_array_new(FALSE, FALSE, sizeof(struct piece));
	g_autoptr(GArray) areas = NULL;
	struct piece piece;
	int rc;

	rc = areas_read(pid, area_max(rams, n), &areas);
	if (rc == 0)
		rc = window_check_access(pid, areas);
	if (rc)
		return rc;
	search.pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (search.pagemap < 0)
		return errno == EACCES ? -EPERM : errno == ENOENT ? -ESRCH : -errno;
	for (size_t i = 0; i < n && (rc == 0 || rc == -ENOENT); i++) {
		rc = ram_search(&search, areas, &rams[i], &piece);
		if (rc == 0)
			g_array_append_val(pieces, piece);
	}
	close(search.pagemap);
	if (pieces->len == 0)
		return -ENOENT;
	*ret = g_atomic_rc_box_new0(struct hm_window);
	(*ret)->pid = pid;
	(*ret)->pieces = g_steal_pointer(&pieces);
	return 0;
}

int hm_window_confirm(struct hm_window *window, uint64_t challenge)
{
	for (guint i = window->pieces->len; i > 0; i--) {
		const struct piece *piece = &g_array_index(window->pieces, struct piece, i - 1);

		if (!shows(window->pid, piece->ram.proof + piece->shift, challenge,
			   piece->ram.proof))
			g_array_remove_index_fast(window->pieces, i - 1);
	}
	return window->pieces->len ? 0 : -ENOENT;
}

struct hm_window *hm_window_ref(struct hm_window *window)
{
	return g_atomic_rc_box_acquire(window);
}

static void window_clear(gpointer window)
{
	g_array_unref(((struct hm_window *)window)->pieces);
}

void hm_window_unref(struct hm_window *window)
{
	if (window)
		g_atomic_rc_box_release_full(window, window_clear);
}

pid_t hm_window_pid(const struct hm_window *window)
{
	return window->pid;
}

uint64_t hm_window_size(const struct hm_window *window)
{
	uint64_t size = 0;

	for (guint i = 0; i < window->pieces->len; i++) {
		const struct piece *piece = &g_array_index(window->pieces, struct piece, i);

		size += piece->ram.end - piece->ram.start;
	}
	return size;
}

/* Where QEMU has `size` bytes at a guest-physical address; false: not within reach. */
static bool window_locate(const struct hm_window *window, uint64_t addr, uint64_t size,
			  struct iovec *ret)
{
	for (guint i = 0; i < window->pieces->len; i++) {
		const struct piece *piece = &g_array_index(window->pieces, struct piece, i);

		if (addr >= piece->ram.start && addr < piece->ram.end &&
		    size <= piece->ram.end - addr) {
			*ret = (struct iovec){ (void *)(uintptr_t)(addr + piece->shift), size };
			return true;
		}
	}
	return false;
}

/*
 * The parts of QEMU's memory from `offset` on; returns their number, *ret_size: their
 * bytes.  0: the first one is not within reach, and *ret_size bytes of it are meant.
 */
static size_t window_locate_runs(const struct hm_window *window, const struct hm_hold *hold,
				 uint64_t offset, size_t size, struct iovec iov[RUNS_MAX],
				 size_t *ret_size)
{
	size_t n = 0;

	*ret_size = 0;
	for (uint32_t i = 0; i < hold->n_runs && size && n < RUNS_MAX; i++) {
		const struct hm_run *run = &hold->runs[i];
		uint64_t part;

		if (offset >= run->size) {
			offset -= run->size;
			continue;
		}
		part = MIN(run->size - offset, size);
		if (!window_locate(window, run->addr + offset, part, &iov[n])) {
			if (n == 0)
				*ret_size = part;
			break;
		}
		n++;
		*ret_size += part;
		size -= part;
		offset = 0;
	}
	return n;
}

/* The words behind the data are read behind it: see struct hypermem_hold. */
ssize_t hm_window_read(const struct hm_window *window, const struct hm_hold *hold,
		       uint64_t offset, void *buf, size_t size, size_t *ret_skip)
{
	struct iovec remote[RUNS_MAX + 2];
	size_t n_remote, n;
	uint8_t word[8], mm[8];
	struct iovec local[3];
	ssize_t got;

	n_remote = window_locate_runs(window, hold, offset, size, remote, &n);
	if (n_remote == 0) {
		*ret_skip = n;
		return n ? -ENXIO : 0;
	}
	if (!window_locate(window, hold->word, sizeof(word), &remote[n_remote]) ||
	    !window_locate(window, hold->mm_addr, hold->mm_size, &remote[n_remote + 1])) {
		*ret_skip = n;
		return -ENXIO;
	}
	local[0] = (struct iovec){ buf, n };
	local[1] = (struct iovec){ word, sizeof(word) };
	local[2] = (struct iovec){ mm, hold->mm_size };
	got = process_vm_readv(window->pid, local, 3, remote, n_remote + 2, 0);
	if (got < 0)
		return -errno;
	if ((size_t)got != n + sizeof(word) + hold->mm_size)
		return -EFAULT;
	if (hm_word_decode(word) != hold->generation || memcmp(mm, hold->mm, hold->mm_size) != 0)
		return -EAGAIN;
	return (ssize_t)n;
}
