// SPDX-License-Identifier: MIT
/*
 * fake_guest_hook: operations on hooks of system calls that nobody makes; but see
 * fake_guest_caller.c.
 */
#include <errno.h>
#include <string.h>

#include "tests/fake_guest_hook.h"

struct fake_hooks the_hooks;

void hook_unref(struct hook *hook)
{
	if (--hook->refs == 0)
		g_free(hook);
}

/* Its calls go on, and its events are not told. */
static void hook_abandon(struct hook *hook)
{
	struct waiter *waiter;
	GHashTableIter iter;
	gpointer value;
	GList *next;

	for (GList *link = the_hooks.notes.head; link; link = next) {
		next = link->next;
		if (((struct note *)link->data)->hook == hook) {
			note_free(link->data);
			g_queue_delete_link(&the_hooks.notes, link);
		}
	}
	if (!the_hooks.waiters)
		return;
	g_hash_table_iter_init(&iter, the_hooks.waiters);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		waiter = value;
		waiter->abandoned |= waiter->hook == hook;
	}
}

static void hook_end(gpointer data)
{
	struct hook *hook = data;

	hook->gone = true;
	hook_abandon(hook);
	hook_unref(hook);
}

void hooks_session(unsigned int session)
{
	g_mutex_lock(&the_hooks.lock);
	if (!the_hooks.hooks) {
		the_hooks.hooks = g_hash_table_new_full(NULL, NULL, NULL, hook_end);
		the_hooks.waiters = g_hash_table_new(g_int64_hash, g_int64_equal);
	}
	g_hash_table_remove_all(the_hooks.hooks);
	the_hooks.session = session;
	g_cond_broadcast(&the_hooks.changed);
	g_mutex_unlock(&the_hooks.lock);
}

/* -- operations ------------------------------------------------------------------------------- */

static bool test_is_valid(const struct hypermem_test *test, size_t text_size, int *depth)
{
	uint64_t a = GUINT64_FROM_LE(test->a), b = GUINT64_FROM_LE(test->b);

	switch (test->test) {
	case HYPER_TEST_NUMBER:
		++*depth;
		return test->field < HYPER_FIELD_COMM && test->compare < HYPER_COMPARE_NUMBERS;
	case HYPER_TEST_STRING:
		++*depth;
		return (test->field <= HYPER_FIELD_ARG0 + 5 || test->field == HYPER_FIELD_COMM) &&
		       (test->compare <= HYPER_NE || test->compare >= HYPER_BEGINS) &&
		       test->compare < HYPER_COMPARE_MAX && a <= text_size && b <= text_size - a;
	case HYPER_TEST_AND:
	case HYPER_TEST_OR:
		return --*depth >= 1;
	case HYPER_TEST_NOT:
		return *depth >= 1;
	}
	return false;
}

/* What HOOK_SET has behind its header. */
struct hook_data {
	struct hypermem_hook raw;
	const struct hypermem_test *tests;
	const char *names, *text;
	size_t n_tests, names_size, text_size;
};

static int hook_data_parse(const GByteArray *data, struct hook_data *ret)
{
	size_t size = data->len;
	uint32_t timeout_ms;
	int depth = 0;

	if (size < sizeof(ret->raw))
		return -EINVAL;
	memcpy(&ret->raw, data->data, sizeof(ret->raw));
	ret->n_tests = GUINT16_FROM_LE(ret->raw.tests);
	ret->names_size = GUINT16_FROM_LE(ret->raw.names_size);
	ret->text_size = GUINT16_FROM_LE(ret->raw.text_size);
	timeout_ms = GUINT32_FROM_LE(ret->raw.timeout_ms);
	ret->tests = (const void *)(data->data + sizeof(ret->raw));
	ret->names = (const char *)(ret->tests + ret->n_tests);
	ret->text = ret->names + ret->names_size;
	if (size != sizeof(ret->raw) + ret->n_tests * sizeof(*ret->tests) + ret->names_size +
			    ret->text_size ||
	    ret->n_tests > HYPER_TESTS_MAX || ret->names_size > HYPER_HOOK_TEXT_MAX ||
	    ret->text_size > HYPER_HOOK_TEXT_MAX || !ret->names_size || ret->raw.reserved ||
	    ret->names[ret->names_size - 1] || timeout_ms < 1 ||
	    timeout_ms > HYPER_TIMEOUT_MAX_MS)
		return -EINVAL;
	for (size_t i = 0; i < ret->n_tests; i++)
		if (!test_is_valid(&ret->tests[i], ret->text_size, &depth))
			return -EINVAL;
	return depth == (ret->n_tests ? 1 : 0) ? 0 : -EINVAL;
}

