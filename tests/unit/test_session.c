// SPDX-License-Identifier: MIT
/*
 * session: HELLO, late and wrong and missing answers, lost links, many threads.
 *
 * After whatever the guest has done, a well-behaved guest must be served again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bridge/stream.h"
#include "tests/unit/guest.h"

#define CHUNK HYPERMEM_CHUNK_SIZE

/* Of a request: long enough for a loaded machine, short enough to wait for. */
#define TIMEOUT_MS 300
#define THREADS 8

static const struct hm_who who = { GUEST_EPOCH, GUEST_PID, GUEST_STAMP };

struct world {
	struct guest *guest;
	struct hm_client *client;
};

static gint warnings;		/* atomic */
static gint is_interrupted;	/* atomic */
static gint awake;		/* atomic: the guest goes on */

static bool interrupted(void)
{
	return g_atomic_int_get(&is_interrupted);
}

static int64_t now_ms(void)
{
	return g_get_monotonic_time() / 1000;
}

static int open_client(struct guest *guest, int timeout_ms, struct hm_refusal *refusal,
		       struct hm_client **ret)
{
	struct hm_client_config config = {
		.address = guest->address, .timeout_ms = timeout_ms, .interrupted = interrupted,
	};

	return hm_client_open(&config, refusal, ret);
}

/* A guest with nobody to talk to. */
static int setup_guest(void **state)
{
	struct world *world = g_new0(struct world, 1);

	world->guest = guest_new();
	g_atomic_int_set(&is_interrupted, 0);
	g_atomic_int_set(&warnings, 0);
	*state = world;
	return 0;
}

static void start(struct world *world, int timeout_ms)
{
	struct hm_refusal refusal;

	assert_int_equal(open_client(world->guest, timeout_ms, &refusal, &world->client), 0);
	assert_int_equal(hm_client_start(world->client), 0);
}

static int setup(void **state)
{
	setup_guest(state);
	start(*state, TIMEOUT_MS);
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	g_atomic_int_set(&awake, 1);
	hm_client_close(world->client);
	guest_free(world->guest);
	g_free(world);
	return 0;
}

static ssize_t read_at(struct world *world, uint64_t addr)
{
	uint8_t buf[100];
	ssize_t n = hm_client_read(world->client, who, addr, buf, sizeof(buf));

	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(buf[i], guest_byte(addr + i));
	return n;
}

/* The guest behaves well from now on: sooner or later that must show. */
static void check_recovers(struct world *world)
{
	int64_t until = now_ms() + 5000;
	ssize_t n;

	guest_script(world->guest, NULL);
	while ((n = read_at(world, 0x5000)) != 100 && now_ms() < until)
		g_usleep(5000);
	assert_int_equal(n, 100);
}

/* -- wrong answers ----------------------------------------------------------------- */

static void reply_to(struct guest *guest, struct hm_header request, uint32_t resp, uint64_t addr,
		     uint32_t size)
{
	g_autofree uint8_t *bytes = g_malloc0(size);

	guest_reply(guest, &request, resp, addr, bytes, size);
}

#define ANSWER(name, ...)                                                                          \
	static bool name(struct guest *guest, const struct hm_header *request,                     \
			 const uint8_t *data)                                                      \
	{                                                                                          \
		struct hm_header re = *request;                                                    \
                                                                                                   \
		if (re.op == HYPER_OP_HELLO)                                                       \
			return false;                                                              \
		__VA_ARGS__;                                                                       \
		return true;                                                                       \
	}

