// SPDX-License-Identifier: GPL-2.0
/*
 * translate: where a process's memory is in this guest's RAM, and until when.
 *
 * Nothing is pinned for the host, so a host that dies leaves nothing behind.  Instead,
 * as a hypervisor's second page tables do, an MMU notifier tells before a mapping
 * changes; then the translation's word is cleared, where the host looks after it has
 * copied.  hypermem.h, at struct hypermem_hold, says what this promises.
 *
 * There are as many translations at a time as words; a new one takes the oldest's.
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "compat.h"
#include "ops.h"

#define HOLDS	128		/* words in use */
#define MMS_MAX	64		/* processes whose mappings are watched */
#define BATCH	64		/* pages that are looked up at a time */

/* The page of words begins with a proof, see window.c. */
#define WORDS_OFFSET	sizeof(struct hypermem_proof)

/* An address space that is watched; on the list, which has a reference, while it lives. */
struct translate_mm {
	struct mmu_notifier notifier;
	struct list_head node;
	struct list_head holds;
	unsigned int changing;		/* changes under way */
	bool listed;
};

struct translate_hold {
	struct list_head node;		/* of its translate_mm; empty: not in use */
	unsigned long start, end;
};

static struct page *translate_page;

/* Taken by notifiers, in any process's context.  Protects what follows. */
static DEFINE_SPINLOCK(translate_lock);
static LIST_HEAD(translate_mms);	/* the last used first */
static unsigned int translate_n_mms;
static struct translate_hold translate_holds[HOLDS];
static unsigned int translate_next;	/* hold */
static atomic_t translate_n_alive;	/* that translate_free() has not freed yet */
static u64 translate_generation;

static unsigned int hold_offset(const struct translate_hold *hold)
{
	return WORDS_OFFSET + 8 * (hold - translate_holds);
}

static void hold_set_word(const struct translate_hold *hold, u64 value)
{
	hypermem_word_set(page_address(translate_page) + hold_offset(hold), value);
}

static void hold_drop(struct translate_hold *hold)
{
	hold_set_word(hold, 0);
	list_del_init(&hold->node);
}

/* Off the list; the caller has its reference then. */
static void mm_unlist(struct translate_mm *tm)
{
	struct translate_hold *hold, *next;

	list_for_each_entry_safe(hold, next, &tm->holds, node)
		hold_drop(hold);
	list_del(&tm->node);
	tm->listed = false;
	translate_n_mms--;
}

static int translate_range_start(struct mmu_notifier *notifier,
				 const struct mmu_notifier_range *range)
{
	struct translate_mm *tm = container_of(notifier, struct translate_mm, notifier);
	struct translate_hold *hold, *next;

	spin_lock(&translate_lock);
	tm->changing++;
	list_for_each_entry_safe(hold, next, &tm->holds, node)
		if (hold->start < range->end && range->start < hold->end)
			hold_drop(hold);
	spin_unlock(&translate_lock);
	/* Cleared before anything changes, as the host sees it. */
	virt_mb();
	return 0;
}

static void translate_range_end(struct mmu_notifier *notifier,
				const struct mmu_notifier_range *range)
{
	struct translate_mm *tm = container_of(notifier, struct translate_mm, notifier);

	spin_lock(&translate_lock);
	tm->changing--;
	spin_unlock(&translate_lock);
}

static void translate_release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct translate_mm *tm = container_of(notifier, struct translate_mm, notifier);
	bool listed;

	spin_lock(&translate_lock);
	listed = tm->listed;
	if (listed)
		mm_unlist(tm);
	spin_unlock(&translate_lock);
	virt_mb();
	if (listed)
		mmu_notifier_put(notifier);
}

static struct mmu_notifier *translate_alloc(struct mm_struct *mm)
{
	struct translate_mm *tm = kzalloc(sizeof(*tm), GFP_KERNEL);

