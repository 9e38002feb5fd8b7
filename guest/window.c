// SPDX-License-Identifier: GPL-2.0
/*
 * window: how the host finds this guest's RAM in QEMU's memory.
 *
 * A range of physical addresses that is one node's RAM, without a hole, is one piece of
 * QEMU's memory.  A page of each range that can be had holds the host's challenge and its own
 * address: where the host finds both, the range is.  What no page is in stays unknown
 * to the host, which then asks for the bytes themselves.
 *
 * The kernel gives pages of a zone, and a zone may have more ranges than one.  So for a
 * range that is worth it pages are taken, and held, until one is in it.
 */
#include <linux/gfp.h>
#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/sizes.h>

#include "compat.h"
#include "ops.h"

#define RAMS_MAX	64

/* A range of this size is searched for with so many blocks, of 4 MiB while there are such. */
#define WORTH		SZ_16M
#define HELD_MAX	128
#define HELD_ORDER	get_order(SZ_4M)

/* In 64 bits: the last range of 32 may end at 4 GiB. */
struct window_ram {
	u64 start, end;
	struct page *proof;
};

static DEFINE_MUTEX(window_lock);	/* protects what follows, and what is in the proofs */
static struct window_ram window_rams[RAMS_MAX];
static unsigned int window_n_rams;

static const struct window_ram *window_find(u64 addr)
{
	const struct window_ram *ram;

	for (ram = window_rams; ram < window_rams + window_n_rams; ram++)
		if (addr >= ram->start && addr < ram->end)
			return ram;
	return NULL;
}

static int window_walk(int (*look)(struct resource *, void *), void *data)
{
	return walk_iomem_res_desc(IORES_DESC_NONE, IORESOURCE_SYSTEM_RAM, 0, (resource_size_t)-1,
				   data, look);
}

/* Behind the last address the kernel would begin anew. */
static bool window_walk_ends(const struct resource *res)
{
	return res->end == (resource_size_t)-1;
}

static u64 window_res_start(const struct resource *res)
{
	return ALIGN((u64)res->start, PAGE_SIZE);
}

static u64 window_res_end(const struct resource *res)
{
	return ALIGN_DOWN((u64)res->end + 1, PAGE_SIZE);
}

/* Memory of another node may be another piece of QEMU's. */
static bool window_is_of_node(u64 page, int node)
{
	unsigned long pfn = page >> PAGE_SHIFT;

	return pfn_valid(pfn) && page_to_nid(pfn_to_page(pfn)) == node;
}

/* From a page's edge towards another, as far as the pages are the node's. */
static u64 window_edge(u64 edge, u64 last, int node)
{
	while (edge != last) {
		u64 page = edge < last ? edge : edge - PAGE_SIZE;

		if (!window_is_of_node(page, node))
			break;
		edge = edge < last ? edge + PAGE_SIZE : page;
		if (IS_ALIGNED(edge, SZ_1M))
			cond_resched();
	}
	return edge;
}

/* 1: it is where the proof is, and ram's edges are known. */
static int window_look_around(struct resource *res, void *data)
{
	u64 start = window_res_start(res), end = window_res_end(res);
	struct window_ram *ram = data;
	u64 addr = page_to_phys(ram->proof);
	int node = page_to_nid(ram->proof);

	if (addr < start || addr >= end)
		return window_walk_ends(res) ? -ENOENT : 0;
	ram->start = window_edge(addr, start, node);
	ram->end = window_edge(addr + PAGE_SIZE, end, node);
	return 1;
}

/* false: the page shows nothing new. */
static bool window_add(struct page *page)
{
	struct window_ram *ram = &window_rams[window_n_rams];

	if (window_n_rams == RAMS_MAX || window_find(page_to_phys(page)))
		return false;
	ram->proof = page;
	if (window_walk(window_look_around, ram) <= 0)
		return false;
	window_n_rams++;
	return true;
}

/* 1: there is a range of the node's that no page is in, and that is worth a search. */
static int window_look_for_miss(struct resource *res, void *data)
{
	u64 at = window_res_start(res), end = window_res_end(res);
	int node = *(int *)data;

	while (at < end) {
		const struct window_ram *ram = window_find(at);
		u64 edge = ram ? ram->end : window_edge(at, end, node);

		if (!ram && edge - at >= WORTH)
			return 1;
		at = max(edge, min(at + SZ_1M, end));
	}
	return window_walk_ends(res) ? -ENOENT : 0;
}

static bool window_misses(int node)
{
	return window_n_rams < RAMS_MAX && window_walk(window_look_for_miss, &node) > 0;
}

/* In high memory, a page has an address here only while it is written to. */
static void window_show(struct page *page, u64 challenge)
{
	void *proof = hypermem_kmap(page);

	hypermem_proof_fill(proof, challenge, page_to_phys(page));
	hypermem_kunmap(proof);
}

static void window_try(int node, gfp_t zone)
{
	struct page *page = alloc_pages_node(node, GFP_KERNEL | zone | __GFP_THISNODE |
					     __GFP_NORETRY | __GFP_NOWARN | __GFP_ZERO, 0);

	if (page && !window_add(page))
		__free_page(page);
}

/* Of a block that shows something new, the first page is kept. */
static bool window_add_block(struct page *block, unsigned int order)
{
	unsigned int i;

	if (!window_add(block))
		return false;
	if (order)
		split_page(block, order);
	for (i = 1; i < 1U << order; i++)
		__free_page(block + i);
	return true;
}

/* Nobody is made to give memory back for this, and an eighth of what is free stays free. */
static void window_search(int node, gfp_t zone, unsigned int order)
{
	static struct page *held[HELD_MAX];
	bool misses = window_misses(node);
	unsigned int n = 0;
	struct sysinfo info;

	si_meminfo(&info);
	while (misses && n < HELD_MAX && (n + 1UL) << order <= info.freeram / 8 * 7) {
		struct page *block = alloc_pages_node(node, zone | __GFP_THISNODE | __GFP_NORETRY |
						      __GFP_NOMEMALLOC | __GFP_NOWARN, order);

		if (!block)
			break;
		if (window_add_block(block, order))
			misses = window_misses(node);
		else
			held[n++] = block;
	}
	while (n)
		__free_pages(held[--n], order);
}

static void window_init_node(int node)
{
	static const gfp_t zones[] = { 0, GFP_DMA32, __GFP_HIGHMEM };
	unsigned int i, order;

	for (i = 0; i < ARRAY_SIZE(zones); i++)
		window_try(node, zones[i]);
	for (i = 0; i < ARRAY_SIZE(zones); i++)
		for (order = HELD_ORDER; order; order /= 2)
			window_search(node, zones[i], order);
}

/* Once, when a host asks: what there is of nodes and zones. */
static void window_init(void)
{
	int node;

	if (window_n_rams)
		return;
	window_add(hypermem_translate_page());
	for_each_online_node(node)
		window_init_node(node);
}

void hypermem_window_exit(void)
{
	while (window_n_rams) {
		struct page *page = window_rams[--window_n_rams].proof;

		if (page != hypermem_translate_page())
			__free_page(page);
	}
}

int hypermem_window(struct hypermem_request *request)
{
	const struct window_ram *ram;

	mutex_lock(&window_lock);
	window_init();
	for (ram = window_rams; ram < window_rams + window_n_rams; ram++) {
		window_show(ram->proof, request->header.addr);
		if (!hypermem_put_ram(request, ram->start, ram->end, page_to_phys(ram->proof)))
			break;
	}
	mutex_unlock(&window_lock);
	return 0;
}
