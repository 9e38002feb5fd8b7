// SPDX-License-Identifier: MIT
/*
 * hooks: some requests wait for events, for ever, and nobody else notices.
 *
 * What the files of a hook do is in tests/mount/test_hook*.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "bridge/hook.h"
#include "bridge/hooks.h"
#include "tests/unit/guest.h"

#define SHORT_MS 100	/* a deadline that is meant to pass */
#define LONG_MS 20000	/* one that is not */
#define EVENT_ID 17

static const struct hm_who who = { GUEST_EPOCH, GUEST_PID, GUEST_STAMP };
static const struct hm_filter filter = { .flags = HYPER_HOOK_ENTER, .names_size = 2,
					 .names = "x" };

static gint waits;		/* atomic: requests for events; they are answered in order */
static gint sets;		/* atomic */
static gint told;		/* atomic: events sent */
static struct hm_header held[64];	/* the waits, in the guest's thread ... */
static gint answered;		/* ... and how many of them are answered */
static struct hypermem_verdict verdict;	/* the last one */
static gint verdicts;		/* atomic */
static gint deaf;		/* atomic: hooks that are set get no answer */
static gint slow_ms;		/* atomic: a hook that nobody attends to takes so long */
static gint removes;		/* atomic */
static gint last_flags;		/* atomic: of the last hook set */
static gint burst;		/* events that come at once */
static gint posted;		/* atomic: of the verdicts, those that want no answer */
static uint32_t event_flags;

struct world {
	struct guest *guest;
	struct hm_client *client;
	struct hm_hooks *hooks;
};

static void tell_events(struct guest *guest)
{
	g_autofree struct hypermem_event *events = g_new0(struct hypermem_event, burst);

	for (gint i = 0; i < burst; i++)
		events[i] = (struct hypermem_event){
			.id = GUINT64_TO_LE(EVENT_ID + (uint64_t)i), .hook = GUINT32_TO_LE(1),
			.flags = GUINT32_TO_LE(event_flags), .pid = GUINT32_TO_LE(1),
			.tid = GUINT32_TO_LE(1), .stamp = GUINT16_TO_LE(1), .call = "x",
		};
	guest_reply(guest, &held[answered++], HYPER_RESP_READ_OK, 0, events,
		    (uint32_t)burst * sizeof(events[0]));
	g_atomic_int_inc(&told);
}

static void take_verdict(struct guest *guest, const struct hm_header *request,
			 const uint8_t *data)
{
	memcpy(&verdict, data, sizeof(verdict));
	if (request->op == HYPER_OP_HOOK_POST)
		g_atomic_int_inc(&posted);
	g_atomic_int_inc(&verdicts);
	if (request->op != HYPER_OP_HOOK_POST)
		guest_reply(guest, request, HYPER_RESP_WRITE_OK, request->addr, NULL,
			    request->size);
}

static void take_hook(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hook hook;

	memcpy(&hook, data, sizeof(hook));
	g_atomic_int_set(&last_flags, (gint)GUINT32_FROM_LE(hook.flags));
	g_atomic_int_inc(&sets);
	if (!(GUINT32_FROM_LE(hook.flags) & HYPER_HOOK_ATTENDED))
		g_usleep(1000 * (gulong)g_atomic_int_get(&slow_ms));
	if (!g_atomic_int_get(&deaf))
		guest_reply(guest, request, HYPER_RESP_WRITE_OK, request->addr, NULL,
			    request->size);
}

/* Takes hooks; reading COUNTS makes an event. */
static bool has_hooks(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	static const struct hypermem_hook_counts counts;

	switch (request->op) {
	case HYPER_OP_HOOK_WAIT:
		held[g_atomic_int_get(&waits) % G_N_ELEMENTS(held)] = *request;
		g_atomic_int_inc(&waits);
		return true;
	case HYPER_OP_HOOK_SET:
		take_hook(guest, request, data);
		return true;
	case HYPER_OP_HOOK_REPLY:
	case HYPER_OP_HOOK_POST:
		take_verdict(guest, request, data);
		return true;
	case HYPER_OP_HOOK_REMOVE:
		g_atomic_int_inc(&removes);
		guest_reply(guest, request, HYPER_RESP_READ_OK, request->addr, NULL, 0);
		return true;
	case HYPER_OP_HOOK_COUNTS:
		if (g_atomic_int_get(&waits))
			tell_events(guest);
		guest_reply(guest, request, HYPER_RESP_READ_OK, request->addr, &counts,
			    sizeof(counts));
		return true;
	}
	return false;
}

