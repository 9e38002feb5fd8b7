// SPDX-License-Identifier: GPL-2.0
/*
 * hypermem: answers the host's questions about this guest's processes.
 *
 *	link_virtio*.c	bytes from and to a virtio-serial port
 *	link_tty.c	bytes from and to a serial line
 *	link.c		frames out of bytes; sessions
 *	frame.c		memory of frames
 *	request.c	validate, dispatch, reply
 *	ops.c		the table of operations; the wire's byte order
 *	mem.c		memory and mappings of a process
 *	proc.c		which processes there are, their arguments and environments
 *	procfs.c	what only this kernel's own /proc can say
 *	sysfs.c		what drivers say nowhere else
 *	window.c	where the host finds this guest's RAM
 *	translate.c	where a process's memory is in it
 *	hook*.c		system calls that the host is told of, or that wait for it
 *
 * uapi/hypermem.h is the protocol.  The host asks, this module answers; it
 * never acts by itself, and does nothing at all while nobody asks.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>

#include "link.h"
#include "ops.h"

#ifdef MODULE
static int __init hypermem_links_register(void)
{
	int rc = hypermem_tty_register();

	if (rc)
		return rc;
	rc = hypermem_virtio_register();
	if (rc)
		hypermem_tty_unregister();
	else
		hypermem_virtio_report();
	return rc;
}
#else
static bool hypermem_ready __initdata;

/* Neither controllers nor serial lines have drivers yet. */
static int __init hypermem_links_register(void)
{
	int rc = hypermem_virtio_register();

	hypermem_ready = !rc;
	return rc;
}

static int __init hypermem_late_init(void)
{
	if (!hypermem_ready)
		return -ENODEV;
	hypermem_virtio_report();
	return hypermem_tty_register();
}
#endif

static int __init hypermem_init(void)
{
	int rc;

	rc = hypermem_ops_init();
	if (rc)
		return rc;
	rc = hypermem_procfs_init();
	if (rc)
		return rc;
	rc = hypermem_translate_init();
	if (rc)
		goto exit_procfs;
	hypermem_hooks_init();
	rc = hypermem_links_register();
	if (rc)
		goto exit_hooks;
	return 0;

exit_hooks:
	hypermem_hooks_exit();
	hypermem_translate_exit();
exit_procfs:
	hypermem_procfs_exit();
	return rc;
}

static void __exit hypermem_exit(void)
{
	hypermem_virtio_unregister();
	hypermem_tty_unregister();
	hypermem_hooks_exit();
	hypermem_frame_trim();
	hypermem_window_exit();
	hypermem_translate_exit();
	hypermem_procfs_exit();
}

#ifdef MODULE
module_init(hypermem_init);
#else
/*
 * Before virtio_console and the drivers of virtio's buses, so that it is asked first whose
 * a controller is: the ports of one that virtio_console has show up at some later time.
 */
fs_initcall(hypermem_init);
late_initcall_sync(hypermem_late_init);
#endif
module_exit(hypermem_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Shows this guest's processes to hypermemfs on the host");
MODULE_VERSION(HYPERMEM_MODULE_VERSION);