	if (!tm)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&tm->holds);
	atomic_inc(&translate_n_alive);
	return &tm->notifier;
}

static void translate_free(struct mmu_notifier *notifier)
{
	kfree(container_of(notifier, struct translate_mm, notifier));
	atomic_dec(&translate_n_alive);
}

static const struct mmu_notifier_ops translate_notifier_ops = {
	.release = translate_release,
	.invalidate_range_start = translate_range_start,
	.invalidate_range_end = translate_range_end,
	.alloc_notifier = translate_alloc,
	.free_notifier = translate_free,
};

static struct translate_mm *mm_find(struct mm_struct *mm)
{
	struct translate_mm *tm;

	list_for_each_entry(tm, &translate_mms, node)
		if (tm->notifier.mm == mm)
			return tm;
	return NULL;
}

/* Watch mm, which the caller keeps from exiting. */
static int mm_watch(struct mm_struct *mm)
{
	struct mmu_notifier *notifier = mmu_notifier_get(&translate_notifier_ops, mm), *put = NULL;
	struct translate_mm *tm;

	if (IS_ERR(notifier))
		return PTR_ERR(notifier);
	tm = container_of(notifier, struct translate_mm, notifier);
	spin_lock(&translate_lock);
	if (tm->listed) {
		put = notifier;		/* somebody else was faster */
	} else {
		if (translate_n_mms == MMS_MAX) {
			struct translate_mm *last = list_last_entry(&translate_mms,
								    struct translate_mm, node);

			mm_unlist(last);
			put = &last->notifier;
		}
		list_add(&tm->node, &translate_mms);
		tm->listed = true;
		translate_n_mms++;
	}
	spin_unlock(&translate_lock);
	if (put)
		mmu_notifier_put(put);
	return 0;
}

/* Begin a translation, before its pages are looked up.  -ENOENT: mm is not watched. */
static int hold_begin(struct mm_struct *mm, unsigned long start, unsigned long end,
		      struct hypermem_hold_record *rec)
{
	struct translate_hold *hold;
	struct translate_mm *tm;
	int rc = -ENOENT;

	spin_lock(&translate_lock);
	tm = mm_find(mm);
	if (tm && tm->changing) {
		rc = -EAGAIN;	/* of a change under way its notifier has told already */
	} else if (tm) {
		hold = &translate_holds[translate_next++ % HOLDS];
		if (!list_empty(&hold->node))
			hold_drop(hold);
		hold->start = start;
		hold->end = end;
		list_add(&hold->node, &tm->holds);
		list_move(&tm->node, &translate_mms);
		if (!++translate_generation)
			translate_generation++;
		rec->generation = translate_generation;
		rec->word = page_to_phys(translate_page) + hold_offset(hold);
		hold_set_word(hold, rec->generation);
		rc = 0;
	}
	spin_unlock(&translate_lock);
	return rc;
}

static int hold_begin_watched(struct mm_struct *mm, unsigned long start, unsigned long end,
			      struct hypermem_hold_record *rec)
{
	int rc = hold_begin(mm, start, end, rec);

	if (rc == -ENOENT)
		rc = mm_watch(mm) ?: hold_begin(mm, start, end, rec);
	return rc == -ENOENT ? -EAGAIN : rc;	/* pushed off the list meanwhile */
}

/* A run that is being made longer. */
struct translate_run {
	phys_addr_t addr;
	u32 pages;
};

/* false: there is no room for another run. */
static bool run_add(struct hypermem_request *request, struct translate_run *run, phys_addr_t addr)
{
	if (run->pages && run->pages <= HYPER_RUN_PAGES_MASK &&
	    addr == run->addr + (phys_addr_t)run->pages * PAGE_SIZE) {
		run->pages++;
		return true;
	}
	if (run->pages && !hypermem_put_run(request, run->addr, run->pages))
		return false;
	run->addr = addr;
	run->pages = 1;
	return true;
}