static int setup(void **state)
{
	struct world *world = g_new0(struct world, 1);

	world->guest = guest_new();
	waits = sets = told = verdicts = posted = answered = deaf = slow_ms = removes = 0;
	event_flags = HYPER_EVENT_WAITS;
	burst = 1;
	*state = world;
	return 0;
}

static void connect_client(struct world *world, int timeout_ms)
{
	guest_script(world->guest, has_hooks);
	world->client = guest_connect(world->guest, timeout_ms, NULL);
	assert_non_null(world->client);
	world->hooks = hm_hooks_new(world->client);
}

static int teardown(void **state)
{
	struct world *world = *state;

	hm_client_stop(world->client);
	hm_hooks_free(world->hooks);
	hm_client_close(world->client);
	guest_free(world->guest);
	g_free(world);
	return 0;
}

static void check_read(struct world *world)
{
	uint8_t byte = 0;

	assert_int_equal(hm_client_read(world->client, who, 0x1000, &byte, 1), 1);
	assert_int_equal(byte, guest_byte(0x1000));
}

static struct hm_hook *hook_new(struct world *world)
{
	struct hm_hook *hook;

	assert_int_equal(hm_hook_new(world->hooks, &hook), 0);
	wait_for(&waits, 1);
	return hook;
}

/* A hook of a new client's. */
static struct hm_hook *connect_and_hook(struct world *world, int timeout_ms)
{
	connect_client(world, timeout_ms);
	return hook_new(world);
}

/* The same, and the guest has it. */
static struct hm_hook *connect_and_set(struct world *world, int timeout_ms)
{
	struct hm_hook *hook = connect_and_hook(world, timeout_ms);

	assert_int_equal(hm_hook_set_filter(hook, &filter), 0);
	return hook;
}

/* A hook, whose events are this thread's. */
static struct hm_hook *connect_and_attend(struct world *world)
{
	struct hm_hook *hook = connect_and_hook(world, LONG_MS);

	assert_int_equal(hm_hook_attend(hook, NULL, NULL), 0);
	return hook;
}

/* The guest does not answer. */
static void set_in_vain(struct hm_hook *hook, const struct hm_filter *wanted)
{
	deaf = 1;
	assert_int_equal(hm_hook_set_filter(hook, wanted), -ETIMEDOUT);
}

static void hook_end(struct hm_hook *hook)
{
	hm_hook_remove(hook);
	hm_hook_free(hook);
}

static void a_wait_for_events_has_no_deadline(void **state)
{
	struct world *world = *state;
	struct hm_hook *hook = connect_and_hook(world, SHORT_MS);
	gint before;

	g_usleep(SHORT_MS * 1000);
	before = waits;
	g_usleep(5 * SHORT_MS * 1000);
	/* The same ones, on the same connection. */
	assert_int_equal(waits, before);
	assert_int_equal(world->guest->hellos, 1);
	hook_end(hook);
}

static void no_more_waits_are_on_their_way_for_readers_that_come_and_go(void **state)
{
	struct world *world = *state;
	struct hm_hook *hook;

	world->guest->max_inflight = 3;
	hook = connect_and_set(world, LONG_MS);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(hm_hook_attend(hook, NULL, NULL), 0);
		check_read(world);
		hm_hook_leave(hook);
	}
	assert_int_equal(sets, 101);
	assert_int_equal(waits, 1);
	hook_end(hook);
}

