// SPDX-License-Identifier: MIT
/*
 * framed: an ioctl whose caller has a frame that is known: the word at sp points to a block that
 * has, 8 bytes on, a pointer to a value; with an argument it is NULL.  It says what the ioctl
 * returned and what the value is.
 *
 * A machine of which it is not known how to do so is refused when this is compiled.
 */
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

struct reg {
	unsigned int off, val;
};

static unsigned int value;

static struct {
	char before[8];
	void *value;
} block = { .value = &value };

#if defined(__x86_64__)

static long framed_ioctl(long fd, long cmd, void *arg, void *frame)
{
	long rc = SYS_ioctl;

	__asm__ volatile("lea -128(%%rsp), %%rsp\n\t"	/* there may be something below it */
			 "push %[frame]\n\t"
			 "syscall\n\t"
			 "lea 136(%%rsp), %%rsp"
			 : "+a"(rc)
			 : "D"(fd), "S"(cmd), "d"(arg), [frame] "r"(frame)
			 : "rcx", "r11", "memory");
	return rc;
}

#elif defined(__aarch64__)

static long framed_ioctl(long fd, long cmd, void *arg, void *frame)
{
	register long x0 __asm__("x0") = fd;
	register long x1 __asm__("x1") = cmd;
	register void *x2 __asm__("x2") = arg;
	register long x8 __asm__("x8") = SYS_ioctl;

	__asm__ volatile("str %[frame], [sp, #-16]!\n\t"
			 "svc #0\n\t"
			 "add sp, sp, #16"
			 : "+r"(x0)
			 : "r"(x1), "r"(x2), "r"(x8), [frame] "r"(frame)
			 : "memory");
	return x0;
}

#elif defined(__mips__)

static long framed_ioctl(long fd, long cmd, void *arg, void *frame)
{
	register long v0 __asm__("$2") = SYS_ioctl;
	register long a0 __asm__("$4") = fd;
	register long a1 __asm__("$5") = cmd;
	register void *a2 __asm__("$6") = arg;
	register long a3 __asm__("$7");
	register void *s0 __asm__("$16") = frame;

	__asm__ volatile("addiu $sp, $sp, -32\n\t"
			 "sw %[frame], 0($sp)\n\t"
			 "syscall\n\t"
			 "addiu $sp, $sp, 32"
			 : "+r"(v0), "=r"(a3)
			 : "r"(a0), "r"(a1), "r"(a2), [frame] "r"(s0)
			 : "$1", "$3", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24",
			   "$25", "hi", "lo", "memory");
	return a3 ? -v0 : v0;
}

#else
#error "how is a system call made here?"
#endif

int main(int argc, char **argv)
{
	struct reg reg = { .off = 0x34 };
	struct ifreq ifr = {};
	long rc;

	strncpy(ifr.ifr_name, "eth0", sizeof(ifr.ifr_name));
	ifr.ifr_data = (char *)&reg;
	rc = framed_ioctl(socket(AF_INET, SOCK_DGRAM, 0), 0x89f1, &ifr, argc > 1 ? NULL : &block);
	printf("rc=%ld value=%u\n", rc, value);
	return 0;
}
