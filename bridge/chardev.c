// SPDX-License-Identifier: MIT
/*
 * chardev: connects to the host's end of a QEMU chardev.  See chardev.h.
 *
 * A path is looked at through an O_PATH descriptor, so that what is connected to
 * is what was looked at, and a path longer than a socket address can hold works.
 */
#include "bridge/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

/* As much as the system lets us have: a frame is up to 1 MiB. */
#define SOCKET_BUFFER (1024 * 1024)

#define KEEPALIVE_IDLE 30	/* seconds of silence before the other end is asked */
#define KEEPALIVE_INTERVAL 10	/* seconds between questions */
#define KEEPALIVE_COUNT 3	/* unanswered questions: it is gone */

static void fd_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define auto_fd __attribute__((cleanup(fd_close))) int

#define SERIAL "serial:"

static int fd_steal(int *fd)
{
	int n = *fd;

	*fd = -1;
	return n;
}

/* A number, or a name; the resolver would take the lower 16 bits of any number. */
static bool tcp_port_is_good(const char *port)
{
	guint64 number;

	return !g_ascii_isdigit(*port) ||
	       g_ascii_string_to_unsigned(port, 10, 1, 65535, &number, NULL);
}

/* Split "HOST:PORT" or "[HOST]:PORT". */
static int tcp_parse(const char *text, char **ret_host, char **ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t n = colon ? colon - text : 0;

	if (!n || !colon[1] || !tcp_port_is_good(colon + 1))
		return -EINVAL;
	if (text[0] == '[') {
		if (text[n - 1] != ']' || n < 3)
			return -EINVAL;
		text++;
		n -= 2;
	} else if (memchr(text, ':', n)) {
		return -EINVAL;
	}
	*ret_host = g_strndup(text, n);
	*ret_port = g_strdup(colon + 1);
	return 0;
}

bool hm_chardev_is_serial(const char *address)
{
	return g_str_has_prefix(address, SERIAL);
}

/* The address without the word that says what the guest has at the other end. */
static const char *address_of_chardev(const char *address)
{
	return address + (hm_chardev_is_serial(address) ? strlen(SERIAL) : 0);
}

static int resolve_plain(const char *address, char **ret)
{
	g_autofree char *host = NULL, *port = NULL;
	const char *path = address;

	if (g_str_has_prefix(address, "tcp:")) {
		if (tcp_parse(address + strlen("tcp:"), &host, &port))
			return -EINVAL;
		*ret = g_strdup(address);
		return 0;
	}
	if (g_str_has_prefix(address, "unix:"))
		path = address + strlen("unix:");
	else if (strchr(address, ':') && !strchr(address, '/'))
		return -EINVAL;
	if (!*path)
		return -EINVAL;
	*ret = g_canonicalize_filename(path, NULL);
	return 0;
}

int hm_chardev_resolve(const char *address, char **ret)
{
	g_autofree char *plain = NULL;
	int rc = resolve_plain(address_of_chardev(address), &plain);

	if (rc == 0)
		*ret = g_strconcat(hm_chardev_is_serial(address) ? SERIAL : "", plain, NULL);
	return rc;
}

/* Connects within timeout_ms: SO_SNDTIMEO bounds the wait for a Unix socket's backlog, too. */
static int socket_connect(int fd, const struct sockaddr *addr, socklen_t size, int timeout_ms)
{
	struct timeval tv = {
		.tv_sec = timeout_ms / 1000,
		.tv_usec = timeout_ms % 1000 * 1000,
	};
	int buffer = SOCKET_BUFFER;

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	if (connect(fd, addr, size) < 0)
		return errno == EAGAIN || errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static int unix_open(const char *path, int timeout_ms, int *ret)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	auto_fd fd = -1;
	int rc;

	if (g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path)) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = socket_connect(fd, (const struct sockaddr *)&addr, sizeof(addr), timeout_ms);
	if (rc)
		return rc;
	*ret = fd_steal(&fd);
	return 0;
}

/* A terminal would change bytes, echo them, or turn some into signals. */
static int terminal_init(int fd)
{
	struct termios tio;

	if (tcgetattr(fd, &tio) < 0)
		return -errno;
	cfmakeraw(&tio);
	tio.c_cflag |= CLOCAL | CREAD;
	if (tcsetattr(fd, TCSANOW, &tio) < 0 || tcflush(fd, TCIOFLUSH) < 0)
		return -errno;
	return 0;
}

static int device_open(const char *path, int *ret)
{
	auto_fd fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	rc = isatty(fd) ? terminal_init(fd) : 0;
	if (rc)
		return rc;
	*ret = fd_steal(&fd);
	return 0;
}

static int path_open(const char *path, int timeout_ms, int *ret)
{
	auto_fd fd = open(path, O_PATH | O_CLOEXEC);
	g_autofree char *same = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	same = g_strdup_printf("/proc/self/fd/%d", fd);
	if (S_ISSOCK(st.st_mode))
		return unix_open(same, timeout_ms, ret);
	if (S_ISCHR(st.st_mode))
		return device_open(same, ret);
	return -ENOTSUP;
}

static void tcp_init(int fd)
{
	int on = 1, idle = KEEPALIVE_IDLE, interval = KEEPALIVE_INTERVAL, count = KEEPALIVE_COUNT;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

/* One address of a host. */
static int tcp_connect(const struct addrinfo *info, int timeout_ms, int *ret)
{
	auto_fd fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol);
	int rc;

	if (fd < 0)
		return -errno;
	tcp_init(fd);
	rc = socket_connect(fd, info->ai_addr, info->ai_addrlen, timeout_ms);
	if (rc)
		return rc;
	*ret = fd_steal(&fd);
	return 0;
}

static int tcp_open(const char *text, int timeout_ms, int *ret)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	int64_t deadline = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
	g_autofree char *host = NULL, *port = NULL;
	struct addrinfo *list;
	int rc;

	rc = tcp_parse(text, &host, &port);
	if (rc)
		return rc;
	if (getaddrinfo(host, port, &hints, &list))
		return -EHOSTUNREACH;
	rc = -EHOSTUNREACH;
	for (const struct addrinfo *info = list; info && rc; info = info->ai_next) {
		int64_t left = (deadline - g_get_monotonic_time()) / 1000;

		rc = tcp_connect(info, MAX(left, 1), ret);
	}
	freeaddrinfo(list);
	return rc;
}

int hm_chardev_open(const char *address, int timeout_ms, int *ret)
{
	timeout_ms = MAX(timeout_ms, 1);
	address = address_of_chardev(address);
	if (g_str_has_prefix(address, "tcp:"))
		return tcp_open(address + strlen("tcp:"), timeout_ms, ret);
	if (g_str_has_prefix(address, "unix:"))
		address += strlen("unix:");
	return path_open(address, timeout_ms, ret);
}

ssize_t hm_chardev_send(int fd, const struct iovec *iov, int n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	ssize_t done;

	do {
		done = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (done < 0 && errno == ENOTSOCK)
			done = writev(fd, iov, n);
	} while (done < 0 && errno == EINTR);
	return done < 0 ? -errno : done;
}

ssize_t hm_chardev_receive(int fd, const struct iovec *iov, int n)
{
	ssize_t done;

	do {
		done = readv(fd, iov, n);
	} while (done < 0 && errno == EINTR);
	if (done == 0)
		return -ECONNRESET;
	return done < 0 ? -errno : done;
}

pid_t hm_chardev_peer(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	/* TCP sockets take the question, too, and answer 0. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.pid < 0)
		return 0;
	return peer.pid;
}
