// SPDX-License-Identifier: MIT
/*
 * asker: makes system calls that a hook may have something to say about.
 *
 *	asker CMD data|raeth|bad|...	an ioctl CMD of a socket: with a name and a number; with a
 *					name and a pointer to a register; with no memory
 *	asker 0 read			reads of a file, until something else is read
 *	asker 0 open PATH
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int ask_ioctl(unsigned long cmd, const char *what)
{
	unsigned int reg[2] = { 0x34 }, data = 0xcafe;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {};
	int rc;

	strcpy(ifr.ifr_name, "eth7");
	memcpy(&ifr.ifr_data, &data, sizeof(data));
	if (strcmp(what, "raeth") == 0) {
		strcpy(ifr.ifr_name, "eth0");
		ifr.ifr_data = (char *)reg;
	}
	rc = ioctl(fd, cmd, strcmp(what, "bad") == 0 ? (void *)16 : &ifr);
	memcpy(&data, &ifr.ifr_data, sizeof(data));
	printf("rc=%d\npid=%d name=%s data=0x%x\n", rc < 0 ? -errno : rc, getpid(), ifr.ifr_name,
	       data);
	return 0;
}

static int ask_read(void)
{
	static const char there[] = "what was in the file";
	char text[64];
	int fd = open("/tmp/asked", O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (write(fd, there, strlen(there)) < 0)
		return 1;
	do {
		usleep(100000);
		memset(text, 0, sizeof(text));
		if (lseek(fd, 0, SEEK_SET) < 0 || read(fd, text, sizeof(text) - 1) < 0)
			return 1;
	} while (strcmp(text, there) == 0);
	printf("read: %s\n", text);
	return 0;
}

static int ask_open(const char *path)
{
	int fd = open(path, O_RDONLY);

	printf("open: %s\n", fd < 0 ? strerror(errno) : "yes");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "";

	if (strcmp(what, "read") == 0)
		return ask_read();
	if (strcmp(what, "open") == 0)
		return ask_open(argc > 3 ? argv[3] : "/");
	return ask_ioctl(strtoul(argc > 1 ? argv[1] : "0", NULL, 0), what);
}
