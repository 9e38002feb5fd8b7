// SPDX-License-Identifier: MIT
/*
 * daemon: to the background, once all is well.  See daemon.h.
 */
#include "fs/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Until the child is ready, or has ended: then as it has ended. */
static void wait_and_exit(pid_t child, int ready)
{
	int status;
	char byte;
	ssize_t n;

	do {
		n = read(ready, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			_exit(EXIT_FAILURE);
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
}

int hmfs_daemon_init(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);		/* not O_CLOEXEC: what is started has it, too */
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int hmfs_daemon_begin(struct hmfs_daemon *daemon)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child < 0) {
		int rc = -errno;

		close(fds[0]);
		close(fds[1]);
		return rc;
	}
	if (child) {
		close(fds[1]);
		wait_and_exit(child, fds[0]);
	}
	close(fds[0]);
	daemon->ready = fds[1];
	return 0;
}

int hmfs_daemon_ready(struct hmfs_daemon *daemon)
{
	int null;

	if (daemon->ready < 0)
		return 0;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || setsid() < 0 || chdir("/") < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
		return -errno;
	close(null);
	/* Whoever waited may have gone: that changes nothing. */
	if (write(daemon->ready, "", 1) < 0 && errno != EPIPE)
		return -errno;
	close(daemon->ready);
	daemon->ready = -1;
	return 0;
}
