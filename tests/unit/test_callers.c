// SPDX-License-Identifier: MIT
/*
 * callers: what is left to a caller whose call does not end well: its memory, the truth
 * about what it has read, and no tag or descriptor that it does not know of.
 *
 * A deadline passes because the guest's script waits for the test, not by the clock;
 * what must succeed with a short deadline is tried again, for busy machines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "bridge/hook_client.h"
#include "bridge/request.h"
#include "tests/unit/guest.h"

#define CHUNK HYPERMEM_CHUNK_SIZE
#define SHORT_MS 100	/* a deadline that is meant to pass */
#define LONG_MS 20000	/* one that is not */

/* Where the guest does not answer as it should. */
#define BAD_ADDR 0xbad00000

static const struct hm_who who = { GUEST_EPOCH, GUEST_PID, GUEST_STAMP };

static gint released;		/* atomic: the guest may go on */
static gint asked;		/* atomic: how often interrupted() was called */
static gint interrupt;		/* atomic: what it says */
static gint signals;		/* atomic: that have come */
static gint warnings;		/* atomic */

static void count_warning(const char *domain, GLogLevelFlags level, const char *message,
			  gpointer data)
{
	if (level & G_LOG_LEVEL_WARNING)
		g_atomic_int_inc(&warnings);
}

static bool interrupted(void)
{
	g_atomic_int_inc(&asked);
	return g_atomic_int_get(&interrupt);
}

struct world {
	struct guest *guest;
	struct hm_client *client;	/* NULL: not connected yet */
};

static int setup(void **state)
{
	struct world *world = g_new0(struct world, 1);

	world->guest = guest_new();
	*state = world;
	g_atomic_int_set(&released, 0);
	g_atomic_int_set(&interrupt, 0);
	g_atomic_int_set(&asked, 0);
	g_atomic_int_set(&warnings, 0);
	g_log_set_default_handler(count_warning, NULL);
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	g_atomic_int_set(&released, 1);
	hm_client_close(world->client);
	guest_free(world->guest);
	g_free(world);
	return 0;
}

static void connect_client(struct world *world, int timeout_ms)
{
	world->client = guest_connect(world->guest, timeout_ms, interrupted);
	assert_non_null(world->client);
}

static void check_bytes(const uint8_t *buf, uint64_t addr, size_t size)
{
	for (size_t i = 0; i < size; i++)
		assert_int_equal(buf[i], guest_byte(addr + i));
}

/* It may fail for a while. */
static void check_read_again(struct hm_client *client, uint64_t addr)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;
	uint8_t buf[100];

	while (hm_client_read(client, who, addr, buf, sizeof(buf)) != sizeof(buf)) {
		assert_true(g_get_monotonic_time() < until);
		g_usleep(1000);
	}
	check_bytes(buf, addr, sizeof(buf));
}

/* In the guest's thread; it ends anyway. */
static void wait_until_released(void)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;

	while (!g_atomic_int_get(&released) && g_get_monotonic_time() < until)
		g_usleep(1000);
}

/* -- short or failed ---------------------------------------------------- */

/* BAD_ADDR and above: silence. */
static bool silent_there(struct guest *guest, const struct hm_header *request,
			 const uint8_t *data)
{
	return request->op == HYPER_OP_READ && request->addr >= BAD_ADDR;
}

/* BAD_ADDR and above: the process has just exited. */
static bool gone_there(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op != HYPER_OP_READ || request->addr < BAD_ADDR)
		return false;
	guest_reply(guest, request, HYPER_RESP_READ_FAIL, ESRCH, NULL, 0);
	return true;
}

/* A short read says that the memory ends there. */
static void a_chunk_that_never_comes_is_not_the_end_of_memory(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	uint8_t buf[4 * CHUNK];

	connect_client(world, SHORT_MS);
	guest_script(guest, silent_there);
	assert_int_equal(hm_client_read(world->client, who, BAD_ADDR - CHUNK, buf, sizeof(buf)),
			 -ETIMEDOUT);
}

static void a_process_that_goes_away_is_not_the_end_of_memory(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	uint8_t buf[4 * CHUNK];

	connect_client(world, LONG_MS);
	guest_script(guest, gone_there);
	assert_int_equal(hm_client_read(world->client, who, BAD_ADDR - CHUNK, buf,
					sizeof(buf)), -ESRCH);
}

