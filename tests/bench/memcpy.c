/* SPDX-License-Identifier: MIT */
/*
 * memcpy: how fast memory is copied here.  Prints `mbs=`, the median of 9 copies
 * of 64 MiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIZE ((size_t)64 << 20)
#define TIMES 9

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

int main(void)
{
	char *from = malloc(SIZE), *to = malloc(SIZE);
	void *(*volatile copy)(void *, const void *, size_t) = memcpy;	/* not optimized away */
	double times[TIMES];

	if (!from || !to) {
		fputs("memcpy: no memory\n", stderr);
		return 1;
	}
	memset(from, 1, SIZE);
	memset(to, 2, SIZE);
	for (int i = 0; i < TIMES; i++) {
		double start = now();

		copy(to, from, SIZE);
		times[i] = now() - start;
	}
	qsort(times, TIMES, sizeof(times[0]), compare);
	printf("mbs=%.1f\n", (double)SIZE / times[TIMES / 2] / 1e6);
	free(from);
	free(to);
	return 0;
}