ANSWER(wrong_tag, re.tag ^= 0x5aa5; reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, re.size))
ANSWER(tag_of_hello, re.tag = 0; reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, re.size))
ANSWER(wrong_pid, re.pid++; reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, re.size))
ANSWER(wrong_stamp, re.stamp++; reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, re.size))
ANSWER(wrong_addr, reply_to(guest, re, HYPER_RESP_READ_OK, re.addr + 1, re.size))
ANSWER(wrong_kind, reply_to(guest, re, HYPER_RESP_WRITE_OK, re.addr, re.size))
ANSWER(too_many, reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, re.size + 1))
ANSWER(too_few, reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, re.size - 1))
ANSWER(errno_zero, reply_to(guest, re, HYPER_RESP_READ_FAIL, 0, 0))
ANSWER(unknown_response, reply_to(guest, re, 0xf00000ff, re.addr, 0))
ANSWER(unknown_response_with_data, reply_to(guest, re, 0xf00001ff, re.addr, re.size))
ANSWER(operation, reply_to(guest, re, HYPER_OP_READ, re.addr, 0))
ANSWER(oversize, reply_to(guest, re, HYPER_RESP_READ_OK, re.addr, CHUNK + 1))
ANSWER(hang_up, guest_hang_up(guest))
ANSWER(reset, reply_to(guest, (struct hm_header){ 0 }, HYPER_RESP_RESET, 0, 0))
ANSWER(silence, (void)re)

static bool half_a_header(struct guest *guest, const struct hm_header *request,
			  const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO)
		return false;
	guest_send(guest, "\x01\x01\x00\xf0", 4);
	guest_hang_up(guest);
	return true;
}

/* The header and some of the data that it announces. */
static void send_half(struct guest *guest, const struct hm_header *request)
{
	struct hm_header reply = *request;
	uint8_t frame[HYPERMEM_HEADER_SIZE + 10] = { 0 };

	reply.op = HYPER_RESP_READ_OK;
	hm_header_encode(&reply, frame);
	guest_send(guest, frame, sizeof(frame));
}

static bool half_a_frame(struct guest *guest, const struct hm_header *request,
			 const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO)
		return false;
	send_half(guest, request);
	guest_hang_up(guest);
	return true;
}

static bool garbage(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	uint8_t bytes[5000];

	if (request->op == HYPER_OP_HELLO)
		return false;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * i >> 3) | 1;
	guest_send(guest, bytes, sizeof(bytes));
	return true;
}

/* How a read ends, and whether that is the end of the connection, too. */
static const struct {
	const char *what;
	guest_answer answer;
	int rc;
	int hellos;		/* said anew */
	int warnings;		/* at least */
} wrongs[] = {
	{ "wrong tag", wrong_tag, -ETIMEDOUT, 0, 1 },
	{ "tag of HELLO", tag_of_hello, -ETIMEDOUT, 0, 1 },
	{ "wrong pid", wrong_pid, -EPROTO, 0, 1 },
	{ "wrong stamp", wrong_stamp, -EPROTO, 0, 1 },
	{ "wrong address", wrong_addr, -EPROTO, 0, 1 },
	{ "wrong kind", wrong_kind, -EPROTO, 0, 1 },
	{ "too many bytes", too_many, -EPROTO, 0, 1 },
	{ "too few bytes", too_few, -EPROTO, 0, 1 },
	{ "errno 0", errno_zero, -EPROTO, 0, 1 },
	{ "unknown response", unknown_response, -ENOTCONN, 1, 1 },
	{ "unknown response with data", unknown_response_with_data, -ENOTCONN, 1, 1 },
	{ "an operation", operation, -ENOTCONN, 1, 1 },
	{ "more than agreed", oversize, -ENOTCONN, 1, 1 },
	{ "closed", hang_up, -ENOTCONN, 1, 0 },
	{ "reset", reset, -ENOTCONN, 1, 0 },
	{ "half a header", half_a_header, -ENOTCONN, 1, 0 },
	{ "half a frame", half_a_frame, -ENOTCONN, 1, 0 },
	{ "garbage", garbage, -ENOTCONN, 1, 1 },
	{ "silence", silence, -ETIMEDOUT, 0, 0 },
};