/* Full up to one chunk, then the process is gone. */
static bool gone_after_one(struct guest *guest, const struct hm_header *request,
			   const uint8_t *data)
{
	uint8_t bytes[CHUNK] = {};

	if (request->op == HYPER_OP_HELLO)
		return false;
	if (request->addr == 0)
		guest_reply(guest, request, HYPER_RESP_READ_OK, 0, bytes, request->size);
	else
		guest_reply(guest, request, HYPER_RESP_READ_FAIL, ESRCH, NULL, 0);
	return true;
}

/* Fewer bytes than asked for say that there are no more. */
static void arguments_that_break_off_have_not_ended(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	uint8_t buf[3 * CHUNK];
	bool ended;

	connect_client(world, LONG_MS);
	guest_script(guest, gone_after_one);
	assert_int_equal(hm_client_read_procargs(world->client, who, 0, buf, sizeof(buf),
						 &ended), -ESRCH);
	assert_false(ended);
	assert_int_equal(hm_client_read_procenv(world->client, who, 0, buf, sizeof(buf),
						 &ended), -ESRCH);
	assert_false(ended);
	assert_int_equal(hm_client_read_procenv(world->client, who, 0, buf, CHUNK, &ended), CHUNK);
}

/* The first chunk is written; of the second nobody knows. */
static bool silent_behind_one(struct guest *guest, const struct hm_header *request,
			      const uint8_t *data)
{
	return request->op == HYPER_OP_WRITE && request->addr >= CHUNK;
}

static bool closes_behind_one(struct guest *guest, const struct hm_header *request,
			      const uint8_t *data)
{
	if (request->op != HYPER_OP_WRITE || request->addr < CHUNK)
		return false;
	guest_hang_up(guest);
	return true;
}

static bool nonsense_behind_one(struct guest *guest, const struct hm_header *request,
				const uint8_t *data)
{
	if (request->op != HYPER_OP_WRITE || request->addr < CHUNK)
		return false;
	guest_reply(guest, request, HYPER_RESP_WRITE_OK, request->addr, NULL, request->size + 1);
	return true;
}

/* A short write says that nothing behind it was written. */
static void a_write_that_may_be_done_further_is_not_short(void **state)
{
	static const struct {
		guest_answer script;
		int timeout_ms, expected;
	} cases[] = {
		{ silent_behind_one, SHORT_MS, -ETIMEDOUT },
		{ closes_behind_one, LONG_MS, -ENOTCONN },
		{ nonsense_behind_one, LONG_MS, -EPROTO },
	};
	struct world *world = *state;
	const uint8_t buf[3 * CHUNK] = {};

	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		connect_client(world, cases[i].timeout_ms);
		guest_script(world->guest, cases[i].script);
		assert_int_equal(hm_client_write(world->client, who, 0, buf, sizeof(buf)),
				 cases[i].expected);
		guest_script(world->guest, NULL);
		hm_client_close(world->client);
		world->client = NULL;
	}
}

/* -- given up ---------------------------------------------------- */

static gint tag_was_owed;	/* atomic: and was used all the same */

/* Process 13 never gets an answer. */
static bool owe_process_13(struct guest *guest, const struct hm_header *request,
			   const uint8_t *data)
{
	static bool owed[65536];

	if (request->op == HYPER_OP_HELLO)
		memset(owed, 0, sizeof(owed));
	if (owed[request->tag])
		g_atomic_int_set(&tag_was_owed, 1);
	if (request->pid == 13)
		owed[request->tag] = true;
	return request->pid == 13;
}

static void a_tag_that_is_owed_is_given_to_nobody_else(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	uint8_t buf[8 * CHUNK] = {};

	guest_script(guest, owe_process_13);
	connect_client(world, SHORT_MS);
	assert_int_equal(hm_client_read(world->client, (struct hm_who){ .pid = 13 }, 0, buf,
					sizeof(buf)), -ETIMEDOUT);
	/* As many requests as there are tags, and some. */
	for (int i = 0; i < 66000 && !g_atomic_int_get(&tag_was_owed); i++)
		while (hm_client_write(world->client, who, 0, buf, 1) != 1)
			;
	assert_int_equal(tag_was_owed, 0);
	assert_int_equal(guest->hellos, 1);
}

