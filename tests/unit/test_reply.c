// SPDX-License-Identifier: MIT
/*
 * reply: several calls go on by one write(2), and a signal comes between two of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "bridge/hook.h"
#include "bridge/hooks.h"
#include "bridge/request.h"
#include "fs/file.h"
#include "fs/hooks.h"
#include "tests/unit/guest.h"

static struct hm_client *client;
static gint waits, replies;	/* atomic */
static gint interrupt;		/* atomic */
static gint released;		/* atomic: what is not a reply is answered */

static bool interrupted(void)
{
	return g_atomic_int_get(&interrupt);
}

static void on_signal(int signal)
{
}

/* In the guest's thread: until something waits for a slot. */
static void wait_until_queued(void)
{
	struct hm_calls *calls = &client->session.calls;
	int64_t until = g_get_monotonic_time() + PATIENCE;
	bool empty = true;

	while (empty && g_get_monotonic_time() < until) {
		g_mutex_lock(&calls->lock);
		empty = g_queue_is_empty(&calls->queue);
		g_mutex_unlock(&calls->lock);
	}
}

/* The first reply is answered when there is no slot for the second. */
static bool answer(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	int64_t until = g_get_monotonic_time() + PATIENCE;

	switch (request->op) {
	case HYPER_OP_HELLO:
		return false;
	case HYPER_OP_HOOK_WAIT:
		g_atomic_int_inc(&waits);
		return true;
	case HYPER_OP_HOOK_REPLY:
		if (g_atomic_int_add(&replies, 1) == 0) {
			wait_until_queued();
			g_atomic_int_set(&interrupt, 1);
		}
		guest_reply(guest, request, HYPER_RESP_WRITE_OK, request->addr, NULL,
			    request->size);
		return true;
	}
	while (!g_atomic_int_get(&released) && g_get_monotonic_time() < until)
		g_usleep(1000);
	return false;
}

static gpointer reader_thread(gpointer arg)
{
	uint8_t byte;

	wait_for(&replies, 1);
	hm_client_read(client, (struct hm_who){}, 0, &byte, 1);
	return NULL;
}

static gpointer killer_thread(gpointer target)
{
	while (!g_atomic_int_get(&released)) {
		pthread_kill(*(pthread_t *)target, SIGUSR1);
		g_usleep(1000);
	}
	return NULL;
}

static void call_waits(struct hm_hook *hook, uint64_t id)
{
	struct hm_event *event = g_malloc0(sizeof(*event));

	event->id = id;
	event->flags = HYPER_EVENT_WAITS;
	g_mutex_lock(&hook->hooks->lock);
	hook->attended = true;
	assert_true(hm_hook_queue_push(hook, event));
	g_mutex_unlock(&hook->hooks->lock);
}

static void a_signal_between_two_replies_says_which_were_sent(void **state)
{
	static const char text[] = "1 skip\n2 skip\n3 skip\n";
	struct sigaction action = { .sa_handler = on_signal };	/* without SA_RESTART */
	struct guest *guest = guest_new();
	struct hmfs_hook fs_hook = {};
	struct hmfs_file file = { .hook = &fs_hook };
	pthread_t self = pthread_self();
	GThread *readers[2], *killer;
	struct hm_hooks *hooks;
	ssize_t n;

	/* One waits for events, and the readers have the others as soon as they can. */
	guest->max_inflight = 3;
	guest_script(guest, answer);
	client = guest_connect(guest, 20000, interrupted);
	assert_non_null(client);
	hooks = hm_hooks_new(client);
	assert_int_equal(hm_hook_new(hooks, &fs_hook.hook), 0);
	wait_for(&waits, 1);
	for (uint64_t id = 1; id <= 3; id++)
		call_waits(fs_hook.hook, id);
	sigaction(SIGUSR1, &action, NULL);
	for (size_t i = 0; i < G_N_ELEMENTS(readers); i++)
		readers[i] = g_thread_new("reader", reader_thread, NULL);
	killer = g_thread_new("killer", killer_thread, &self);
	n = hmfs_reply_write(&file, text, sizeof(text) - 1, 0);
	g_atomic_int_set(&released, 1);
	g_thread_join(killer);
	for (size_t i = 0; i < G_N_ELEMENTS(readers); i++)
		g_thread_join(readers[i]);
	assert_int_equal(n, 7);
	assert_int_equal(replies, 1);
	/* The rest, as write(2) is told. */
	g_atomic_int_set(&interrupt, 0);
	assert_int_equal(hmfs_reply_write(&file, text + 7, sizeof(text) - 8, 0), 14);
	assert_int_equal(replies, 3);
	hm_client_stop(client);
	hm_hook_remove(fs_hook.hook);
	hm_hook_free(fs_hook.hook);
	hm_hooks_free(hooks);
	hm_client_close(client);
	guest_free(guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signal_between_two_replies_says_which_were_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