static bool any_is_call(const struct hook_data *data)
{
	for (size_t i = 0; i < data->names_size; i += strlen(data->names + i) + 1)
		if (callers_know(data->names + i))
			return true;
	return false;
}

static void hook_set_comm(struct hook *hook, const struct hook_data *data)
{
	memset(hook->comm, 0, sizeof(hook->comm));
	memcpy(hook->comm, "fake", 4);
	for (size_t i = 0; i < data->n_tests; i++) {
		const struct hypermem_test *test = &data->tests[i];
		size_t size = MIN(GUINT64_FROM_LE(test->b), sizeof(hook->comm) - 1);

		if (test->test != HYPER_TEST_STRING || test->field != HYPER_FIELD_COMM)
			continue;
		memset(hook->comm, 0, sizeof(hook->comm));
		memcpy(hook->comm, data->text + GUINT64_FROM_LE(test->a), size);
	}
}

/* With the lock held. */
static struct hook *hook_find(const struct request *request)
{
	if (request->session != the_hooks.session || !the_hooks.hooks)
		return NULL;
	return g_hash_table_lookup(the_hooks.hooks, GUINT_TO_POINTER(request->frame.addr));
}

static struct hook *hook_add(const struct request *request)
{
	struct hook *hook = g_new0(struct hook, 1);

	hook->refs = 1;
	hook->number = (uint32_t)request->frame.addr;
	g_hash_table_insert(the_hooks.hooks, GUINT_TO_POINTER(hook->number), hook);
	return hook;
}

static void hook_set(struct request *request, struct hook *hook, const struct hook_data *data)
{
	bool other = strncmp(hook->name, data->names, sizeof(hook->name) - 1) != 0;

	hook->flags = GUINT32_FROM_LE(data->raw.flags);
	hook->timeout_ms = GUINT32_FROM_LE(data->raw.timeout_ms);
	g_strlcpy(hook->name, data->names, sizeof(hook->name));
	hook_set_comm(hook, data);
	if (!(hook->flags & HYPER_HOOK_ATTENDED))
		hook_abandon(hook);
	if (other)
		callers_start(request->conn->guest, hook);
	g_cond_broadcast(&the_hooks.changed);
}

int op_hook_set(struct request *request, struct frame *reply)
{
	struct hook_data data;
	struct hook *hook;
	int rc = hook_data_parse(request->frame.data, &data);

	if (rc)
		return rc;
	if (!request->frame.addr || request->frame.addr > UINT32_MAX)
		return -EINVAL;
	if (!any_is_call(&data))
		return -ENOENT;
	g_mutex_lock(&the_hooks.lock);
	if (request->session == the_hooks.session) {
		hook = hook_find(request) ?: hook_add(request);
		hook_set(request, hook, &data);
	}
	g_mutex_unlock(&the_hooks.lock);
	reply->size = request->frame.data->len;
	return 0;
}

int op_hook_remove(struct request *request, struct frame *reply)
{
	bool found;

	g_mutex_lock(&the_hooks.lock);
	found = hook_find(request);
	if (found)
		g_hash_table_remove(the_hooks.hooks, GUINT_TO_POINTER(request->frame.addr));
	g_cond_broadcast(&the_hooks.changed);
	g_mutex_unlock(&the_hooks.lock);
	return found ? 0 : -ENOENT;
}

