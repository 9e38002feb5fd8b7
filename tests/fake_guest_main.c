// SPDX-License-Identifier: MIT
/*
 * fake_guest as a program: where to listen.  `fake_guest SOCKET` stands in for
 * `qemu -chardev socket,path=SOCKET,server=on,wait=off` with the module in its guest.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <glib.h>

#include "tests/fake_guest.h"

static int listen_unix(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1))
		return -errno;
	return fd;
}

static int listen_tcp(int port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				    .sin_port = htons(port) };
	socklen_t size = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 1) ||
	    getsockname(fd, (struct sockaddr *)&addr, &size))
		return -errno;
	printf("tcp:127.0.0.1:%d\n", ntohs(addr.sin_port));
	return fd;
}

/* A raw terminal.  The other end is kept open here: it does not end when the host closes it. */
static int open_pty(void)
{
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;
	struct termios raw;

	if (fd < 0 || grantpt(fd) || unlockpt(fd))
		return -errno;
	slave = open(ptsname(fd), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &raw))
		return -errno;
	cfmakeraw(&raw);
	if (tcsetattr(slave, TCSANOW, &raw))
		return -errno;
	puts(ptsname(fd));
	return fd;
}

int main(int argc, char **argv)
{
	g_autofree char *misbehave = NULL, *control = NULL;
	int max_data = 0, port = -1, fd, rc;
	gboolean readonly = false, pty = false;
	struct fake_guest *guest;
	GOptionEntry entries[] = {
		{ "max-data", 0, 0, G_OPTION_ARG_INT, &max_data, "greatest data of a frame", "N" },
		{ "readonly", 0, 0, G_OPTION_ARG_NONE, &readonly, "refuse writes", NULL },
		{ "misbehave", 0, 0, G_OPTION_ARG_STRING, &misbehave, "go wrong",
		  "NAME[=NUMBER]" },
		{ "control", 0, 0, G_OPTION_ARG_FILENAME, &control,
		  "file with a misbehaviour, read again for each request", "FILE" },
		{ "pty", 0, 0, G_OPTION_ARG_NONE, &pty, "a terminal; its path is printed", NULL },
		{ "tcp", 0, 0, G_OPTION_ARG_INT, &port, "listen on localhost, 0: any port",
		  "PORT" },
		{ NULL },
	};
	g_autoptr(GOptionContext) context = g_option_context_new("[SOCKET]");
	g_autoptr(GError) error = NULL;

	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error)) {
		fprintf(stderr, "fake_guest: %s\n", error->message);
		return 2;
	}
	if (argc != (pty || port >= 0 ? 1 : 2)) {
		fprintf(stderr, "usage: fake_guest [OPTION...] SOCKET | --pty | --tcp PORT\n");
		return 2;
	}
	guest = fake_guest_new(&(struct fake_guest_config){
		.max_data = max_data, .readonly = readonly, .control = control });
	if (fake_guest_misbehave(guest, misbehave)) {
		fprintf(stderr, "fake_guest: no such misbehaviour: %s\n", misbehave);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	fd = pty ? open_pty() : port >= 0 ? listen_tcp(port) : listen_unix(argv[1]);
	if (fd < 0) {
		fprintf(stderr, "fake_guest: %s\n", strerror(-fd));
		return 1;
	}
	if (!pty && port < 0)
		puts(argv[1]);
	fflush(stdout);	/* whoever reads this line may connect now */
	if (pty)
		fake_guest_serve(guest, fd);
	while (!pty && (rc = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		fake_guest_serve(guest, rc);
	return 1;
}
