// SPDX-License-Identifier: MIT
/*
 * turn: whoever receives, every caller gets its answer; and a caller whose turn it is may
 * leave at any time, with and without the answer, without anybody noticing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib.h>
#include <unistd.h>

#include "tests/unit/guest.h"

#define THREADS 8
#define READS 400
#define SIZE 100
#define LONG_MS 20000	/* a deadline that is not meant to pass */
#define SHORT_MS 100	/* one that is */

/* What the guest never answers, and what it answers when it is asked the next time. */
#define NEVER_ADDR 0xbad00000
#define LATER_ADDR 0x1a7e0000

static const struct hm_who who = { GUEST_EPOCH, GUEST_PID, GUEST_STAMP };

struct world {
	struct guest *guest;
	struct hm_client *client;
	gint failed;		/* atomic: reads that did not end as they should */
	gint ready;		/* atomic: readers that are about to read */
};

static int setup(void **state)
{
	struct world *world = g_new0(struct world, 1);

	world->guest = guest_new();
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	hm_client_close(world->client);
	guest_free(world->guest);
	g_free(world);
	return 0;
}

static void connect_client(struct world *world, int timeout_ms)
{
	world->client = guest_connect(world->guest, timeout_ms, NULL);
	assert_non_null(world->client);
}

static bool read_well(struct world *world, uint64_t addr)
{
	uint8_t buf[SIZE];

	if (hm_client_read(world->client, who, addr, buf, sizeof(buf)) != sizeof(buf))
		return false;
	for (size_t i = 0; i < sizeof(buf); i++)
		if (buf[i] != guest_byte(addr + i))
			return false;
	return true;
}

/* It may be late on a busy machine. */
static void check_read_in_time(struct world *world, uint64_t addr)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;

	while (!read_well(world, addr))
		assert_true(g_get_monotonic_time() < until);
}

struct reader {
	struct world *world;
	uint64_t addr;
	int reads;
	int expect;		/* of hm_client_read(): 0 for success */
};

static gpointer reader_thread(gpointer arg)
{
	const struct reader *reader = arg;
	struct world *world = reader->world;
	uint8_t buf[SIZE];

	g_atomic_int_inc(&world->ready);
	for (int i = 0; i < reader->reads; i++) {
		uint64_t addr = reader->addr + i * SIZE;

		if (reader->expect ? hm_client_read(world->client, who, addr, buf, SIZE) !=
					     reader->expect :
				     !read_well(world, addr))
			g_atomic_int_inc(&world->failed);
	}
	return NULL;
}

static void read_by_many(struct world *world)
{
	struct reader readers[THREADS];
	GThread *threads[THREADS];

	for (int i = 0; i < THREADS; i++) {
		readers[i] = (struct reader){ world, 0x100000 * (i + 1), READS };
		threads[i] = g_thread_new("reader", reader_thread, &readers[i]);
	}
	for (int i = 0; i < THREADS; i++)
		g_thread_join(threads[i]);
	assert_int_equal(world->failed, 0);
}

static void a_turn_that_is_passed_on_reaches_everybody(void **state)
{
	struct world *world = *state;

	connect_client(world, LONG_MS);
	read_by_many(world);
}

static bool silent_there(struct guest *guest, const struct hm_header *request,
			 const uint8_t *data)
{
	return request->op == HYPER_OP_READ && request->addr >= NEVER_ADDR &&
	       request->addr < NEVER_ADDR + 0x100000;
}

/* Whoever waits for NEVER_ADDR came first, and so receives. */
static void a_receiver_that_gives_up_leaves_no_gap(void **state)
{
	struct world *world = *state;
	struct reader vain = { world, NEVER_ADDR, 5, -ETIMEDOUT };
	GThread *thread;

	connect_client(world, SHORT_MS);
	guest_script(world->guest, silent_there);
	thread = g_thread_new("vain", reader_thread, &vain);
	for (int i = 0; i < READS; i++)
		check_read_in_time(world, 0x100000 + i * SIZE);
	g_thread_join(thread);
	assert_int_equal(world->failed, 0);
	check_read_in_time(world, 0x100000);
}

