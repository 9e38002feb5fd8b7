// SPDX-License-Identifier: GPL-2.0
/*
 * late: makes a worker of the kernel's call a function some seconds late.
 *
 *	insmod late.ko function=sysfs_create_group call=2
 *
 * Each call by a worker counts; virtio_console's makes a port by the first of that function,
 * and by the second shows its name.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/sched.h>

static char *function;
module_param(function, charp, 0400);
static int call = 1;
module_param(call, int, 0400);
static atomic_t calls;

static int late_call(struct kprobe *probe, struct pt_regs *regs)
{
	if ((current->flags & PF_WQ_WORKER) && atomic_inc_return(&calls) == call)
		mdelay(2000);
	return 0;
}

static struct kprobe late = { .pre_handler = late_call };

static int __init late_init(void)
{
	late.symbol_name = function;
	return register_kprobe(&late);
}

static void __exit late_exit(void)
{
	unregister_kprobe(&late);
}

module_init(late_init);
module_exit(late_exit);
MODULE_LICENSE("GPL");
