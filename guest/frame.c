// SPDX-License-Identifier: GPL-2.0
/*
 * frame: memory of frames on their way out.  See link.h.
 *
 * Kernels are often built to clear what they allocate (init_on_alloc), which for a
 * large frame takes longer than to fill it.  So a few are kept, not in use, while there
 * is a session: small ones, and large ones, which have room for any.
 */
#include <linux/gfp.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

#include "link.h"

#define SMALL		256	/* bytes of data */
#define KEPT_MAX	32	/* of either size */

#define SIZE_WITH(data) (sizeof(struct hypermem_frame) + HYPERMEM_HEADER_SIZE + (data))
#define LARGE_SIZE	SIZE_WITH(HYPERMEM_LINK_DATA_MAX)

static struct {
	struct list_head frames;
	unsigned int n;
} frame_kept[2] = {		/* small, large; under frame_lock */
	{ LIST_HEAD_INIT(frame_kept[0].frames) },
	{ LIST_HEAD_INIT(frame_kept[1].frames) },
};
static DEFINE_SPINLOCK(frame_lock);

static struct hypermem_frame *frame_take(bool large)
{
	struct hypermem_frame *frame;

	spin_lock(&frame_lock);
	frame = list_first_entry_or_null(&frame_kept[large].frames, struct hypermem_frame, node);
	if (frame) {
		list_del(&frame->node);
		frame_kept[large].n--;
	}
	spin_unlock(&frame_lock);
	return frame;
}

static bool frame_keep(struct hypermem_frame *frame)
{
	bool keep;

	spin_lock(&frame_lock);
	keep = frame_kept[frame->large].n < KEPT_MAX;
	if (keep) {
		list_add(&frame->node, &frame_kept[frame->large].frames);
		frame_kept[frame->large].n++;
	}
	spin_unlock(&frame_lock);
	return keep;
}

/* A large one in one piece if there is one: that is one write for QEMU, and not one a page. */
static struct hypermem_frame *frame_new(bool large)
{
	struct hypermem_frame *frame;

	if (!large)
		return kmalloc(SIZE_WITH(SMALL), GFP_KERNEL);
	frame = alloc_pages_exact(LARGE_SIZE, GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY);
	return frame ?: vmalloc(LARGE_SIZE);
}

static void frame_delete(struct hypermem_frame *frame)
{
	if (!frame->large)
		kfree(frame);
	else if (is_vmalloc_addr(frame))
		vfree(frame);
	else
		free_pages_exact(frame, LARGE_SIZE);
}

struct hypermem_frame *hypermem_frame_alloc(u32 data_size)
{
	bool large = data_size > SMALL;
	struct hypermem_frame *frame = frame_take(large) ?: frame_new(large);

	if (frame) {
		frame->size = HYPERMEM_HEADER_SIZE + data_size;
		frame->large = large;
	}
	return frame;
}

void hypermem_frame_free(struct hypermem_frame *frame)
{
	if (frame && !frame_keep(frame))
		frame_delete(frame);
}

void hypermem_frame_trim(void)
{
	struct hypermem_frame *frame;

	while ((frame = frame_take(false)) || (frame = frame_take(true)))
		frame_delete(frame);
}
