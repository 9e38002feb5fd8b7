/* SPDX-License-Identifier: MIT */
/*
 * slowfs DIRECTORY: a file system whose only file, DIRECTORY/slow, takes its time:
 * nobody who reads it gets an answer before SIGUSR1 comes, and then everybody does.
 * Who touches a mapping of it sleeps in a page fault until then.
 *
 * It speaks to /dev/fuse itself, since the lab guest has no library for that.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NODE 2
#define FILE_SIZE (16u << 20)
#define MAX_WAITING 4096
#define BUFFER (256 << 10)

static int fuse;
static int released;
static struct {
	uint64_t unique;
	uint32_t size;
} waiting[MAX_WAITING];
static unsigned int n_waiting;

static void die(const char *what)
{
	fprintf(stderr, "slowfs: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Fails if the request was interrupted: then nobody waits for it. */
static void reply(uint64_t unique, int error, const void *data, uint32_t size)
{
	static char buf[sizeof(struct fuse_out_header) + BUFFER];
	struct fuse_out_header out = {sizeof(out) + size, error, unique};

	memcpy(buf, &out, sizeof(out));
	if (size)
		memcpy(buf + sizeof(out), data, size);
	if (write(fuse, buf, out.len) < 0 && errno != ENOENT)
		die("reply");
}

static void reply_data(uint64_t unique, uint32_t size)
{
	static char data[BUFFER];

	memset(data, 's', sizeof(data));
	reply(unique, 0, data, size < sizeof(data) ? size : sizeof(data));
}

static void reply_init(uint64_t unique)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION < 31 ? FUSE_KERNEL_MINOR_VERSION : 31,
		.max_readahead = 0,	/* one request for each page */
		.max_write = 4096,
	};

	reply(unique, 0, &out, sizeof(out));
}

static void node_attr(uint64_t node, struct fuse_attr *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->ino = node;
	ret->nlink = 1;
	ret->mode = node == FILE_NODE ? S_IFREG | 0444 : S_IFDIR | 0755;
	ret->size = node == FILE_NODE ? FILE_SIZE : 0;
	ret->blksize = 4096;
}

static void reply_lookup(uint64_t unique, const char *name)
{
	struct fuse_entry_out out = {.nodeid = FILE_NODE, .entry_valid = 3600, .attr_valid = 3600};

	node_attr(FILE_NODE, &out.attr);
	if (strcmp(name, "slow"))
		reply(unique, -ENOENT, NULL, 0);
	else
		reply(unique, 0, &out, sizeof(out));
}

static void reply_getattr(uint64_t unique, uint64_t node)
{
	struct fuse_attr_out out = {.attr_valid = 3600};

	node_attr(node, &out.attr);
	reply(unique, 0, &out, sizeof(out));
}

static void handle_read(uint64_t unique, uint32_t size)
{
	if (released) {
		reply_data(unique, size);
		return;
	}
	if (n_waiting == MAX_WAITING)
		die("too many readers");
	waiting[n_waiting].unique = unique;
	waiting[n_waiting++].size = size;
}

static void release(void)
{
	released = 1;
	while (n_waiting) {
		n_waiting--;
		reply_data(waiting[n_waiting].unique, waiting[n_waiting].size);
	}
}

static void handle(const struct fuse_in_header *in, const void *arg)
{
	static const struct fuse_open_out opened;

	switch (in->opcode) {
	case FUSE_INIT:
		reply_init(in->unique);
		break;
	case FUSE_LOOKUP:
		reply_lookup(in->unique, arg);
		break;
	case FUSE_GETATTR:
		reply_getattr(in->unique, in->nodeid);
		break;
	case FUSE_OPEN:
		reply(in->unique, 0, &opened, sizeof(opened));
		break;
	case FUSE_READ:
		handle_read(in->unique, ((const struct fuse_read_in *)arg)->size);
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		reply(in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(in->unique, -ENOSYS, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static union {
		struct fuse_in_header in;
		char bytes[BUFFER];
	} request;
	char options[80];
	sigset_t set;
	int sigfd;

	if (argc != 2)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse < 0)
		die("/dev/fuse");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	if (mount("slowfs", argv[1], "fuse", MS_NOSUID | MS_NODEV, options))
		die(argv[1]);
	printf("pid=%d path=%s/slow size=%u\n", getpid(), argv[1], FILE_SIZE);
	fflush(stdout);

	for (;;) {
		struct pollfd p[] = {{fuse, POLLIN, 0}, {sigfd, POLLIN, 0}};
		ssize_t n;

		poll(p, 2, -1);
		if (p[1].revents)
			release();
		if (!p[0].revents)
			continue;
		n = read(fuse, &request, sizeof(request));
		if (n < 0 && errno == ENODEV)
			return 0;	/* unmounted */
		if (n >= (ssize_t)sizeof(request.in))
			handle(&request.in, &request.in + 1);
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
			die("request");
	}
}