/* The first request is never answered; the others are, when the script says so. */
static bool held_until_told(struct guest *guest, const struct hm_header *request,
			    const uint8_t *data)
{
	if (request->op != HYPER_OP_READ || request->addr != LATER_ADDR)
		return silent_there(guest, request, data);
	guest->held[0] = *request;
	g_atomic_int_inc(&guest->n);
	return true;
}

static void who_waits_behind_a_receiver_that_gives_up_is_answered(void **state)
{
	struct world *world = *state;
	struct reader vain = { world, NEVER_ADDR, 1, -ETIMEDOUT };
	struct reader later = { world, LATER_ADDR, 1, 0 };
	GThread *vain_thread, *later_thread;

	connect_client(world, 2000);
	guest_script(world->guest, held_until_told);
	vain_thread = g_thread_new("vain", reader_thread, &vain);
	wait_for(&world->guest->requests, 1);
	g_usleep(G_TIME_SPAN_SECOND);	/* so that its deadline passes first */
	later_thread = g_thread_new("later", reader_thread, &later);
	wait_for(&world->guest->n, 1);
	g_thread_join(vain_thread);
	guest_reply_well(world->guest, &world->guest->held[0], NULL);
	g_thread_join(later_thread);
	assert_int_equal(world->failed, 0);
}

/* The session's thread must have it again, or nobody would see the guest's RESET. */
static void what_comes_while_nobody_waits_is_received(void **state)
{
	static const struct hm_header reset = { .op = HYPER_RESP_RESET };
	uint8_t bytes[HYPERMEM_HEADER_SIZE];
	struct world *world = *state;
	struct guest *guest = world->guest;

	connect_client(world, LONG_MS);
	hm_header_encode(&reset, bytes);
	for (int i = 1; i <= 3; i++) {
		check_read_in_time(world, 0x100000);
		guest_send(guest, bytes, sizeof(bytes));
		wait_for(&guest->hellos, i + 1);
	}
}

static bool hangs_up_there(struct guest *guest, const struct hm_header *request,
			   const uint8_t *data)
{
	if (request->op == HYPER_OP_READ && request->addr == NEVER_ADDR)
		guest_hang_up(guest);
	return request->op == HYPER_OP_READ && request->addr == NEVER_ADDR;
}

static void a_receiver_that_sees_the_end_of_the_link_has_it_made_again(void **state)
{
	struct world *world = *state;
	uint8_t buf[SIZE];

	connect_client(world, LONG_MS);
	guest_script(world->guest, hangs_up_there);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(hm_client_read(world->client, who, NEVER_ADDR, buf, SIZE),
				 -ENOTCONN);
		check_read_in_time(world, 0x100000);
	}
}

/* Ten bytes of an answer, and then nothing for ever. */
static bool begins_only(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hm_header reply = *request;
	uint8_t bytes[HYPERMEM_HEADER_SIZE];

	if (request->op == HYPER_OP_HELLO)
		return false;
	if (g_atomic_int_add(&guest->n, 1) == 0) {
		reply.op = HYPER_RESP_READ_OK;
		hm_header_encode(&reply, bytes);
		guest_send(guest, bytes, 10);
	}
	return true;
}

/* Each caller has the turn for a time that is too short to see it. */
static void half_a_frame_ends_the_connection_whoever_receives(void **state)
{
	struct world *world = *state;
	uint8_t buf[SIZE];
	int64_t until = g_get_monotonic_time() + PATIENCE;

	connect_client(world, SHORT_MS);
	guest_script(world->guest, begins_only);
	while (g_atomic_int_get(&world->guest->hellos) < 2) {
		assert_int_not_equal(hm_client_read(world->client, who, 0x1000, buf, SIZE), SIZE);
		assert_true(g_get_monotonic_time() < until);
	}
	guest_script(world->guest, NULL);
	check_read_in_time(world, 0x1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_turn_that_is_passed_on_reaches_everybody),
		TEST(a_receiver_that_gives_up_leaves_no_gap),
		TEST(who_waits_behind_a_receiver_that_gives_up_is_answered),
		TEST(what_comes_while_nobody_waits_is_received),
		TEST(a_receiver_that_sees_the_end_of_the_link_has_it_made_again),
		TEST(half_a_frame_ends_the_connection_whoever_receives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
