/* SPDX-License-Identifier: MIT */
/*
 * stopwatch: how long a command takes, on the host or in the guest.
 *
 *	stopwatch COMMAND [ARGUMENT...]
 *
 * Prints `seconds=`.  The command's own output is thrown away, its errors are not.
 * Exits as the command does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void execute(char **argv)
{
	int null = open("/dev/null", O_WRONLY);

	if (null < 0 || dup2(null, 1) < 0)
		_exit(127);
	execvp(argv[0], argv);
	fprintf(stderr, "stopwatch: %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

int main(int argc, char **argv)
{
	double start;
	int status;
	pid_t pid;

	if (argc < 2) {
		fputs("stopwatch: COMMAND is missing\n", stderr);
		return 2;
	}
	start = now();
	pid = fork();
	if (pid == 0)
		execute(argv + 1);
	if (pid < 0 || waitpid(pid, &status, 0) < 0) {
		fprintf(stderr, "stopwatch: %s\n", strerror(errno));
		return 127;
	}
	printf("seconds=%.6f\n", now() - start);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
