// SPDX-License-Identifier: GPL-2.0
/*
 * window: how the host finds this guest's RAM in QEMU's memory.
 *
 * A range of physical addresses that is one node's RAM, without a hole, is one piece of
 * QEMU's memory.  A page of each range that can be had holds the host's challenge and its own
 * address: where the host finds both, the range is.  What no page is in stays unknown
 * to the host, which then asks for the bytes themselves.
 */
#include <linux/gfp.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/sched.h>
#include <linux/sizes.h>

#include "compat.h"
#include "ops.h"

#define RAMS_MAX	16

struct window_ram {
	phys_addr_t start, end;
	struct page *proof;
};

static DEFINE_MUTEX(window_lock);	/* protects what follows, and what is in the proofs */
static struct window_ram window_rams[RAMS_MAX];
static unsigned int window_n_rams;

/* region_intersects() looks at what overlaps, not at what is missing: so page by page. */
static bool window_is_ram(phys_addr_t page)
{
	return region_intersects(page, PAGE_SIZE, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) ==
	       REGION_INTERSECTS;
}

/* Memory of another node may be another piece of QEMU's. */
static bool window_is_of_node(phys_addr_t page, int node)
{
	unsigned long pfn = page >> PAGE_SHIFT;

	return pfn_valid(pfn) && page_to_nid(pfn_to_page(pfn)) == node;
}

/* From a page's edge to that of the node's RAM around it. */
static phys_addr_t window_edge(phys_addr_t edge, bool up, int node)
{
	while (up ? edge + PAGE_SIZE > edge : edge >= PAGE_SIZE) {
		phys_addr_t page = up ? edge : edge - PAGE_SIZE;

		if (!window_is_ram(page) || !window_is_of_node(page, node))
			break;
		edge = up ? edge + PAGE_SIZE : page;
		if (IS_ALIGNED(edge, SZ_1M))
			cond_resched();
	}
	return edge;
}

/* false: the page shows nothing new. */
static bool window_add(struct page *page)
{
	phys_addr_t addr = page_to_phys(page);
	struct window_ram *ram;

	for (ram = window_rams; ram < window_rams + window_n_rams; ram++)
		if (addr >= ram->start && addr < ram->end)
			return false;
	if (window_n_rams == RAMS_MAX || !window_is_ram(addr))
		return false;
	ram->start = window_edge(addr, false, page_to_nid(page));
	ram->end = window_edge(addr + PAGE_SIZE, true, page_to_nid(page));
	ram->proof = page;
	window_n_rams++;
	return true;
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

/* Once, when a host asks: what there is of nodes and zones. */
static void window_init(void)
{
	int node;

	if (window_n_rams)
		return;
	window_add(hypermem_translate_page());
	for_each_online_node(node) {
		window_try(node, 0);
		window_try(node, GFP_DMA32);
		window_try(node, __GFP_HIGHMEM);
	}
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
