/* SPDX-License-Identifier: MIT */
/*
 * call: how long a system call takes.
 *
 *	call COUNT
 *
 * Calls getppid(2) that often and prints `p50_ns= mean_ns= rate=`: the median of one call,
 * the time of one on average without looking at the clock between, and calls per second.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	long count = argc == 2 ? atol(argv[1]) : 0;
	double *times, start, mean;

	if (count <= 0) {
		fputs("call: COUNT is missing\n", stderr);
		return 2;
	}
	times = calloc(count, sizeof(*times));
	if (!times) {
		perror("call");
		return 1;
	}
	for (long i = 0; i < count; i++) {
		start = now();
		syscall(SYS_getppid);
		times[i] = now() - start;
	}
	qsort(times, count, sizeof(*times), compare);
	start = now();
	for (long i = 0; i < count; i++)
		syscall(SYS_getppid);
	mean = (now() - start) / (double)count;
	printf("p50_ns=%.0f mean_ns=%.0f rate=%.0f\n", times[count / 2], mean, 1e9 / mean);
	return 0;
}