static void a_wrong_answer_fails_its_request_and_no_other(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < G_N_ELEMENTS(wrongs); i++) {
		int hellos = g_atomic_int_get(&world->guest->hellos);
		ssize_t n;

		/* A client of its own: each is complained about for the first time. */
		g_atomic_int_set(&warnings, 0);
		guest_script(world->guest, wrongs[i].answer);
		n = read_at(world, 0x1000);
		if (n != wrongs[i].rc)
			fail_msg("%s: %zd", wrongs[i].what, n);
		check_recovers(world);
		if (g_atomic_int_get(&world->guest->hellos) != hellos + wrongs[i].hellos ||
		    g_atomic_int_get(&warnings) < wrongs[i].warnings)
			fail_msg("%s: HELLO %d times, %d warnings", wrongs[i].what,
				 g_atomic_int_get(&world->guest->hellos) - hellos,
				 g_atomic_int_get(&warnings));
		hm_client_close(world->client);
		start(world, TIMEOUT_MS);
	}
}

static void a_guest_that_talks_nonsense_all_day_is_not_complained_about_as_often(void **state)
{
	struct world *world = *state;

	guest_script(world->guest, wrong_pid);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(read_at(world, i), -EPROTO);
	assert_in_range(g_atomic_int_get(&warnings), 1, 10);
	check_recovers(world);
}

/* -- late answers ------------------------------------------------------------------ */

/* The first request is answered when the second comes, after it. */
static bool one_late(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO)
		return false;
	if (g_atomic_int_add(&guest->n, 1) == 0) {
		guest->held[0] = *request;
		return true;
	}
	guest_reply_well(guest, request, data);
	if (g_atomic_int_get(&guest->n) == 2)
		guest_reply_well(guest, &guest->held[0], NULL);
	return true;
}

static void a_late_answer_is_nobodys(void **state)
{
	struct world *world = *state;
	int64_t began = now_ms();

	guest_script(world->guest, one_late);
	assert_int_equal(read_at(world, 0x1000), -ETIMEDOUT);
	assert_in_range(now_ms() - began, TIMEOUT_MS - 10, TIMEOUT_MS + 1000);
	for (int i = 0; i < 10; i++)
		assert_int_equal(read_at(world, 0x2000 + i), 100);
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), 1);
	assert_int_equal(g_atomic_int_get(&warnings), 0);
}

/* Half of the first answer now, the rest with the next request. */
static bool slow_half(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO)
		return false;
	if (g_atomic_int_add(&guest->n, 1) == 0) {
		guest->held[0] = *request;
		send_half(guest, request);
	} else {
		uint8_t rest[CHUNK] = { 0 };

		if (g_atomic_int_get(&guest->n) == 2)
			guest_send(guest, rest, guest->held[0].size - 10);
		guest_reply_well(guest, request, data);
	}
	return true;
}

static void memory_of_a_caller_that_has_left_is_not_written_to(void **state)
{
	struct world *world = *state;
	uint8_t *buf = g_malloc(CHUNK);

	guest_script(world->guest, slow_half);
	assert_int_equal(hm_client_read(world->client, who, 0, buf, CHUNK), -ETIMEDOUT);
	g_free(buf);
	assert_int_equal(read_at(world, 0x2000), 100);
	assert_int_equal(read_at(world, 0x3000), 100);
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), 1);
}

static bool never_0x1000(struct guest *guest, const struct hm_header *request,
			 const uint8_t *data)
{
	return request->op == HYPER_OP_READ && request->addr == 0x1000;
}

/* max_inflight is 16: more are given up than there are slots. */
static void requests_that_are_never_answered_do_not_use_up_the_slots(void **state)
{
	struct world *world = *state;
	gint hellos;

	hm_client_close(world->client);
	world->client = guest_connect(world->guest, 20, NULL);
	assert_non_null(world->client);
	hellos = g_atomic_int_get(&world->guest->hellos);
	guest_script(world->guest, never_0x1000);
	for (int i = 0; i < 40; i++)
		assert_int_equal(read_at(world, 0x1000), -ETIMEDOUT);
	check_recovers(world);
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), hellos);
}

/* -- many threads ------------------------------------------------------------------ */

struct reader {
	struct world *world;
	uint64_t addr;
	int times;
	ssize_t n;
	int64_t ms;		/* that it took */
	bool wrong;
};

