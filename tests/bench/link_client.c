/* SPDX-License-Identifier: MIT */
/*
 * link_client: how fast the link is when the guest does nothing but answer.
 *
 *	link_client SOCKET
 *
 * For a guest that has loaded hypermem_echo.ko (echo/).  Prints `max_data=
 * empty_us= small_us= small_p99_us= lone_mbs= mbs= copied_mbs=`: the largest frame that
 * HELLO offers, p50 of an answer without data and of one of 4 KiB, and MB/s of frames of
 * the largest size, with one request in flight, with as many as is best, and with those
 * when the guest copies the data first.
 */
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "guest/uapi/hypermem.h"

#define SMALL		4096
#define SMALL_COUNT	2000
#define BULK		((uint64_t)64 << 20)
#define INFLIGHT_MAX	32
#define TIMEOUT_S	20

static int sock;

static void die(const char *what)
{
	fprintf(stderr, "link_client: %s: %s\n", what,
		errno == EAGAIN ? "no answer; is hypermem_echo.ko loaded in the guest?" :
				  strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void link_open(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = TIMEOUT_S };

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(addr.sun_path, path);
	sock = socket(AF_UNIX, SOCK_STREAM, 0);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die(path);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
}

static void put(const void *bytes, size_t n)
{
	if (send(sock, bytes, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("send");
}

static void get(void *bytes, size_t n)
{
	ssize_t got = n ? recv(sock, bytes, n, MSG_WAITALL) : 0;

	if (got != (ssize_t)n) {
		errno = got < 0 ? errno : ECONNRESET;
		die("receive");
	}
}

static void link_say_hello(uint64_t nonce)
{
	struct {
		__le64 header[3];
		struct hypermem_hello hello;
	} frame = {
		.header = { htole64(HYPER_OP_HELLO), htole64(HYPERMEM_MAGIC),
			    htole64(sizeof(struct hypermem_hello)) },
		.hello = { .version = htole32(HYPERMEM_VERSION), .nonce = htole64(nonce),
			   .max_data = htole32(HYPERMEM_DATA_MAX) },
	};

	put(&frame, sizeof(frame));
}

/*
 * Whatever comes before the answer is of a session before this one.  A guest that says
 * RESET may still answer what was said before: only the last HELLO's answer counts.
 */
static uint32_t link_hello(void)
{
	const __le64 reset = htole64(HYPER_RESP_RESET);
	__le64 answer[2] = { htole64(HYPER_RESP_READ_OK), htole64(1) };
	struct hypermem_hello_reply reply;
	uint8_t header[HYPERMEM_HEADER_SIZE];

	link_say_hello(1);
	get(header, sizeof(header));
	while (memcmp(header, answer, sizeof(answer))) {
		if (!memcmp(header, &reset, sizeof(reset))) {
			answer[1] = htole64(le64toh(answer[1]) + 1);
			link_say_hello(le64toh(answer[1]));
		}
		memmove(header, header + 1, sizeof(header) - 1);
		get(header + sizeof(header) - 1, 1);
	}
	get(&reply, sizeof(reply));
	return le32toh(reply.max_data);
}

static void link_ask(uint32_t size, bool copied)
{
	const __le64 header[3] = { htole64(HYPER_OP_READ), htole64(copied), htole64(size) };

	put(header, sizeof(header));
}

/* One answer, of so many bytes. */
static void link_take(uint32_t size, void *buf)
{
	__le64 header[3];

	get(header, sizeof(header));
	if (le64toh(header[0]) != HYPER_RESP_READ_OK || (uint32_t)le64toh(header[2]) != size) {
		errno = EPROTO;
		die("answer");
	}
	get(buf, size);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct latency {
	double p50, p99;	/* µs */
};

static struct latency link_latency(uint32_t size, void *buf)
{
	static double times[SMALL_COUNT];

	for (int i = 0; i < SMALL_COUNT; i++) {
		double start = now();

		link_ask(size, false);
		link_take(size, buf);
		times[i] = now() - start;
	}
	qsort(times, SMALL_COUNT, sizeof(times[0]), compare);
	return (struct latency){ times[SMALL_COUNT / 2] * 1e6, times[SMALL_COUNT * 99 / 100] * 1e6 };
}

/* MB/s with so many in flight. */
static double link_bulk(uint32_t size, unsigned int inflight, bool copied, void *buf)
{
	uint64_t count = BULK / size, asked = 0, taken = 0;
	double start = now();

	for (; taken < count; taken++) {
		for (; asked < count && asked - taken < inflight; asked++)
			link_ask(size, copied);
		link_take(size, buf);
	}
	return (double)count * size / (now() - start) / 1e6;
}

static double link_best(uint32_t size, bool copied, void *buf)
{
	double best = 0, mbs;

	for (unsigned int inflight = 1; inflight <= INFLIGHT_MAX; inflight *= 2) {
		mbs = link_bulk(size, inflight, copied, buf);
		best = mbs > best ? mbs : best;
	}
	return best;
}

int main(int argc, char **argv)
{
	struct latency empty, small;
	uint32_t max_data;
	void *buf;

	if (argc != 2) {
		fputs("usage: link_client SOCKET\n", stderr);
		return 2;
	}
	link_open(argv[1]);
	max_data = link_hello();
	if (!max_data || max_data > HYPERMEM_DATA_MAX) {
		errno = EPROTO;
		die("HELLO");
	}
	buf = calloc(1, max_data);
	if (!buf)
		die("memory");
	empty = link_latency(0, buf);
	small = link_latency(SMALL < max_data ? SMALL : max_data, buf);
	printf("max_data=%u empty_us=%.1f small_us=%.1f small_p99_us=%.1f lone_mbs=%.1f mbs=%.1f copied_mbs=%.1f\n",
	       max_data, empty.p50, small.p50, small.p99, link_bulk(max_data, 1, false, buf),
	       link_best(max_data, false, buf), link_best(max_data, true, buf));
	free(buf);
	close(sock);
	return 0;
}