static void an_event_is_told_once_and_its_reply_is_sent(void **state)
{
	const struct hm_verdict skip = { .flags = HYPER_VERDICT_SKIP };
	struct world *world = *state;
	struct hm_hook_counts stats;
	struct hm_event *event;
	struct hm_hook *hook = connect_and_attend(world);

	assert_int_equal(hm_hook_set_filter(hook, &filter), 0);
	assert_int_equal(hm_hook_next(hook, &event), -EAGAIN);
	assert_int_equal(hm_hook_stats(hook, &stats), 0);
	assert_int_equal(hm_hook_wait(hook), 0);
	assert_int_equal(hm_hook_next(hook, &event), 0);
	assert_true(event->id == EVENT_ID);
	g_free(event);
	assert_int_equal(hm_hook_next(hook, &event), -EAGAIN);
	assert_int_equal(hm_hook_reply(hook, EVENT_ID, &skip, true), 0);
	assert_int_equal(verdicts, 1);
	assert_int_equal(GUINT32_FROM_LE(verdict.flags), HYPER_VERDICT_SKIP);
	assert_int_equal(hm_hook_reply(hook, EVENT_ID, &skip, true), -ESRCH);
	assert_int_equal(hm_hook_reply(hook, EVENT_ID + 1, &skip, true), -ESRCH);
	assert_int_equal(verdicts, 1);
	hm_hook_leave(hook);
	hook_end(hook);
}

static void a_call_that_nobody_reads_of_goes_on_at_once(void **state)
{
	struct world *world = *state;
	struct hm_hook_counts stats;
	struct hm_hook *hook = connect_and_set(world, LONG_MS);

	assert_int_equal(hm_hook_stats(hook, &stats), 0);
	wait_for(&verdicts, 1);
	assert_int_equal(verdict.flags, 0);
	check_read(world);
	hook_end(hook);
}

static void many_calls_go_on_that_nobody_reads_of(void **state)
{
	struct world *world = *state;
	struct hm_hook_counts stats;
	struct hm_hook *hook;

	/* None of these is answered: if they took slots, the ninth would wait for one. */
	world->guest->max_inflight = 8;
	world->guest->max_data = HYPERMEM_DATA_MAX;
	burst = 200;
	hook = connect_and_set(world, LONG_MS);
	assert_int_equal(hm_hook_stats(hook, &stats), 0);
	wait_for(&verdicts, 200);
	assert_int_equal(posted, 200);
	check_read(world);
	hook_end(hook);
}

/* An event with these flags, and what becomes of a reply that is not waited for. */
static int post(struct hm_hook *hook, uint32_t flags, struct hm_verdict reply)
{
	gint before = g_atomic_int_get(&verdicts);
	struct hm_hook_counts stats;
	struct hm_event *event;
	int rc;

	event_flags = HYPER_EVENT_WAITS | flags;
	assert_int_equal(hm_hook_stats(hook, &stats), 0);
	assert_int_equal(hm_hook_wait(hook), 0);
	assert_int_equal(hm_hook_next(hook, &event), 0);
	g_free(event);
	rc = hm_hook_reply(hook, EVENT_ID, &reply, false);
	/* The next one has the same id. */
	if (rc)
		assert_int_equal(hm_hook_reply(hook, EVENT_ID, &(struct hm_verdict){}, false), 0);
	assert_int_equal(hm_hook_reply(hook, EVENT_ID, &reply, false), -ESRCH);
	wait_for(&verdicts, before + 1);
	return rc;
}