static gpointer reader_thread(gpointer arg)
{
	struct reader *reader = arg;
	int64_t began = now_ms();
	uint8_t buf[100];

	for (int i = 0; i < reader->times; i++) {
		uint64_t addr = reader->addr + i;

		reader->n = hm_client_read(reader->world->client, who, addr, buf, sizeof(buf));
		for (ssize_t j = 0; j < reader->n; j++)
			reader->wrong |= buf[j] != guest_byte(addr + j);
		if (reader->n != 100)
			break;
	}
	reader->ms = now_ms() - began;
	return NULL;
}

/* What THREADS threads get, each reading `times` times. */
static void read_in_threads(struct world *world, int times, struct reader readers[THREADS])
{
	GThread *threads[THREADS];

	for (int i = 0; i < THREADS; i++) {
		readers[i] = (struct reader){ .world = world, .addr = 0x10000 * (i + 1),
					      .times = times };
		threads[i] = g_thread_new("reader", reader_thread, &readers[i]);
	}
	for (int i = 0; i < THREADS; i++)
		g_thread_join(threads[i]);
}

/* Answers when there are THREADS requests, the last one first. */
static bool backwards(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO)
		return false;
	guest->held[guest->n++] = *request;
	if (guest->n < THREADS)
		return true;
	while (guest->n)
		guest_reply_well(guest, &guest->held[--guest->n], NULL);
	return true;
}

static void answers_in_any_order_find_their_threads(void **state)
{
	struct world *world = *state;
	struct reader readers[THREADS];

	guest_script(world->guest, backwards);
	read_in_threads(world, 50, readers);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(readers[i].n, 100);
		assert_false(readers[i].wrong);
	}
}

/* The greatest number of requests that were unanswered at a time. */
static gint most_held;

/* max_inflight is 2.  Answers one when it has two, and the rest when no third comes. */
static bool hold_two(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct pollfd more = { .fd = guest->fd, .events = POLLIN };

	if (request->op == HYPER_OP_HELLO)
		return false;
	guest->held[guest->n++] = *request;
	most_held = MAX(most_held, guest->n);
	if (poll(&more, 1, 2) > 0 && guest->n < 10)
		return true;
	while (guest->n)
		guest_reply_well(guest, &guest->held[--guest->n], NULL);
	return true;
}

static void no_more_requests_are_in_flight_than_the_guest_takes(void **state)
{
	struct world *world = *state;
	struct reader readers[THREADS];
	uint8_t buf[CHUNK * 20];

	hm_client_close(world->client);
	world->guest->max_inflight = 2;
	start(world, 3000);
	guest_script(world->guest, hold_two);
	read_in_threads(world, 10, readers);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(readers[i].n, 100);
	assert_int_equal(hm_client_read(world->client, who, 0, buf, sizeof(buf)), sizeof(buf));
	hm_client_close(world->client);
	world->client = NULL;
	assert_int_equal(most_held, 2);
}

static void a_lost_link_fails_all_requests_at_once(void **state)
{
	struct world *world = *state;
	struct reader readers[THREADS];
	int64_t began;

	hm_client_close(world->client);
	start(world, 10000);
	guest_script(world->guest, hang_up);
	began = now_ms();
	read_in_threads(world, 1, readers);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(readers[i].n, -ENOTCONN);
	assert_true(now_ms() - began < 3000);
	check_recovers(world);
}

static void one_silence_does_not_hold_up_the_others(void **state)
{
	struct world *world = *state;
	struct reader slow = { .world = world, .addr = 0x1000, .times = 1 };
	GThread *thread;
	int64_t began;

	guest_script(world->guest, never_0x1000);
	thread = g_thread_new("reader", reader_thread, &slow);
	began = now_ms();
	for (int i = 0; i < 20; i++)
		assert_int_equal(read_at(world, 0x2000), 100);
	assert_true(now_ms() - began < TIMEOUT_MS);
	g_thread_join(thread);
	assert_int_equal(slow.n, -ETIMEDOUT);
}

/* -- a guest that takes nothing ---------------------------------------------------- */

static bool sleep_until_awake(struct guest *guest, const struct hm_header *request,
			      const uint8_t *data)
{
	while (request->op == HYPER_OP_WRITE && !g_atomic_int_get(&awake))
		g_usleep(1000);
	return false;
}