/* Half of the data, and the rest when the caller has gone. */
static bool half_and_half(struct guest *guest, const struct hm_header *request,
			  const uint8_t *data)
{
	struct hm_header reply = *request;
	g_autofree uint8_t *frame = NULL;
	size_t size, half;

	if (request->op != HYPER_OP_READ || request->addr != BAD_ADDR)
		return false;
	size = HYPERMEM_HEADER_SIZE + request->size;
	half = HYPERMEM_HEADER_SIZE + request->size / 2;
	frame = g_malloc(size);
	memset(frame, 0xbb, size);
	reply.op = HYPER_RESP_READ_OK;
	hm_header_encode(&reply, frame);
	guest_send(guest, frame, half);
	wait_until_released();
	guest_send(guest, frame + half, size - half);
	return true;
}

static void nothing_is_written_to_who_gave_up_while_its_data_came(void **state)
{
	/* The last is larger than what the session has room for itself. */
	static const size_t sizes[] = { 16, CHUNK, 1000 * 1000 };
	struct world *world = *state;
	struct guest *guest = world->guest;

	guest->max_data = HYPERMEM_DATA_MAX;
	guest_script(guest, half_and_half);
	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		g_autofree uint8_t *buf = g_malloc(sizes[i]);

		connect_client(world, SHORT_MS);
		g_atomic_int_set(&released, 0);
		assert_int_equal(hm_client_read(world->client, who, BAD_ADDR, buf, sizes[i]),
				 -ETIMEDOUT);
		memset(buf, 0xee, sizes[i]);
		g_atomic_int_set(&released, 1);
		check_read_again(world->client, 0x1000);
		for (size_t j = 0; j < sizes[i]; j++)
			assert_int_equal(buf[j], 0xee);
		hm_client_close(world->client);
		world->client = NULL;
	}
	/* One connection each, and nobody to blame. */
	assert_int_equal(guest->hellos, G_N_ELEMENTS(sizes));
	assert_int_equal(warnings, 0);
}

/* -- Ctrl-C ------------------------------------------------------------------------------------ */

static void on_signal(int signal)
{
	g_atomic_int_inc(&signals);
}

/* Sends a thread signals for as long as it takes. */
struct killer {
	pthread_t target;
	gint stop;
	GThread *thread;
};

static gpointer killer_thread(gpointer arg)
{
	struct killer *killer = arg;

	while (!g_atomic_int_get(&killer->stop)) {
		pthread_kill(killer->target, SIGUSR1);
		g_usleep(1000);
	}
	return NULL;
}

static void killer_start(struct killer *killer)
{
	struct sigaction action = { .sa_handler = on_signal };	/* without SA_RESTART */

	sigaction(SIGUSR1, &action, NULL);
	*killer = (struct killer){ .target = pthread_self() };
	killer->thread = g_thread_new("killer", killer_thread, killer);
}

static void killer_stop(struct killer *killer)
{
	g_atomic_int_set(&killer->stop, 1);
	g_thread_join(killer->thread);
}

/* At BAD_ADDR the guest stops, and takes no more bytes. */
static bool stops_there(struct guest *guest, const struct hm_header *request,
			const uint8_t *data)
{
	if (request->op == HYPER_OP_READ && request->addr == BAD_ADDR)
		wait_until_released();
	return false;
}

/* A caller in a thread of its own. */
struct caller {
	struct hm_client *client;
	size_t writes;		/* bytes; 0: it reads a byte at BAD_ADDR */
};

static gpointer caller_thread(gpointer arg)
{
	struct caller *caller = arg;
	g_autofree uint8_t *buf = g_malloc0(MAX(caller->writes, 1));

	if (caller->writes)
		return GINT_TO_POINTER(hm_client_write(caller->client, who, 0, buf,
						       caller->writes));
	return GINT_TO_POINTER(hm_client_read(caller->client, who, BAD_ADDR, buf, 1));
}

/* Answers when signals have been asked about, and ignored. */
static bool answers_after_signals(struct guest *guest, const struct hm_header *request,
				  const uint8_t *data)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;

	while (request->op == HYPER_OP_READ && g_atomic_int_get(&asked) < 3 &&
	       g_get_monotonic_time() < until)
		g_usleep(1000);
	return false;
}

static void a_signal_that_means_nothing_ends_no_call(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	struct killer killer;
	uint8_t buf[100];

	connect_client(world, LONG_MS);
	guest_script(guest, answers_after_signals);
	killer_start(&killer);
	assert_int_equal(hm_client_read(world->client, who, 0x1000, buf, sizeof(buf)),
			 sizeof(buf));
	killer_stop(&killer);
	check_bytes(buf, 0x1000, sizeof(buf));
	assert_true(asked >= 3);
}

