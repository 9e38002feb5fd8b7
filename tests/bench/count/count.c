// SPDX-License-Identifier: GPL-2.0
/*
 * hypermem_count: a probe that counts and does nothing else, for tests/bench.
 *
 * What it adds to a call is the least that any hook on a stock kernel can.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static char *symbol = "__x64_sys_getppid";
module_param(symbol, charp, 0444);
MODULE_PARM_DESC(symbol, "the function that is counted");

static unsigned long count;

static int count_handle(struct kprobe *kprobe, struct pt_regs *regs)
{
	count++;
	return 0;
}

static void count_handled(struct kprobe *kprobe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe count_probe = {
	.pre_handler = count_handle,
	.post_handler = count_handled,	/* as a hook's: it keeps the kernel from a faster kind */
};

static int __init count_init(void)
{
	count_probe.symbol_name = symbol;
	return register_kprobe(&count_probe);
}

static void __exit count_exit(void)
{
	unregister_kprobe(&count_probe);
	pr_info("hypermem_count: %lu calls of %s\n", count, symbol);
}

module_init(count_init);
module_exit(count_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Counts a kernel function's calls, to time a probe");