static void a_frame_that_could_be_sent_in_part_only_ends_the_connection(void **state)
{
	struct world *world = *state;
	size_t size = HYPERMEM_DATA_MAX;
	g_autofree uint8_t *buf = g_malloc0(size);
	ssize_t n;

	hm_client_close(world->client);
	world->guest->max_data = HYPERMEM_DATA_MAX;
	start(world, 100);
	g_atomic_int_set(&awake, 0);
	guest_script(world->guest, sleep_until_awake);
	assert_int_equal(hm_client_write(world->client, who, 0, buf, 1), -ETIMEDOUT);
	/* As many as the socket holds are sent whole; then comes one that is not. */
	for (int i = 0; i < 50; i++) {
		n = hm_client_write(world->client, who, 0, buf, size);
		if (n != -ETIMEDOUT)
			break;
	}
	assert_int_equal(n, -ENOTCONN);
	g_atomic_int_set(&awake, 1);
	check_recovers(world);
	/* Of the two clients, and of the second one again. */
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), 3);
}

static void nothing_is_sent_behind_a_part_of_a_frame(void **state)
{
	struct hm_session session = { .wake = eventfd(0, EFD_CLOEXEC) };
	g_autofree uint8_t *buf = g_malloc0(HYPERMEM_DATA_MAX);
	struct iovec iov = { buf, HYPERMEM_DATA_MAX };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	session.fd = fds[0];
	assert_int_equal(hm_stream_write(&session, &iov, 1, g_get_monotonic_time() + 10000),
			 -ETIMEDOUT);
	while (recv(fds[1], buf, HYPERMEM_DATA_MAX, 0) > 0)
		;
	/* There is room again, and the connection is not closed yet. */
	iov = (struct iovec){ buf, 24 };
	assert_int_equal(hm_stream_write(&session, &iov, 1, g_get_monotonic_time() + PATIENCE),
			 -ENOTCONN);
	assert_int_equal(recv(fds[1], buf, HYPERMEM_DATA_MAX, 0), -1);
	close(fds[0]);
	close(fds[1]);
	close(session.wake);
}

/* -- HELLO ------------------------------------------------------------------------- */

static bool no_hello(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	return true;
}

static bool wrong_nonce(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;

	memcpy(&hello, data, sizeof(hello));
	guest_hello_fill(guest, &reply);
	guest_reply(guest, request, HYPER_RESP_READ_OK, ~GUINT64_FROM_LE(hello.nonce), &reply,
		    sizeof(reply));
	return true;
}

static bool short_hello(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;

	memcpy(&hello, data, sizeof(hello));
	guest_hello_fill(guest, &reply);
	guest_reply(guest, request, HYPER_RESP_READ_OK, GUINT64_FROM_LE(hello.nonce), &reply, 100);
	return true;
}

static bool huge_hello(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hello hello;

	memcpy(&hello, data, sizeof(hello));
	reply_to(guest, *request, HYPER_RESP_READ_OK, GUINT64_FROM_LE(hello.nonce), 100000);
	return true;
}

/* The first bytes of the answer, nothing else. */
static void half_hello(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	uint8_t frame[HYPERMEM_HEADER_SIZE + sizeof(struct hypermem_hello_reply)];
	struct hypermem_hello_reply whole;
	struct hm_header reply = *request;
	struct hypermem_hello hello;

	memcpy(&hello, data, sizeof(hello));
	reply.op = HYPER_RESP_READ_OK;
	reply.addr = GUINT64_FROM_LE(hello.nonce);
	reply.size = sizeof(struct hypermem_hello_reply);
	hm_header_encode(&reply, frame);
	guest_hello_fill(guest, &whole);
	memcpy(frame + HYPERMEM_HEADER_SIZE, &whole, sizeof(whole));
	guest_send(guest, frame, sizeof(frame) / 2);
}

static bool half_hello_then_nothing(struct guest *guest, const struct hm_header *request,
				    const uint8_t *data)
{
	half_hello(guest, request, data);
	return true;
}

