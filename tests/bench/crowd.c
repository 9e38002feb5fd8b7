/* SPDX-License-Identifier: MIT */
/*
 * crowd: processes to look at, in the guest.
 *
 *	crowd idle N		N children that sleep, each with its number in its environment
 *	crowd memory SIZE	one that has SIZE bytes, each 8 of which hold their own address
 *
 * Prints a line of `key=value` words when all is there, and stays until it is killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static void die(const char *what)
{
	fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void stay(void)
{
	fflush(stdout);
	for (;;)
		pause();
}

/* In place: that is what others see, and it makes the page the child's own. */
static void number_environment(char *number, int i)
{
	char text[12];

	snprintf(text, sizeof(text), "%07d", i);
	memcpy(number, text, 7);
}

static void idle(const char *arg)
{
	char *number = getenv("CROWD_NUMBER");
	int n = atoi(arg), ready[2];
	char c;

	if (!number || strlen(number) != 7 || pipe(ready))
		die("CROWD_NUMBER=0000000 must be in the environment");
	for (int i = 1; i <= n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		number_environment(number, i);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		close(ready[0]);
		close(ready[1]);
		stay();
	}
	for (int i = 0; i < n; i++)
		if (read(ready[0], &c, 1) != 1)
			die("read");
	printf("pid=%d children=%d\n", getpid(), n);
	stay();
}

static void memory(const char *arg)
{
	size_t size = strtoull(arg, NULL, 0);
	uint64_t *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);

	if (start == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < size / sizeof(*start); i++)
		start[i] = (uintptr_t)&start[i];
	printf("pid=%d start=%p size=%zu\n", getpid(), (void *)start, size);
	stay();
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "idle"))
		idle(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "memory"))
		memory(argv[2]);
	fputs("usage: crowd idle N | memory SIZE\n", stderr);
	return 2;
}