static void a_signal_ends_a_call_that_waits_for_its_turn(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	struct caller caller;
	struct killer killer;
	GThread *thread;
	uint8_t buf[8];

	guest->max_inflight = 1;
	guest_script(guest, stops_there);
	connect_client(world, LONG_MS);
	caller = (struct caller){ world->client };
	thread = g_thread_new("first", caller_thread, &caller);
	wait_for(&guest->requests, 1);
	g_atomic_int_set(&interrupt, 1);
	killer_start(&killer);
	assert_int_equal(hm_client_read(world->client, who, 0x666, buf, sizeof(buf)), -EINTR);
	killer_stop(&killer);
	g_atomic_int_set(&released, 1);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(thread)), 1);
	g_atomic_int_set(&interrupt, 0);
	check_read_again(world->client, 0x1000);
	/* The one that was interrupted has never been sent. */
	assert_int_equal(guest->requests, 2);
}

/* What changes something is answered late, and then what was held back. */
static bool does_it_all_the_same(struct guest *guest, const struct hm_header *request,
				 const uint8_t *data)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;
	gint before = g_atomic_int_get(&signals);

	if (request->op == HYPER_OP_READ && request->addr == BAD_ADDR) {
		guest->held[0] = *request;
		g_atomic_int_set(&guest->n, 1);
		return true;
	}
	if (request->op != HYPER_OP_WRITE && request->op != HYPER_OP_HOOK_REPLY)
		return false;
	while (g_atomic_int_get(&signals) < before + 20 && g_get_monotonic_time() < until)
		g_usleep(1000);
	guest_reply(guest, request, HYPER_RESP_WRITE_OK, request->addr, NULL, request->size);
	if (g_atomic_int_get(&guest->n))
		guest_reply_well(guest, &guest->held[0], NULL);
	return true;
}

/* Whoever hears EINTR does it again. */
static void a_signal_ends_no_call_that_may_be_done(void **state)
{
	const struct hm_verdict verdict = { .flags = HYPER_VERDICT_SKIP };
	struct world *world = *state;
	struct guest *guest = world->guest;
	struct caller reader;
	struct killer killer;
	GThread *thread;

	connect_client(world, LONG_MS);
	guest_script(guest, does_it_all_the_same);
	g_atomic_int_set(&interrupt, 1);
	killer_start(&killer);
	assert_int_equal(hm_client_write(world->client, who, 0, "hello", 5), 5);
	assert_int_equal(hm_client_hook_reply(world->client, 0, 1, &verdict), 0);
	assert_int_equal(guest->requests, 2);
	/* Nor one that another caller receives for. */
	reader = (struct caller){ world->client };
	thread = g_thread_new("reader", caller_thread, &reader);
	wait_for(&guest->n, 1);
	assert_int_equal(hm_client_write(world->client, who, 0, "hello", 5), 5);
	killer_stop(&killer);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(thread)), 1);
	assert_int_equal(guest->requests, 4);
}

static struct hm_calls *queued;	/* where somebody has to wait before the guest answers */

/* The first write is answered when a read waits behind it; that is not before the end. */
static bool answers_when_queued(struct guest *guest, const struct hm_header *request,
				const uint8_t *data)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;
	bool empty = request->op == HYPER_OP_WRITE;

	while (empty && g_get_monotonic_time() < until) {
		g_mutex_lock(&queued->lock);
		empty = g_queue_is_empty(&queued->queue);
		g_mutex_unlock(&queued->lock);
	}
	if (request->op == HYPER_OP_WRITE)
		g_atomic_int_set(&interrupt, 1);
	else
		wait_until_released();
	return false;
}

static gpointer second_thread(gpointer arg)
{
	struct world *world = arg;
	uint8_t byte;

	wait_for(&world->guest->requests, 1);
	return GINT_TO_POINTER(hm_client_read(world->client, who, 0, &byte, 1));
}

static void a_signal_between_two_chunks_says_what_was_written(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	const uint8_t buf[2 * CHUNK] = {};
	struct killer killer;
	GThread *thread;

	guest->max_inflight = 1;
	connect_client(world, LONG_MS);
	queued = &world->client->session.calls;
	guest_script(guest, answers_when_queued);
	thread = g_thread_new("second", second_thread, world);
	killer_start(&killer);
	assert_int_equal(hm_client_write(world->client, who, 0, buf, sizeof(buf)), CHUNK);
	killer_stop(&killer);
	g_atomic_int_set(&released, 1);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(thread)), 1);
	assert_int_equal(guest->written->len, CHUNK);
}