static bool half_hello_then_hang_up(struct guest *guest, const struct hm_header *request,
				    const uint8_t *data)
{
	half_hello(guest, request, data);
	guest_hang_up(guest);
	return true;
}

static void without_a_right_hello_there_is_no_client(void **state)
{
	static const struct {
		const char *what;
		guest_answer answer;
		int rc;
		bool waits;
	} rows[] = {
		{ "no HELLO", no_hello, -ETIMEDOUT, true },
		{ "another's HELLO", wrong_nonce, -ETIMEDOUT, true },
		{ "half a HELLO, then nothing", half_hello_then_nothing, -ETIMEDOUT, true },
		{ "half a HELLO, then the end", half_hello_then_hang_up, -ECONNRESET, false },
		{ "short HELLO", short_hello, -EPROTO, false },
		{ "huge HELLO", huge_hello, -EPROTO, false },
	};
	struct world *world = *state;

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		int64_t began = now_ms();
		struct hm_refusal refusal;
		int rc;

		guest_script(world->guest, rows[i].answer);
		rc = open_client(world->guest, TIMEOUT_MS, &refusal, &world->client);
		if (rc != rows[i].rc)
			fail_msg("%s: %d", rows[i].what, rc);
		if (rows[i].waits)
			assert_true(now_ms() - began >= TIMEOUT_MS - 10);
		assert_true(now_ms() - began < TIMEOUT_MS + 2000);
	}
}

static void another_version_is_told_apart(void **state)
{
	struct world *world = *state;
	struct hm_refusal refusal;

	world->guest->version = 7;
	assert_int_equal(open_client(world->guest, TIMEOUT_MS, &refusal, &world->client),
			 -EPROTONOSUPPORT);
	assert_int_equal(refusal.version, 7);
}

static bool noise_before_hello(struct guest *guest, const struct hm_header *request,
			       const uint8_t *data)
{
	struct hm_header old = { .op = HYPER_OP_READ, .tag = 77, .addr = 0x1000, .size = 4000 };

	if (request->op != HYPER_OP_HELLO)
		return false;
	guest_send(guest, "login: ", 7);		/* of a terminal */
	guest_reply_well(guest, &old, NULL);		/* of an earlier session */
	wrong_nonce(guest, request, data);
	reply_to(guest, (struct hm_header){ 0 }, HYPER_RESP_RESET, 0, 0);
	for (int i = 0; i < 3; i++)
		guest_send(guest, "\x01\x01\x00\xf0", 4);	/* how an answer begins */
	guest_reply_well(guest, request, data);
	return true;
}

static void hello_is_found_in_noise(void **state)
{
	struct world *world = *state;

	guest_script(world->guest, noise_before_hello);
	start(world, TIMEOUT_MS);
	check_recovers(world);
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), 1);
}

/* As the virtio link does: what comes before the guest saw the connection is lost. */
static bool first_hello_is_lost(struct guest *guest, const struct hm_header *request,
				const uint8_t *data)
{
	if (request->op != HYPER_OP_HELLO || g_atomic_int_add(&guest->n, 1) > 0)
		return false;
	reply_to(guest, (struct hm_header){ 0 }, HYPER_RESP_RESET, 0, 0);
	return true;
}

static void a_guest_that_asks_for_hello_gets_it_soon(void **state)
{
	struct world *world = *state;
	int64_t began = now_ms();

	guest_script(world->guest, first_hello_is_lost);
	start(world, 5000);
	assert_true(now_ms() - began < 900);
	check_recovers(world);
}

/*
 * The first connection is left without an answer.  On the second the first HELLO is answered
 * with the next one; so both are in doubt, and the one after them is the one that counts.
 */
static bool hello_is_late(struct guest *guest, const struct hm_header *request,
			  const uint8_t *data)
{
	struct hypermem_hello first;

	if (request->op != HYPER_OP_HELLO)
		return false;
	g_atomic_int_inc(&guest->n);
	if (g_atomic_int_get(&guest->n) == 1)
		return true;
	if (g_atomic_int_get(&guest->n) == 2) {
		guest->held[0] = *request;
		g_byte_array_append(guest->written, data, sizeof(first));
		return true;
	}
	if (g_atomic_int_get(&guest->n) == 3) {
		guest->epoch--;
		guest_reply_well(guest, &guest->held[0], guest->written->data);
		guest->epoch++;
	}
	return false;
}