static void a_reply_that_is_posted_is_checked_here(void **state)
{
	const struct hm_verdict skip = { .flags = HYPER_VERDICT_SKIP };
	const uint32_t arg = HYPER_VERDICT_ARG(5);
	struct hm_verdict result = { .flags = HYPER_VERDICT_RETVAL };
	struct hm_verdict argument = { .flags = arg };
	struct world *world = *state;
	struct hm_hook *hook = connect_and_attend(world);
	gint n;

	assert_int_equal(hm_hook_set_filter(hook, &filter), 0);
	assert_int_equal(post(hook, 0, (struct hm_verdict){ .flags = skip.flags | arg }), 0);
	assert_int_equal(post(hook, HYPER_EVENT_RETURN, skip), -EINVAL);
	assert_int_equal(post(hook, HYPER_EVENT_RETURN, result), 0);
	assert_int_equal(post(hook, HYPER_EVENT_LEAVES, skip), -EINVAL);
	assert_int_equal(post(hook, HYPER_EVENT_LEAVES, result), -EINVAL);
	assert_int_equal(post(hook, HYPER_EVENT_LEAVES, argument), 0);
	assert_int_equal(post(hook, HYPER_EVENT_FIXED, argument), -EINVAL);
	assert_int_equal(post(hook, HYPER_EVENT_FIXED, result), 0);
	for (int64_t k = -517; k <= -511; k++) {
		result.retval = (uint64_t)k;
		n = k == -517 || k == -511 ? 0 : -EINVAL;
		assert_int_equal(post(hook, 0, result), n);
		assert_int_equal(post(hook, HYPER_EVENT_NARROW, result), n);
		result.retval = (uint32_t)k;
		assert_int_equal(post(hook, HYPER_EVENT_NARROW, result), n);
	}
	result.retval = argument.args[5] = 1ULL << 32;
	assert_int_equal(post(hook, HYPER_EVENT_NARROW, result), -ERANGE);
	assert_int_equal(post(hook, HYPER_EVENT_NARROW, argument), -ERANGE);
	assert_int_equal(post(hook, 0, result), 0);
	assert_int_equal(GUINT64_FROM_LE(verdict.retval), 1ULL << 32);
	argument.args[4] = 1ULL << 32;
	argument.args[5] = UINT32_MAX;
	assert_int_equal(post(hook, HYPER_EVENT_NARROW, argument), 0);
	assert_int_equal(posted, verdicts);
	hm_hook_leave(hook);
	hook_end(hook);
}

static gpointer wait_thread(gpointer hook)
{
	return GINT_TO_POINTER(hm_hook_wait(hook));
}

static bool has_reader(struct hm_hook *hook)
{
	bool has;

	g_mutex_lock(&hook->hooks->lock);
	has = hook->reader;
	g_mutex_unlock(&hook->hooks->lock);
	return has;
}

/* A thread that waits for the hook's events already. */
static GThread *reader_new(struct hm_hook *hook)
{
	GThread *thread = g_thread_new("reader", wait_thread, hook);
	int64_t until = g_get_monotonic_time() + PATIENCE;

	while (!has_reader(hook)) {
		assert_true(g_get_monotonic_time() < until);
		g_usleep(1000);
	}
	return thread;
}

static void one_thread_waits_and_is_told_when_the_hook_ends(void **state)
{
	struct world *world = *state;
	struct hm_event *event;
	struct hm_hook *hook = connect_and_attend(world);
	GThread *thread;

	assert_int_equal(hm_hook_attend(hook, NULL, NULL), -EBUSY);
	thread = reader_new(hook);
	assert_int_equal(hm_hook_wait(hook), -EBUSY);
	hm_hook_remove(hook);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(thread)), 0);
	assert_int_equal(hm_hook_next(hook, &event), -ENODEV);
	assert_int_equal(hm_hook_set_enabled(hook, false), -ENODEV);
	hm_hook_leave(hook);
	hm_hook_free(hook);
}

static void a_client_that_is_stopped_ends_every_wait(void **state)
{
	struct world *world = *state;
	struct hm_event *event;
	struct hm_hook *hook = connect_and_attend(world);
	GThread *thread;

	thread = reader_new(hook);
	hm_client_stop(world->client);
	assert_int_equal(GPOINTER_TO_INT(g_thread_join(thread)), 0);
	assert_int_equal(hm_hook_next(hook, &event), -ENOTCONN);
	hm_hook_leave(hook);
	hook_end(hook);
}

static void another_session_gets_the_same_hooks(void **state)
{
	struct world *world = *state;
	struct hm_hook *hook = connect_and_set(world, LONG_MS);

	for (int i = 1; i < 4; i++) {
		guest_hang_up(world->guest);
		wait_for(&sets, i + 1);
	}
	hook_end(hook);
}

static void a_filter_that_is_too_large_for_the_guest_is_not_sent(void **state)
{
	g_autofree struct hm_filter *large = g_new0(struct hm_filter, 1);
	struct world *world = *state;
	struct hm_hook *hook = connect_and_hook(world, LONG_MS);

	*large = filter;
	large->n_tests = HYPER_TESTS_MAX;
	assert_int_equal(hm_hook_set_filter(hook, large), -E2BIG);
	assert_int_equal(sets, 0);
	hook_end(hook);
}