void hooks_wait_came(struct request *request)
{
	g_mutex_lock(&the_hooks.lock);
	g_queue_push_tail(&the_hooks.waits, request);
	g_mutex_unlock(&the_hooks.lock);
}

int op_hook_wait(struct request *request, struct frame *reply)
{
	struct note *note;

	g_mutex_lock(&the_hooks.lock);
	while (request->session == the_hooks.session &&
	       (!the_hooks.notes.length || g_queue_peek_head(&the_hooks.waits) != request))
		g_cond_wait(&the_hooks.changed, &the_hooks.lock);
	g_queue_remove(&the_hooks.waits, request);
	while (request->session == the_hooks.session && (note = g_queue_peek_head(&the_hooks.notes)) &&
	       reply->data->len + note->data->len <= request->frame.size) {
		g_byte_array_append(reply->data, note->data->data, note->data->len);
		note->hook->counts.sent++;
		note_free(g_queue_pop_head(&the_hooks.notes));
	}
	g_cond_broadcast(&the_hooks.changed);	/* the next WAIT is the first one now */
	g_mutex_unlock(&the_hooks.lock);
	return 0;
}

/* Can any call go on so? */
static bool verdict_is_valid(const struct hypermem_verdict *verdict)
{
	uint32_t known = HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL;
	uint32_t flags = GUINT32_FROM_LE(verdict->flags);
	int64_t retval = (int64_t)GUINT64_FROM_LE(verdict->retval);

	for (size_t i = 0; i < G_N_ELEMENTS(verdict->args); i++)
		known |= HYPER_VERDICT_ARG(i);
	if (verdict->reserved || (flags & ~known))
		return false;
	return !(flags & HYPER_VERDICT_RETVAL) || retval < -516 || retval > -512;
}

/* With the lock held. */
static int waiter_answer(struct waiter *waiter, const struct hypermem_verdict *verdict)
{
	const uint32_t not_made = HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL;

	if (!waiter || waiter->replied || waiter->abandoned)
		return -ESRCH;
	if (waiter->leaves && (GUINT32_FROM_LE(verdict->flags) & not_made))
		return -EINVAL;
	waiter->verdict = *verdict;
	waiter->replied = true;
	waiter->hook->counts.replied++;
	waiter->hook->counts.continued += !verdict->flags;
	g_cond_broadcast(&the_hooks.changed);
	return 0;
}

int op_hook_reply(struct request *request, struct frame *reply)
{
	const GByteArray *data = request->frame.data;
	struct hypermem_verdict verdict;
	struct waiter *waiter = NULL;
	int rc;

	if (data->len != sizeof(verdict))
		return -EINVAL;
	memcpy(&verdict, data->data, sizeof(verdict));
	if (!verdict_is_valid(&verdict))
		return -EINVAL;
	g_mutex_lock(&the_hooks.lock);
	if (request->session == the_hooks.session)
		waiter = g_hash_table_lookup(the_hooks.waiters, &request->frame.addr);
	rc = waiter_answer(waiter, &verdict);
	g_mutex_unlock(&the_hooks.lock);
	reply->size = rc ? 0 : data->len;
	return rc;
}

int op_hook_counts(struct request *request, struct frame *reply)
{
	uint64_t counts[sizeof(struct hypermem_hook_counts) / sizeof(uint64_t)];
	struct hook *hook;

	g_mutex_lock(&the_hooks.lock);
	hook = hook_find(request);
	if (hook)
		memcpy(counts, &hook->counts, sizeof(counts));
	g_mutex_unlock(&the_hooks.lock);
	if (!hook)
		return -ENOENT;
	for (size_t i = 0; i < G_N_ELEMENTS(counts); i++)
		counts[i] = GUINT64_TO_LE(counts[i]);
	g_byte_array_append(reply->data, (const guint8 *)counts, sizeof(counts));
	return 0;
}
