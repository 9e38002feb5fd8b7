// SPDX-License-Identifier: MIT
/*
 * chardev: addresses, and bytes through each kind of chardev and back unchanged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "bridge/chardev.h"

static void an_address_becomes_absolute_or_is_refused(void **state)
{
	g_autofree char *cwd = g_get_current_dir();
	g_autofree char *below = g_build_filename(cwd, "a", "b", NULL);
	const struct {
		const char *address, *expected;
	} rows[] = {
		{ "/run/vm.sock", "/run/vm.sock" },
		{ "./a/b", below },
		{ "a/b", below },
		{ "unix:a/b", below },
		{ "unix:/run/vm.sock", "/run/vm.sock" },
		{ "tcp:localhost:1234", "tcp:localhost:1234" },
		{ "tcp:[::1]:1234", "tcp:[::1]:1234" },
		{ "", NULL },
		{ "unix:", NULL },
		{ "tcp:", NULL },
		{ "tcp:localhost", NULL },
		{ "tcp:localhost:", NULL },
		{ "tcp::1234", NULL },
		{ "tcp:::1:1234", NULL },
		{ "tcp:[]:1234", NULL },
		{ "vsock:3:1234", NULL },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *ret = NULL;
		int rc = hm_chardev_resolve(rows[i].address, &ret);

		if (rc != (rows[i].expected ? 0 : -EINVAL) ||
		    g_strcmp0(ret, rows[i].expected) != 0)
			fail_msg("\"%s\": %d %s", rows[i].address, rc, ret);
	}
}

/* Bytes there and back, all values; `other` is the far end. */
static void check_bytes(int fd, int other)
{
	uint8_t bytes[256], back[256];
	struct iovec out = { bytes, sizeof(bytes) };
	size_t n = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(hm_chardev_receive(fd, &(struct iovec){ back, 1 }, 1), -EAGAIN);
	assert_int_equal(hm_chardev_send(fd, &out, 1), sizeof(bytes));
	while (n < sizeof(back)) {
		ssize_t part = read(other, back + n, sizeof(back) - n);

		assert_true(part > 0);
		n += part;
	}
	assert_memory_equal(back, bytes, sizeof(bytes));
	assert_int_equal(write(other, bytes, sizeof(bytes)), sizeof(bytes));
	memset(back, 0, sizeof(back));
	for (n = 0; n < sizeof(back);) {
		struct pollfd poll_in = { .fd = fd, .events = POLLIN };
		struct iovec in = { back + n, sizeof(back) - n };
		ssize_t part;

		assert_int_equal(poll(&poll_in, 1, 5000), 1);
		part = hm_chardev_receive(fd, &in, 1);
		assert_true(part > 0);
		n += part;
	}
	assert_memory_equal(back, bytes, sizeof(bytes));
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* Listens in a directory of `depth` times 50 more letters. */
static int unix_listen(const char *dir, int depth, char **ret)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX, .sun_path = "chardev" };
	g_autofree char *cwd = g_get_current_dir();
	g_autoptr(GString) path = g_string_new(dir);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	for (int i = 0; i < depth; i++)
		g_string_append(path, "/0123456789012345678901234567890123456789012345678");
	assert_int_equal(g_mkdir_with_parents(path->str, 0700), 0);
	assert_int_equal(chdir(path->str), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(chdir(cwd), 0);
	*ret = g_build_filename(path->str, "chardev", NULL);
	return fd;
}

static void remove_all(const char *dir)
{
	g_autofree char *quoted = g_shell_quote(dir);
	g_autofree char *command = g_strdup_printf("rm -r %s", quoted);

	assert_int_equal(system(command), 0);
}

static void a_unix_socket_carries_any_byte(void **state)
{
	g_autofree char *dir = g_dir_make_tmp("hypermem-XXXXXX", NULL);
	g_autofree char *address = NULL, *with_scheme = NULL;
	int listener = unix_listen(dir, 0, &address);
	int fd, other;

	assert_int_equal(hm_chardev_open(address, 1000, &fd), 0);
	other = accept(listener, NULL, NULL);
	check_bytes(fd, other);
	close(other);
	assert_int_equal(hm_chardev_receive(fd, &(struct iovec){ &other, 1 }, 1), -ECONNRESET);
	assert_int_equal(hm_chardev_send(fd, &(struct iovec){ &other, 1 }, 1), -EPIPE);
	close(fd);
	with_scheme = g_strconcat("unix:", address, NULL);
	assert_int_equal(hm_chardev_open(with_scheme, 1000, &fd), 0);
	close(fd);
	close(listener);
	remove_all(dir);
}

