// SPDX-License-Identifier: MIT
/*
 * switch: deletes an entry of the MAC table of a router's Ethernet switch, as a program of the
 * router's firmware does.
 *
 * The switch's registers are read and written by private ioctls of the driver of eth0.  A register
 * that cannot be read is read again and again; so where there is no such hardware this never ends.
 *
 *	mtk7530_switch [MAC]
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define RAETH_ESW_REG_READ	0x89f1	/* SIOCDEVPRIVATE + 1 */

#define REG_ESW_WT_MAC_AD0	0x34
#define W_MAC_DONE		0x2

#define POLLS			20
#define POLL_US			1000
#define RETRY_US		100000

struct esw_reg {
	unsigned int off;
	unsigned int val;
};

static int esw_fd;

static int reg_try_read(unsigned int offset, unsigned int *value)
{
	struct esw_reg reg = { .off = offset };
	struct ifreq ifr = {};

	strncpy(ifr.ifr_name, "eth0", sizeof(ifr.ifr_name));
	ifr.ifr_data = (char *)&reg;
	if (ioctl(esw_fd, RAETH_ESW_REG_READ, &ifr) < 0)
		return -errno;
	*value = reg.val;
	return 0;
}

static unsigned int reg_read(unsigned int offset)
{
	unsigned int value = 0;
	int rc;

	while ((rc = reg_try_read(offset, &value)) < 0) {
		fprintf(stderr, "swRegRead: register 0x%x: %s\n", offset, strerror(-rc));
		usleep(RETRY_US);
	}
	return value;
}

/* The switch has done what it was told. */
static int wait_done(void)
{
	for (int i = 0; i < POLLS; i++) {
		if (reg_read(REG_ESW_WT_MAC_AD0) & W_MAC_DONE)
			return 1;
		usleep(POLL_US);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *mac = argc > 1 ? argv[1] : "00:0c:43:28:80:01";

	setvbuf(stdout, NULL, _IOLBF, 0);
	esw_fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (esw_fd < 0) {
		perror("socket");
		return 1;
	}
	printf("deleting %s from the table\n", mac);
	printf(wait_done() ? "done.\n" : "timeout.\n");
	return 0;
}