/* A frame that has been begun is finished; those behind it need not wait for that. */
static void a_signal_ends_a_call_behind_a_frame_that_is_stuck(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	struct caller reader, writer;
	GThread *threads[2];
	struct killer killer;
	uint8_t buf[8];

	guest->max_data = HYPERMEM_DATA_MAX;
	guest_script(guest, stops_there);
	connect_client(world, LONG_MS);
	reader = (struct caller){ world->client };
	writer = (struct caller){ world->client, HYPERMEM_DATA_MAX };
	threads[0] = g_thread_new("reader", caller_thread, &reader);
	wait_for(&guest->requests, 1);
	threads[1] = g_thread_new("writer", caller_thread, &writer);
	g_atomic_int_set(&interrupt, 1);
	killer_start(&killer);
	/* Whether the writer has begun by now or not: nobody is answered. */
	for (int i = 0; i < 10; i++)
		assert_int_equal(hm_client_read(world->client, who, 0, buf, sizeof(buf)), -EINTR);
	killer_stop(&killer);
	g_atomic_int_set(&released, 1);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(threads[0])), 1);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(threads[1])), HYPERMEM_DATA_MAX);
	g_atomic_int_set(&interrupt, 0);
	check_read_again(world->client, 0x1000);
	assert_int_equal(guest->hellos, 1);
}

/* -- descriptors ---------------------------------------------------- */

static gint count_fds(void)
{
	g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
	gint n = 0;

	while (g_dir_read_name(dir))
		n++;
	return n;
}

static void check_fds(gint expected)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;

	/* The guest closes its end when it sees that ours is. */
	while (count_fds() != expected && g_get_monotonic_time() < until)
		g_usleep(1000);
	assert_int_equal(count_fds(), expected);
}

static void clients_that_come_and_go_leave_no_descriptor(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	gint before = count_fds();

	for (int i = 0; i < 200; i++) {
		struct hm_client_config config = { .address = guest->address,
						   .timeout_ms = LONG_MS };
		struct hm_client *client;
		struct hm_refusal refusal;

		guest->version = i % 4 ? HYPERMEM_VERSION : 9;
		if (i % 4 == 0) {
			assert_int_equal(hm_client_open(&config, &refusal, &client),
					 -EPROTONOSUPPORT);
			assert_int_equal(refusal.version, 9);
			continue;
		}
		assert_int_equal(hm_client_open(&config, &refusal, &client), 0);
		if (i % 4 == 1)		/* or never started */
			assert_int_equal(hm_client_start(client), 0);
		hm_client_close(client);
	}
	check_fds(before);
}

/* Every request costs the connection. */
static bool closes(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op == HYPER_OP_HELLO || request->addr != BAD_ADDR)
		return false;
	guest_hang_up(guest);
	return true;
}

static void a_link_that_is_made_again_leaves_no_descriptor(void **state)
{
	struct world *world = *state;
	struct guest *guest = world->guest;
	gint before;
	uint8_t byte;

	connect_client(world, LONG_MS);
	guest_script(guest, closes);
	check_read_again(world->client, 0x1000);
	before = count_fds();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(hm_client_read(world->client, who, BAD_ADDR, &byte, 1),
				 -ENOTCONN);
		check_read_again(world->client, 0x1000);
	}
	check_fds(before);
	assert_int_equal(guest->hellos, 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_chunk_that_never_comes_is_not_the_end_of_memory),
		TEST(a_process_that_goes_away_is_not_the_end_of_memory),
		TEST(arguments_that_break_off_have_not_ended),
		TEST(a_write_that_may_be_done_further_is_not_short),
		TEST(a_tag_that_is_owed_is_given_to_nobody_else),
		TEST(nothing_is_written_to_who_gave_up_while_its_data_came),
		TEST(a_signal_that_means_nothing_ends_no_call),
		TEST(a_signal_ends_a_call_that_waits_for_its_turn),
		TEST(a_signal_ends_no_call_that_may_be_done),
		TEST(a_signal_between_two_chunks_says_what_was_written),
		TEST(a_signal_ends_a_call_behind_a_frame_that_is_stuck),
		TEST(clients_that_come_and_go_leave_no_descriptor),
		TEST(a_link_that_is_made_again_leaves_no_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
