/* SPDX-License-Identifier: MIT */
/*
 * pread: how long preads of a file take.
 *
 *	pread FILE START LENGTH SIZE COUNT [THREADS]
 *
 * COUNT reads of SIZE bytes, one behind another from START on, and again from there
 * at START + LENGTH; each of the THREADS does that, from another place.  Prints
 * `p50_us= p99_us= rate= mbs=`: of one read, reads per second and MB/s of all together.
 * A read that is short or fails ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct job {
	const char *path;
	uint64_t start, length, size, count, threads;
	pthread_barrier_t barrier;
	double *times;			/* count per thread */
};

struct reader {
	struct job *job;
	uint64_t number;
	pthread_t thread;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "pread: %s: %s\n", what, why);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *read_all(void *arg)
{
	const struct reader *reader = arg;
	struct job *job = reader->job;
	uint64_t at = job->length / job->threads * reader->number;
	double *times = job->times + job->count * reader->number, start;
	int fd = open(job->path, O_RDONLY);
	void *buf = mmap(NULL, job->size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ssize_t n;

	if (fd < 0 || buf == MAP_FAILED)
		die(job->path, strerror(errno));
	at -= at % job->size;
	pthread_barrier_wait(&job->barrier);
	for (uint64_t i = 0; i < job->count; i++, at += job->size) {
		if (at + job->size > job->length)
			at = 0;
		start = now();
		n = pread(fd, buf, job->size, (off_t)(job->start + at));
		times[i] = now() - start;
		if (n != (ssize_t)job->size)
			die(job->path, n < 0 ? strerror(errno) : "a short read");
	}
	pthread_barrier_wait(&job->barrier);
	close(fd);
	munmap(buf, job->size);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double run(struct job *job)
{
	struct reader *readers = calloc(job->threads, sizeof(*readers));
	double start, end;

	if (!readers)
		die("memory", strerror(errno));
	pthread_barrier_init(&job->barrier, NULL, (unsigned int)job->threads + 1);
	for (uint64_t i = 0; i < job->threads; i++) {
		readers[i] = (struct reader){ .job = job, .number = i };
		if ((errno = pthread_create(&readers[i].thread, NULL, read_all, &readers[i])))
			die("a thread", strerror(errno));
	}
	pthread_barrier_wait(&job->barrier);
	start = now();
	pthread_barrier_wait(&job->barrier);
	end = now();
	for (uint64_t i = 0; i < job->threads; i++)
		pthread_join(readers[i].thread, NULL);
	free(readers);
	return end - start;
}

int main(int argc, char **argv)
{
	struct job job = { .threads = 1 };
	uint64_t n;
	double seconds;

	if (argc < 6)
		die("usage", "pread FILE START LENGTH SIZE COUNT [THREADS]");
	job.path = argv[1];
	job.start = strtoull(argv[2], NULL, 0);
	job.length = strtoull(argv[3], NULL, 0);
	job.size = strtoull(argv[4], NULL, 0);
	job.count = strtoull(argv[5], NULL, 0);
	if (argc > 6)
		job.threads = strtoull(argv[6], NULL, 0);
	if (!job.size || job.size > job.length || !job.count || !job.threads)
		die("usage", "SIZE is at most LENGTH, and nothing is 0");
	n = job.count * job.threads;
	job.times = calloc(n, sizeof(*job.times));
	if (!job.times)
		die("memory", strerror(errno));
	seconds = run(&job);
	qsort(job.times, n, sizeof(*job.times), compare);
	printf("p50_us=%.2f p99_us=%.2f rate=%.1f mbs=%.2f\n", job.times[n / 2] * 1e6,
	       job.times[n * 99 / 100] * 1e6, (double)n / seconds,
	       (double)n * (double)job.size / seconds / 1e6);
	free(job.times);
	return 0;
}
