// SPDX-License-Identifier: GPL-2.0
/*
 * frame: memory of frames on their way out.  See link.h.
 *
 * Kernels are often built to clear what they allocate (init_on_alloc), which for a
 * large frame takes longer than to fill it.  So a few large ones are kept, not in use,
 * while there is a session.
 */
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

#include "link.h"

#define SMALL		256	/* bytes of data: not worth keeping */
#define KEPT_MAX	32

#define LARGE_SIZE	(sizeof(struct hypermem_frame) + HYPERMEM_HEADER_SIZE + \
			 HYPERMEM_LINK_DATA_MAX)

static DEFINE_SPINLOCK(frame_lock);	/* protects what follows */
static LIST_HEAD(frame_kept);
static unsigned int frame_n_kept;

static struct hypermem_frame *frame_take(void)
{
	struct hypermem_frame *frame;

	spin_lock(&frame_lock);
	frame = list_first_entry_or_null(&frame_kept, struct hypermem_frame, node);
	if (frame) {
		list_del(&frame->node);
		frame_n_kept--;
	}
	spin_unlock(&frame_lock);
	return frame;
}

/* In one piece if there is one: that is one write for QEMU, and not one a page. */
static struct hypermem_frame *frame_new_large(void)
{
	struct hypermem_frame *frame;

	frame = alloc_pages_exact(LARGE_SIZE, GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY);
	return frame ?: vmalloc(LARGE_SIZE);
}

static void frame_free_large(struct hypermem_frame *frame)
{
	if (is_vmalloc_addr(frame))
		vfree(frame);
	else
		free_pages_exact(frame, LARGE_SIZE);
}

struct hypermem_frame *hypermem_frame_alloc(u32 data_size)
{
	struct hypermem_frame *frame;
	size_t size = HYPERMEM_HEADER_SIZE + data_size;
	bool large = data_size > SMALL;

	if (large)
		frame = frame_take() ?: frame_new_large();
	else
		frame = kmalloc(struct_size(frame, bytes, size), GFP_KERNEL);
	if (frame) {
		frame->size = size;
		frame->large = large;
	}
	return frame;
}

void hypermem_frame_free(struct hypermem_frame *frame)
{
	bool keep;

	if (!frame || !frame->large) {
		kfree(frame);
		return;
	}
	spin_lock(&frame_lock);
	keep = frame_n_kept < KEPT_MAX;
	if (keep) {
		list_add(&frame->node, &frame_kept);
		frame_n_kept++;
	}
	spin_unlock(&frame_lock);
	if (!keep)
		frame_free_large(frame);
}

void hypermem_frame_trim(void)
{
	struct hypermem_frame *frame;

	while ((frame = frame_take()))
		frame_free_large(frame);
}
