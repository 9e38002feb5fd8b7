/* SPDX-License-Identifier: MIT */
/*
 * hook_client: the quickest handler of a hook that there is on the files.
 *
 *	hook_client [-w] HOOK [FILTER]
 *
 * HOOK is a directory of the mount's hooks/.  Sets the filter, says `ready`, and lets each
 * call go on as soon as it is told of it, until the hook is removed or it is killed.  With -w
 * it waits until the guest has said that the call does.  With SIGTERM it prints
 * `events= lost=`: how many there were, and how many it was told were lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	ended = 1;
}

static int open_file(const char *hook, const char *name, int flags)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", hook, name);
	fd = open(path, flags);
	if (fd < 0) {
		fprintf(stderr, "hook_client: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	return fd;
}

static unsigned long number_of(const char *line, const char *key)
{
	const char *at = strstr(line, key);

	return at ? strtoul(at + strlen(key), NULL, 10) : 0;
}

static void let_go(int reply, const char *line)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "%lu continue\n", number_of(line, "id="));

	/* It may have ended, or been told to go on without us: nothing to do about it. */
	if (write(reply, text, n) < 0 && errno != ESRCH)
		fprintf(stderr, "hook_client: reply: %s\n", strerror(errno));
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal };	/* without SA_RESTART */
	unsigned long count = 0, lost = 0;
	int flags = O_WRONLY | O_NONBLOCK;
	static char lines[1 << 16];
	int filter, events, reply;
	ssize_t n;

	if (argc > 1 && strcmp(argv[1], "-w") == 0) {
		flags = O_WRONLY;
		argc--;
		argv++;
	}
	if (argc < 2 || argc > 3) {
		fputs("usage: hook_client [-w] HOOK [FILTER]\n", stderr);
		return 2;
	}
	sigaction(SIGTERM, &action, NULL);
	events = open_file(argv[1], "events", O_RDONLY);
	reply = open_file(argv[1], "reply", flags);
	if (argc == 3) {
		filter = open_file(argv[1], "filter", O_WRONLY);
		if (write(filter, argv[2], strlen(argv[2])) < 0) {
			fprintf(stderr, "hook_client: %s: %s\n", argv[2], strerror(errno));
			return 1;
		}
		close(filter);
	}
	puts("ready");
	fflush(stdout);
	while (!ended && (n = read(events, lines, sizeof(lines) - 1)) > 0) {
		lines[n] = 0;
		for (char *line = strtok(lines, "\n"); line; line = strtok(NULL, "\n")) {
			count++;
			lost += number_of(line, " lost=");
			if (number_of(line, "id="))
				let_go(reply, line);
		}
	}
	printf("events=%lu lost=%lu\n", count, lost);
	return 0;
}
