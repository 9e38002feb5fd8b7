// SPDX-License-Identifier: MIT
/*
 * mapper: a process with many mappings, or with a big one.  Like vm/victim.c it
 * prints one line of `key=value` words and stays until it is killed.
 *
 *	mapper maps N		N mappings of a page each
 *	mapper big BYTES	one mapping; every 8 bytes hold their own address
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *map(size_t size)
{
	/* Pages may be large, and are not touched. */
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mapper: mmap");
		exit(1);
	}
	return p;
}

int main(int argc, char **argv)
{
	size_t page = sysconf(_SC_PAGESIZE), n = argc == 3 ? strtoul(argv[2], NULL, 0) : 0;
	char *region;

	if (n > 0 && !strcmp(argv[1], "maps")) {
		region = map(n * page);
		/* Every other page has another protection, so neighbours do not merge. */
		for (size_t i = 0; i < n; i += 2)
			mprotect(region + i * page, page, PROT_READ);
	} else if (n > 0 && !strcmp(argv[1], "big")) {
		region = map(n);
		for (uint64_t *p = (uint64_t *)region; (char *)p < region + n; p++)
			*p = (uintptr_t)p;
	} else {
		fprintf(stderr, "usage: mapper maps N | big BYTES\n");
		return 2;
	}
	printf("pid=%d region=%p size=%zu\n", getpid(), (void *)region, n);
	fflush(stdout);
	for (;;)
		pause();
}