static void what_the_guest_has_not_answered_to_is_undone(void **state)
{
	const struct hm_filter other = { .flags = HYPER_HOOK_RETURN, .names_size = 2,
					 .names = "y" };
	struct world *world = *state;
	struct hm_hook *hook = connect_and_hook(world, SHORT_MS);

	set_in_vain(hook, &filter);
	wait_for(&removes, 1);
	deaf = 0;
	assert_int_equal(hm_hook_set_filter(hook, &filter), 0);
	set_in_vain(hook, &other);
	wait_for(&sets, 4);
	assert_int_equal(last_flags & (HYPER_HOOK_ENTER | HYPER_HOOK_RETURN), HYPER_HOOK_ENTER);
	hm_hook_remove(hook);
	assert_int_equal(removes, 2);
	hm_hook_free(hook);
}

/* It may do in any order what it is told at once. */
static void nothing_is_told_before_the_guest_has_undone_what_was_before(void **state)
{
	struct world *world = *state;
	struct hm_hook *hook = connect_and_set(world, SHORT_MS);

	deaf = 1;
	assert_int_equal(hm_hook_set_enabled(hook, false), -ETIMEDOUT);
	wait_for(&sets, 3);
	assert_true(hm_hook_enabled(hook));
	assert_int_equal(hm_hook_set_timeout(hook, 1000), -ETIMEDOUT);
	/* Not that, but once more that all is as it was. */
	wait_for(&sets, 4);
	g_usleep(SHORT_MS * 1000);
	assert_int_equal(sets, 4);
	assert_true(last_flags & HYPER_HOOK_ENABLED);
	deaf = 0;
	guest_hang_up(world->guest);
	wait_for(&sets, 5);
	assert_int_equal(hm_hook_set_timeout(hook, 1000), 0);
	assert_int_equal(sets, 6);
	hook_end(hook);
}

/* The guest may have it, if it was only slow to answer. */
static void a_hook_whose_filter_was_not_answered_to_is_removed_in_the_guest(void **state)
{
	struct world *world = *state;
	struct hm_hook *hook = connect_and_hook(world, SHORT_MS);

	set_in_vain(hook, &filter);
	wait_for(&removes, 1);
	hm_hook_remove(hook);
	assert_int_equal(removes, 2);
	hm_hook_free(hook);
}

static gpointer leave_thread(gpointer hook)
{
	hm_hook_leave(hook);
	return NULL;
}

static void who_comes_while_the_reader_before_leaves_is_not_told_that_it_is_busy(void **state)
{
	struct world *world = *state;
	struct hm_hook *hook = connect_and_set(world, LONG_MS);
	GThread *thread;

	assert_int_equal(hm_hook_attend(hook, NULL, NULL), 0);
	slow_ms = 1000;
	thread = g_thread_new("reader", leave_thread, hook);
	wait_for(&sets, 3);
	assert_int_equal(hm_hook_attend(hook, NULL, NULL), 0);
	g_thread_join(thread);
	slow_ms = 0;
	hm_hook_leave(hook);
	hook_end(hook);
}

/* As though the guest had told of a call, and somebody had read it.  Is there room? */
static bool push_event(struct hm_hook *hook, uint64_t id, uint32_t flags)
{
	struct hm_event *event = g_new0(struct hm_event, 1);
	bool kept;

	event->id = id;
	event->flags = flags;
	g_mutex_lock(&hook->hooks->lock);
	kept = hm_hook_queue_push(hook, event);
	if (kept)
		event = hm_hook_queue_pop(hook);
	g_mutex_unlock(&hook->hooks->lock);
	g_free(event);
	return kept;
}

static bool push_waiting(struct hm_hook *hook, uint64_t id)
{
	return push_event(hook, id, HYPER_EVENT_WAITS);
}