static void late_answers_to_hello_are_not_believed(void **state)
{
	struct world *world = *state;
	struct hm_guest guest;

	guest_script(world->guest, hello_is_late);
	start(world, 5000);
	assert_int_equal(hm_client_guest(world->client, &guest), 0);
	assert_int_equal(guest.epoch, GUEST_EPOCH);
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), 4);
	check_recovers(world);
	assert_int_equal(g_atomic_int_get(&warnings), 0);
}

/* Half of the first answer, the second one whole. */
static bool hello_is_cut_once(struct guest *guest, const struct hm_header *request,
			      const uint8_t *data)
{
	if (request->op != HYPER_OP_HELLO || g_atomic_int_add(&guest->n, 1) > 0)
		return false;
	half_hello(guest, request, data);
	return true;
}

static void a_hello_that_was_cut_is_asked_for_again(void **state)
{
	struct world *world = *state;

	guest_script(world->guest, hello_is_cut_once);
	start(world, 5000);
	check_recovers(world);
}

/* -- RESET and reboot -------------------------------------------------------------- */

static bool reset_after_hello(struct guest *guest, const struct hm_header *request,
			      const uint8_t *data)
{
	if (request->op != HYPER_OP_HELLO)
		return false;
	guest_reply_well(guest, request, data);
	reply_to(guest, (struct hm_header){ 0 }, HYPER_RESP_RESET, 0, 0);
	return true;
}

static void a_guest_that_always_resets_is_not_asked_in_a_loop(void **state)
{
	struct world *world = *state;

	guest_script(world->guest, reset_after_hello);
	read_at(world, 0);		/* whatever comes of it */
	guest_script(world->guest, reset);
	read_at(world, 0);
	guest_script(world->guest, reset_after_hello);
	g_usleep(1000 * 1000);
	assert_in_range(g_atomic_int_get(&world->guest->hellos), 2, 8);
	check_recovers(world);
}

/* HELLO is answered by what invites to the next one. */
static bool reset_for_hello(struct guest *guest, const struct hm_header *request,
			    const uint8_t *data)
{
	reply_to(guest, (struct hm_header){ 0 }, HYPER_RESP_RESET, 0, 0);
	return true;
}

static void a_guest_that_resets_at_hello_is_not_asked_in_a_loop(void **state)
{
	struct world *world = *state;
	gint before;

	guest_script(world->guest, reset_for_hello);
	read_at(world, 0);
	before = g_atomic_int_get(&world->guest->hellos);
	g_usleep(1000 * 1000);
	assert_in_range(g_atomic_int_get(&world->guest->hellos) - before, 1, 12);
	check_recovers(world);
}

static void a_guest_that_has_booted_anew_is_another_one(void **state)
{
	struct world *world = *state;
	struct hm_guest guest;
	struct hm_who new_who = who;
	int64_t until = now_ms() + 5000;
	uint8_t byte;

	new_who.epoch++;
	assert_int_equal(hm_client_read(world->client, new_who, 0, &byte, 1), -ESTALE);
	world->guest->epoch++;
	guest_script(world->guest, reset);
	assert_int_equal(hm_client_read(world->client, who, 0, &byte, 1), -ENOTCONN);
	guest_script(world->guest, NULL);
	while (hm_client_guest(world->client, &guest) && now_ms() < until)
		g_usleep(5000);
	assert_int_equal(guest.epoch, GUEST_EPOCH + 1);
	assert_int_equal(hm_client_read(world->client, who, 0, &byte, 1), -ESTALE);
	assert_int_equal(hm_client_read(world->client, new_who, 0, &byte, 1), 1);
}

