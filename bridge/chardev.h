/* SPDX-License-Identifier: MIT */
/*
 * chardev: bytes to and from a QEMU chardev.
 *
 * The only file that knows sockets and terminals.  An address is
 *
 *	PATH			a Unix socket, a pty or a character device
 *	unix:PATH		the same
 *	tcp:HOST:PORT		HOST may be an IPv6 address in brackets
 *	serial:ADDRESS		any of these, where the guest has a serial line
 *
 * It knows nothing of frames.
 */
#ifndef HM_CHARDEV_H
#define HM_CHARDEV_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * The address in a form that still works after chdir: relative paths made
 * absolute.  -EINVAL: not of one of the forms above.
 */
int hm_chardev_resolve(const char *address, char **ret);

/* Bytes may be lost on the way, and noise come in: see serial.h. */
bool hm_chardev_is_serial(const char *address);

/*
 * Connect or open; the descriptor is non-blocking and close-on-exec, a terminal
 * is put in raw mode and flushed.  Waits at most timeout_ms.
 * -ENOENT no such path, -ECONNREFUSED nobody listens, -ENOTSUP neither socket
 * nor character device, -EHOSTUNREACH host not found, -ETIMEDOUT, or errno of open/connect.
 * Looking up the name of a TCP host takes as long as the resolver takes.
 */
int hm_chardev_open(const char *address, int timeout_ms, int *ret);

/* Send or receive some bytes, without waiting: -EAGAIN.  -ECONNRESET: the other end hung up. */
ssize_t hm_chardev_send(int fd, const struct iovec *iov, int n);
ssize_t hm_chardev_receive(int fd, const struct iovec *iov, int n);

/*
 * The process on this host that listens at the other end of a Unix socket: QEMU, if
 * it made the socket itself.  0: there is none, or it cannot be told.
 */
pid_t hm_chardev_peer(int fd);

#endif
