/* SPDX-License-Identifier: MIT */
/*
 * inarow: make another driver have a device, then load a module, before any worker of the
 * kernel has run.
 *
 *	inarow /sys/bus/.../drivers/DRIVER/bind DEVICE MODULE.ko
 *
 * On a machine with one processor that is what a realtime process can do: workers are not.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sched_param realtime = {.sched_priority = 50};
	int bind, module;

	if (argc != 4)
		return 2;
	bind = open(argv[1], O_WRONLY);
	module = open(argv[3], O_RDONLY);
	if (bind < 0 || module < 0 || sched_setscheduler(0, SCHED_FIFO, &realtime)) {
		perror("inarow");
		return 1;
	}
	if (write(bind, argv[2], strlen(argv[2])) < 0) {
		perror(argv[1]);
		return 1;
	}
	if (syscall(SYS_finit_module, module, "", 0)) {
		perror(argv[3]);
		return 1;
	}
	return 0;
}