static void without_a_link_requests_fail_at_once(void **state)
{
	struct world *world = *state;
	struct hm_guest guest;
	int64_t began;

	guest_script(world->guest, no_hello);
	guest_hang_up(world->guest);
	g_usleep(50 * 1000);
	began = now_ms();
	assert_int_equal(read_at(world, 0), -ENOTCONN);
	assert_true(now_ms() - began < TIMEOUT_MS / 2);
	assert_int_equal(hm_client_guest(world->client, &guest), -ENOTCONN);
	assert_string_equal(guest.machine, "mips");
}

/* -- signals ----------------------------------------------------------------------- */

static void on_signal(int signal)
{
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
}

struct signaller {
	pthread_t target;
	int after_ms;
	bool interrupt;
};

static gpointer signaller_thread(gpointer arg)
{
	struct signaller *signaller = arg;

	g_usleep(signaller->after_ms * 1000);
	g_atomic_int_set(&is_interrupted, signaller->interrupt);
	pthread_kill(signaller->target, SIGUSR1);
	return NULL;
}

static void a_signal_ends_a_wait_if_it_is_meant_to(void **state)
{
	struct world *world = *state;
	struct signaller signaller = { .target = pthread_self(), .after_ms = 50 };
	int64_t began;

	hm_client_close(world->client);
	start(world, 400);
	catch_signals();
	guest_script(world->guest, silence);
	for (int i = 0; i < 2; i++) {
		GThread *thread;

		signaller.interrupt = i;
		began = now_ms();
		thread = g_thread_new("signaller", signaller_thread, &signaller);
		assert_int_equal(read_at(world, 0), i ? -EINTR : -ETIMEDOUT);
		g_thread_join(thread);
	}
	assert_true(now_ms() - began < 350);
	g_atomic_int_set(&is_interrupted, 0);
	check_recovers(world);
	assert_int_equal(g_atomic_int_get(&world->guest->hellos), 2);	/* of the two clients */
}

static void closing_does_not_wait_for_the_guest(void **state)
{
	struct world *world = *state;
	int64_t began;

	guest_script(world->guest, no_hello);
	guest_hang_up(world->guest);
	g_usleep(20 * 1000);
	began = now_ms();
	hm_client_close(world->client);
	world->client = NULL;
	assert_true(now_ms() - began < 1000);
}

static void count(const char *domain, GLogLevelFlags level, const char *message, gpointer data)
{
	if (level & G_LOG_LEVEL_WARNING)
		g_atomic_int_inc(&warnings);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define HELLO_TEST(name) cmocka_unit_test_setup_teardown(name, setup_guest, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_wrong_answer_fails_its_request_and_no_other),
		TEST(a_guest_that_talks_nonsense_all_day_is_not_complained_about_as_often),
		TEST(a_late_answer_is_nobodys),
		TEST(memory_of_a_caller_that_has_left_is_not_written_to),
		TEST(requests_that_are_never_answered_do_not_use_up_the_slots),
		TEST(answers_in_any_order_find_their_threads),
		TEST(no_more_requests_are_in_flight_than_the_guest_takes),
		TEST(a_lost_link_fails_all_requests_at_once),
		TEST(one_silence_does_not_hold_up_the_others),
		TEST(a_frame_that_could_be_sent_in_part_only_ends_the_connection),
		cmocka_unit_test(nothing_is_sent_behind_a_part_of_a_frame),
		HELLO_TEST(without_a_right_hello_there_is_no_client),
		HELLO_TEST(another_version_is_told_apart),
		HELLO_TEST(hello_is_found_in_noise),
		HELLO_TEST(a_guest_that_asks_for_hello_gets_it_soon),
		HELLO_TEST(late_answers_to_hello_are_not_believed),
		HELLO_TEST(a_hello_that_was_cut_is_asked_for_again),
		TEST(a_guest_that_always_resets_is_not_asked_in_a_loop),
		TEST(a_guest_that_resets_at_hello_is_not_asked_in_a_loop),
		TEST(a_guest_that_has_booted_anew_is_another_one),
		TEST(without_a_link_requests_fail_at_once),
		TEST(a_signal_ends_a_wait_if_it_is_meant_to),
		TEST(closing_does_not_wait_for_the_guest),
	};

	g_log_set_default_handler(count, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