/* Look up n pages from addr on, made resident as by a read.  Returns how many have a place. */
static u32 translate_pages(struct hypermem_request *request, struct mm_struct *mm,
			   unsigned long addr, u32 n)
{
	struct translate_run run = {};
	struct page *pages[BATCH];
	bool room = true;
	u32 done = 0;
	long got, i;

	do {
		got = hypermem_mem_get_pages(mm, addr + (unsigned long)done * PAGE_SIZE,
					     min_t(u32, n - done, BATCH), FOLL_FORCE, pages);
		for (i = 0; i < got; i++) {
			if (room)
				room = run_add(request, &run, page_to_phys(pages[i]));
			done += room;
			put_page(pages[i]);
		}
		cond_resched();
	} while (got > 0 && room && done < n);
	if (run.pages && !hypermem_put_run(request, run.addr, run.pages))
		done -= run.pages;
	return done;
}

static int translate_mm(struct hypermem_request *request, struct mm_struct *mm)
{
	struct task_struct *task = request->task;
	unsigned long start = request->header.addr & PAGE_MASK;
	u64 size = (u64)offset_in_page(request->header.addr) + request->header.size;
	u32 room = (request->out_max - sizeof(struct hypermem_hold)) / 8;
	u32 pages = min_t(u64, DIV_ROUND_UP_ULL(size, PAGE_SIZE), room);
	struct hypermem_hold_record rec = {
		.mm_addr = virt_to_phys(&task->mm),
		.mm = (unsigned long)mm,
	};
	u32 mapped;
	int rc;

	/* Beyond user space there is only the gate area, which is no memory of the process. */
	if (request->header.addr >= mm->task_size)
		return -EIO;
	mapped = hypermem_mem_mapped(mm, start, pages * PAGE_SIZE) / PAGE_SIZE;
	if (!mapped)
		return -EIO;
	rc = hold_begin_watched(mm, start, start + (unsigned long)mapped * PAGE_SIZE, &rec);
	if (rc)
		return rc;
	request->out_size = sizeof(struct hypermem_hold);
	rec.pages = translate_pages(request, mm, start, mapped);
	if (!rec.pages) {
		request->out_size = 0;
		return -EIO;
	}
	hypermem_hold_fill(request, &rec);
	return rec.pages == pages ? 0 : -EIO;
}

int hypermem_translate(struct hypermem_request *request)
{
	struct mm_struct *mm = get_task_mm(request->task);
	int rc;

	if (!mm)
		return hypermem_request_alive(request) ? -EIO : -ESRCH;
	rc = translate_mm(request, mm);
	mmput(mm);
	return rc;
}

void hypermem_translate_forget(void)
{
	struct translate_mm *tm;

	do {
		spin_lock(&translate_lock);
		tm = list_first_entry_or_null(&translate_mms, struct translate_mm, node);
		if (tm)
			mm_unlist(tm);
		spin_unlock(&translate_lock);
		if (tm)
			mmu_notifier_put(&tm->notifier);
	} while (tm);
}

struct page *hypermem_translate_page(void)
{
	return translate_page;
}

int hypermem_translate_init(void)
{
	unsigned int i;

	BUILD_BUG_ON(WORDS_OFFSET + 8 * HOLDS > PAGE_SIZE);
	for (i = 0; i < HOLDS; i++)
		INIT_LIST_HEAD(&translate_holds[i].node);
	get_random_bytes(&translate_generation, sizeof(translate_generation));
	translate_page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	return translate_page ? 0 : -ENOMEM;
}

/* Nobody translates any more. */
void hypermem_translate_exit(void)
{
	hypermem_translate_forget();
	mmu_notifier_synchronize();
	/* That waits for a grace period, not for all callbacks behind it. */
	while (atomic_read(&translate_n_alive))
		msleep(1);
	synchronize_rcu();	/* callbacks run with bottom halves off: none is in here now */
	__free_page(translate_page);
}