static void a_path_may_be_longer_than_a_socket_address(void **state)
{
	g_autofree char *dir = g_dir_make_tmp("hypermem-XXXXXX", NULL);
	g_autofree char *address = NULL;
	int listener = unix_listen(dir, 4, &address);
	int fd, other;

	assert_true(strlen(address) > sizeof(((struct sockaddr_un *)0)->sun_path));
	assert_int_equal(hm_chardev_open(address, 1000, &fd), 0);
	other = accept(listener, NULL, NULL);
	check_bytes(fd, other);
	close(fd);
	close(other);
	close(listener);
	remove_all(dir);
}

static void a_full_backlog_is_waited_for_only_so_long(void **state)
{
	g_autofree char *dir = g_dir_make_tmp("hypermem-XXXXXX", NULL);
	g_autofree char *address = NULL;
	int listener = unix_listen(dir, 0, &address);
	int fds[8], n, rc = 0;
	int64_t began = 0;

	for (n = 0; n < 8 && rc == 0; n++) {
		began = g_get_monotonic_time();
		rc = hm_chardev_open(address, 100, &fds[n]);
	}
	assert_int_equal(rc, -ETIMEDOUT);
	assert_in_range(g_get_monotonic_time() - began, 90 * 1000, 3000 * 1000);
	for (int i = 0; i < n - 1; i++)
		close(fds[i]);
	close(listener);
	remove_all(dir);
}

static void what_cannot_be_opened_says_why(void **state)
{
	g_autofree char *dir = g_dir_make_tmp("hypermem-XXXXXX", NULL);
	g_autofree char *address = NULL, *missing = g_build_filename(dir, "missing", NULL);
	int fd;

	close(unix_listen(dir, 0, &address));
	assert_int_equal(hm_chardev_open(address, 1000, &fd), -ECONNREFUSED);
	assert_int_equal(hm_chardev_open(missing, 1000, &fd), -ENOENT);
	assert_int_equal(hm_chardev_open(dir, 1000, &fd), -ENOTSUP);
	assert_int_equal(hm_chardev_open("tcp:127.0.0.1:1", 1000, &fd), -ECONNREFUSED);
	remove_all(dir);
}

static void a_tcp_connection_carries_any_byte(void **state)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	g_autofree char *address = NULL;
	int fd, other;

	assert_int_equal(bind(listener, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &size), 0);
	address = g_strdup_printf("tcp:127.0.0.1:%u", ntohs(addr.sin_port));
	assert_int_equal(hm_chardev_open(address, 1000, &fd), 0);
	other = accept(listener, NULL, NULL);
	check_bytes(fd, other);
	close(fd);
	close(other);
	close(listener);
}

static void a_terminal_carries_any_byte(void **state)
{
	int other = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	char name[128];
	int fd;

	assert_int_equal(grantpt(other), 0);
	assert_int_equal(unlockpt(other), 0);
	assert_int_equal(ptsname_r(other, name, sizeof(name)), 0);
	assert_int_equal(write(other, "noise\n", 6), 6);	/* of before; thrown away */
	assert_int_equal(hm_chardev_open(name, 1000, &fd), 0);
	tcflush(other, TCIFLUSH);				/* its echo */
	check_bytes(fd, other);
	close(other);
	assert_true(hm_chardev_receive(fd, &(struct iovec){ name, 1 }, 1) < 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_becomes_absolute_or_is_refused),
		cmocka_unit_test(a_unix_socket_carries_any_byte),
		cmocka_unit_test(a_path_may_be_longer_than_a_socket_address),
		cmocka_unit_test(a_full_backlog_is_waited_for_only_so_long),
		cmocka_unit_test(what_cannot_be_opened_says_why),
		cmocka_unit_test(a_tcp_connection_carries_any_byte),
		cmocka_unit_test(a_terminal_carries_any_byte),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
