// SPDX-License-Identifier: MIT
/*
 * said: what others say on standard error.  See said.h.
 */
#include "fs/said.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FUSERMOUNT "fusermount3: "

void hmfs_said_begin(struct hmfs_said *said)
{
	fflush(stderr);
	said->stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	said->fd = said->stderr_fd < 0 ? -1 : memfd_create("hypermemfs-said", MFD_CLOEXEC);
	if (said->fd >= 0 && dup2(said->fd, STDERR_FILENO) < 0) {
		close(said->fd);
		said->fd = -1;
	}
}

static char *said_text(int fd)
{
	char text[1024];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return NULL;
	text[n] = '\0';
	g_strdelimit(g_strstrip(text), "\n", ' ');
	return g_strdup(text + (g_str_has_prefix(text, FUSERMOUNT) ? strlen(FUSERMOUNT) : 0));
}

char *hmfs_said_end(struct hmfs_said *said)
{
	char *text = NULL;

	if (said->fd >= 0) {
		fflush(stderr);
		dup2(said->stderr_fd, STDERR_FILENO);
		text = said_text(said->fd);
		close(said->fd);
	}
	if (said->stderr_fd >= 0)
		close(said->stderr_fd);
	return text;
}