static void registers_that_were_not_asked_for_take_no_memory(void **state)
{
	const size_t size = sizeof(struct hm_event) + HYPER_REGS_MAX * sizeof(struct hm_reg);
	struct hm_event *event = g_malloc0(size);
	struct world *world = *state;
	struct hm_hook *hook = connect_and_attend(world);

	event->id = EVENT_ID;
	event->n_regs = HYPER_REGS_MAX;
	g_mutex_lock(&world->hooks->lock);
	assert_true(hm_hook_queue_push(hook, event));
	assert_in_range(world->hooks->queued_size, sizeof(*event), size - 1);
	event = hm_hook_queue_pop(hook);
	assert_int_equal(world->hooks->queued_size, 0);
	g_mutex_unlock(&world->hooks->lock);
	assert_int_equal(event->n_regs, 0);
	assert_true(malloc_usable_size(event) < size);
	g_free(event);
	hm_hook_leave(hook);
	hook_end(hook);
}

static uint64_t push_until_full(struct hm_hook *hook, uint64_t id)
{
	uint64_t n = 0;

	while (push_waiting(hook, id + n))
		n++;
	return n;
}

/* So long ago that the guest has given them up, too. */
static void make_old(struct hm_hook *hook)
{
	GHashTableIter iter;
	gpointer waiting;

	g_mutex_lock(&hook->hooks->lock);
	g_hash_table_iter_init(&iter, hook->waiting);
	while (g_hash_table_iter_next(&iter, NULL, &waiting))
		((struct waiting *)waiting)->until = G_MININT64 / 2;
	g_mutex_unlock(&hook->hooks->lock);
}

static void calls_that_nobody_replies_to_are_forgotten_when_there_are_too_many(void **state)
{
	const struct hm_verdict as_it_is = {};
	struct world *world = *state;
	struct hm_hook *hooks[2];
	uint64_t n;

	connect_client(world, LONG_MS);
	for (size_t i = 0; i < G_N_ELEMENTS(hooks); i++) {
		hooks[i] = hook_new(world);
		assert_int_equal(hm_hook_attend(hooks[i], NULL, NULL), 0);
	}
	for (uint64_t id = 1; id <= 1000; id++)
		assert_true(push_waiting(hooks[0], id));
	n = push_until_full(hooks[1], 1001);
	assert_int_equal(1000 + n, HM_WAITING_MAX);
	/* There is room again for each that does not wait any more, in any hook. */
	assert_false(push_waiting(hooks[0], 1 << 20));
	assert_int_equal(hm_hook_reply(hooks[1], 1001, &as_it_is, true), 0);
	assert_true(push_waiting(hooks[0], 1 << 20));
	assert_false(push_waiting(hooks[0], 2 << 20));
	/* Which calls that do not wait need not have. */
	assert_true(push_event(hooks[0], 2 << 20, 0));
	make_old(hooks[1]);
	g_usleep(HM_WAITING_SWEEP);
	assert_int_equal(push_until_full(hooks[0], 3 << 20), n - 1);
	for (size_t i = 0; i < G_N_ELEMENTS(hooks); i++) {
		hm_hook_leave(hooks[i]);
		assert_int_equal(push_until_full(hooks[i], 1), 0);
		hook_end(hooks[i]);
	}
	assert_int_equal(world->hooks->n_waiting, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_wait_for_events_has_no_deadline),
		TEST(no_more_waits_are_on_their_way_for_readers_that_come_and_go),
		TEST(an_event_is_told_once_and_its_reply_is_sent),
		TEST(a_call_that_nobody_reads_of_goes_on_at_once),
		TEST(many_calls_go_on_that_nobody_reads_of),
		TEST(a_reply_that_is_posted_is_checked_here),
		TEST(one_thread_waits_and_is_told_when_the_hook_ends),
		TEST(a_client_that_is_stopped_ends_every_wait),
		TEST(another_session_gets_the_same_hooks),
		TEST(a_filter_that_is_too_large_for_the_guest_is_not_sent),
		TEST(what_the_guest_has_not_answered_to_is_undone),
		TEST(nothing_is_told_before_the_guest_has_undone_what_was_before),
		TEST(a_hook_whose_filter_was_not_answered_to_is_removed_in_the_guest),
		TEST(who_comes_while_the_reader_before_leaves_is_not_told_that_it_is_busy),
		TEST(registers_that_were_not_asked_for_take_no_memory),
		TEST(calls_that_nobody_replies_to_are_forgotten_when_there_are_too_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
