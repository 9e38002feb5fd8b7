// SPDX-License-Identifier: MIT
/*
 * fake_guest_hook: hooks of system calls that nobody makes.
 *
 * The host's own calls cannot be hooked, so a name that a hook is set for has calls made:
 * fake_N_MS makes N calls, one every MS milliseconds; fake_N_MS_T has T threads do so.  Each
 * call matches, whatever the filter says, but `comm==TEXT` in it is the callers' comm.
 *
 *	arg0	counts the thread's calls
 *	arg1	the thread
 *	arg2	0x1000 and arg0: what the call returns
 *	arg3	what the thread's call before was made with as arg2, or 0
 *	arg4	1 if the call before was skipped
 *	arg5	what the call before returned to its caller
 *
 * So what a reply did to a call is seen in the next one.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/fake_guest_priv.h"

/* A hook, under the lock; counts in CPU order. */
struct hook {
	unsigned int refs;
	uint32_t number, flags, timeout_ms;
	bool gone;
	unsigned int run;	/* which name it is that its callers call */
	char name[HYPER_CALL_NAME_SIZE];
	char comm[16];
	uint64_t lost;
	struct hypermem_hook_counts counts;
};

/* A call that waits for its reply. */
struct waiter {
	struct hook *hook;
	bool replied, abandoned;
	struct hypermem_verdict verdict;	/* as it came */
};

/* An event on its way. */
struct note {
	struct hook *hook;
	GByteArray *data;
};

/* A thread that makes calls. */
struct caller {
	struct fake_guest *guest;
	struct hook *hook;
	unsigned int run, thread, n, ms;
	uint32_t pid;
	uint16_t stamp;
};

static struct {
	GMutex lock;		/* protects what follows */
	GCond changed;		/* anything */
	unsigned int session;	/* whose hooks these are; 0: nobody's */
	GHashTable *hooks;	/* number -> struct hook */
	GHashTable *waiters;	/* &id -> struct waiter */
	GQueue notes;
	GQueue waits;			/* of requests, in the order in which they are answered */
	uint64_t last_id;
} the;

static void hook_unref(struct hook *hook)
{
	if (--hook->refs == 0)
		g_free(hook);
}

static void note_free(gpointer data)
{
	struct note *note = data;

	g_byte_array_unref(note->data);
	hook_unref(note->hook);
	g_free(note);
}

/* Its calls go on, and its events are not told. */
static void hook_abandon(struct hook *hook)
{
	struct waiter *waiter;
	GHashTableIter iter;
	gpointer value;
	GList *next;

	for (GList *link = the.notes.head; link; link = next) {
		next = link->next;
		if (((struct note *)link->data)->hook == hook) {
			note_free(link->data);
			g_queue_delete_link(&the.notes, link);
		}
	}
	if (!the.waiters)
		return;
	g_hash_table_iter_init(&iter, the.waiters);
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
	g_mutex_lock(&the.lock);
	if (!the.hooks) {
		the.hooks = g_hash_table_new_full(NULL, NULL, NULL, hook_end);
		the.waiters = g_hash_table_new(g_int64_hash, g_int64_equal);
	}
	g_hash_table_remove_all(the.hooks);
	the.session = session;
	g_cond_broadcast(&the.changed);
	g_mutex_unlock(&the.lock);
}

/* -- calls ------------------------------------------------------------------------------------ */

static void put_regs(GByteArray *data)
{
	static const struct {
		const char *name;
		uint64_t value;
	} regs[] = { { "sp", 0x7ffd12345678 }, { "pc", 0x401136 }, { "orig_rax", 16 } };

	for (size_t i = 0; i < G_N_ELEMENTS(regs); i++) {
		struct hypermem_reg reg = { .value = GUINT64_TO_LE(regs[i].value) };

		memcpy(reg.name, regs[i].name, strlen(regs[i].name));
		g_byte_array_append(data, (const guint8 *)&reg, sizeof(reg));
	}
}

/* ns since this host booted. */
static uint64_t boot_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void note_push(const struct caller *caller, uint64_t id, uint32_t flags,
		      const uint64_t args[6], int64_t retval)
{
	struct hook *hook = caller->hook;
	bool regs = hook->flags & HYPER_HOOK_REGS;
	struct hypermem_event event = {
		.id = GUINT64_TO_LE(id),
		.hook = GUINT32_TO_LE(hook->number),
		.flags = GUINT32_TO_LE(flags),
		.pid = GUINT32_TO_LE(caller->pid),
		.tid = GUINT32_TO_LE(caller->pid + caller->thread),
		.nr = GUINT32_TO_LE(1000),
		.stamp = GUINT16_TO_LE(caller->stamp),
		.n_regs = GUINT16_TO_LE(regs ? 3 : 0),
		.time = GUINT64_TO_LE(boot_time()),
		.retval = GUINT64_TO_LE((uint64_t)retval),
		.lost = GUINT64_TO_LE(hook->lost),
	};
	struct note *note = g_new(struct note, 1);

	for (size_t i = 0; i < G_N_ELEMENTS(event.args); i++)
		event.args[i] = GUINT64_TO_LE(args[i]);
	memcpy(event.comm, hook->comm, sizeof(event.comm));
	g_strlcpy(event.call, hook->name, sizeof(event.call));
	*note = (struct note){ hook, g_byte_array_new() };
	g_byte_array_append(note->data, (const guint8 *)&event, sizeof(event));
	if (regs)
		put_regs(note->data);
	hook->refs++;
	hook->lost = 0;
	g_queue_push_tail(&the.notes, note);
	g_cond_broadcast(&the.changed);
}

/* Until there is a reply, or none need be waited for; with the lock held. */
static void call_wait(struct hook *hook, uint64_t id, struct hypermem_verdict *ret)
{
	int64_t until = g_get_monotonic_time() + hook->timeout_ms * G_TIME_SPAN_MILLISECOND;
	struct waiter waiter = { .hook = hook };
	bool in_time = true;

	g_hash_table_insert(the.waiters, &id, &waiter);
	while (!waiter.replied && !waiter.abandoned && in_time)
		in_time = g_cond_wait_until(&the.changed, &the.lock, until);
	g_hash_table_remove(the.waiters, &id);
	if (waiter.replied) {
		hook->counts.replied++;
		*ret = waiter.verdict;
	} else if (waiter.abandoned) {
		hook->counts.abandoned++;
	} else {
		hook->counts.timed_out++;
	}
}

/* The call is looked at; *ret: how it goes on. */
static void call_stop(const struct caller *caller, uint32_t flags, const uint64_t args[6],
		      int64_t retval, struct hypermem_verdict *ret)
{
	struct hook *hook = caller->hook;
	bool waits = !(hook->flags & HYPER_HOOK_TRACE);
	uint64_t id = ++the.last_id;

	*ret = (struct hypermem_verdict){};
	hook->counts.matched++;
	if (!(hook->flags & HYPER_HOOK_ATTENDED)) {
		*(waits ? &hook->counts.unattended : &hook->counts.dropped) += 1;
		hook->lost++;
		return;
	}
	note_push(caller, id, flags | (waits ? HYPER_EVENT_WAITS : 0), args, retval);
	if (waits)
		call_wait(hook, id, ret);
}

static void call_enter(const struct caller *caller, uint64_t args[6], bool *ret_skip,
		       int64_t *ret_retval)
{
	struct hypermem_verdict verdict;
	uint32_t flags;

	call_stop(caller, 0, args, 0, &verdict);
	flags = GUINT32_FROM_LE(verdict.flags);
	for (size_t i = 0; i < G_N_ELEMENTS(verdict.args); i++)
		if (flags & HYPER_VERDICT_ARG(i))
			args[i] = GUINT64_FROM_LE(verdict.args[i]);
	*ret_skip = flags & (HYPER_VERDICT_SKIP | HYPER_VERDICT_RETVAL);
	*ret_retval = flags & HYPER_VERDICT_RETVAL ? (int64_t)GUINT64_FROM_LE(verdict.retval) : 0;
}

/* With the lock held: the call, and what it leaves for the next one. */
static void call_make(const struct caller *caller, uint64_t i, uint64_t left[3])
{
	uint64_t args[6] = { i, caller->thread, 0x1000 + i, left[0], left[1], left[2] };
	uint32_t flags = caller->hook->flags;
	struct hypermem_verdict verdict;
	int64_t retval = 0;
	bool skip = false;

	if ((flags & HYPER_HOOK_ENABLED) && (flags & HYPER_HOOK_ENTER))
		call_enter(caller, args, &skip, &retval);
	if (!skip)
		retval = (int64_t)args[2];
	if ((flags & HYPER_HOOK_ENABLED) && (flags & HYPER_HOOK_RETURN)) {
		call_stop(caller, HYPER_EVENT_RETURN | (skip ? HYPER_EVENT_SKIPPED : 0), args,
			  retval, &verdict);
		if (GUINT32_FROM_LE(verdict.flags) & HYPER_VERDICT_RETVAL)
			retval = (int64_t)GUINT64_FROM_LE(verdict.retval);
	}
	left[0] = args[2];
	left[1] = skip;
	left[2] = (uint64_t)retval;
}

static bool caller_goes_on(const struct caller *caller)
{
	return !caller->hook->gone && caller->hook->run == caller->run;
}

static gpointer caller_thread(gpointer data)
{
	g_autofree struct caller *caller = data;
	uint64_t left[3] = {};

	fake_guest_self(caller->guest, &caller->pid, &caller->stamp);
	g_mutex_lock(&the.lock);
	for (unsigned int i = 0; i < caller->n && caller_goes_on(caller); i++) {
		int64_t until = g_get_monotonic_time() + caller->ms * G_TIME_SPAN_MILLISECOND;

		while (caller_goes_on(caller) &&
		       g_cond_wait_until(&the.changed, &the.lock, until))
			;
		if (caller_goes_on(caller))
			call_make(caller, i, left);
	}
	hook_unref(caller->hook);
	g_mutex_unlock(&the.lock);
	return NULL;
}

static void hook_start_callers(struct fake_guest *guest, struct hook *hook)
{
	unsigned int n, ms, threads = 1;

	hook->run++;
	if (sscanf(hook->name, "fake_%u_%u_%u", &n, &ms, &threads) < 2)
		return;
	for (unsigned int i = 0; i < threads; i++) {
		struct caller *caller = g_new(struct caller, 1);

		*caller = (struct caller){ guest, hook, hook->run, i, n, ms };
		hook->refs++;
		g_thread_unref(g_thread_new("caller", caller_thread, caller));
	}
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

static bool is_call(const char *name)
{
	static const char *const calls[] = { "*", "close", "getppid", "ioctl", "open", "openat",
					     "read", "write", NULL };

	return g_strv_contains(calls, name) || g_str_has_prefix(name, "fake_");
}

static bool any_is_call(const struct hook_data *data)
{
	for (size_t i = 0; i < data->names_size; i += strlen(data->names + i) + 1)
		if (is_call(data->names + i))
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
	if (request->session != the.session || !the.hooks)
		return NULL;
	return g_hash_table_lookup(the.hooks, GUINT_TO_POINTER(request->frame.addr));
}

static struct hook *hook_add(const struct request *request)
{
	struct hook *hook = g_new0(struct hook, 1);

	hook->refs = 1;
	hook->number = (uint32_t)request->frame.addr;
	g_hash_table_insert(the.hooks, GUINT_TO_POINTER(hook->number), hook);
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
		hook_start_callers(request->conn->guest, hook);
	g_cond_broadcast(&the.changed);
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
	g_mutex_lock(&the.lock);
	if (request->session == the.session) {
		hook = hook_find(request) ?: hook_add(request);
		hook_set(request, hook, &data);
	}
	g_mutex_unlock(&the.lock);
	reply->size = request->frame.data->len;
	return 0;
}

int op_hook_remove(struct request *request, struct frame *reply)
{
	bool found;

	g_mutex_lock(&the.lock);
	found = hook_find(request);
	if (found)
		g_hash_table_remove(the.hooks, GUINT_TO_POINTER(request->frame.addr));
	g_cond_broadcast(&the.changed);
	g_mutex_unlock(&the.lock);
	return found ? 0 : -ENOENT;
}

void hooks_wait_came(struct request *request)
{
	g_mutex_lock(&the.lock);
	g_queue_push_tail(&the.waits, request);
	g_mutex_unlock(&the.lock);
}

int op_hook_wait(struct request *request, struct frame *reply)
{
	struct note *note;

	g_mutex_lock(&the.lock);
	while (request->session == the.session &&
	       (!the.notes.length || g_queue_peek_head(&the.waits) != request))
		g_cond_wait(&the.changed, &the.lock);
	g_queue_remove(&the.waits, request);
	while (request->session == the.session && (note = g_queue_peek_head(&the.notes)) &&
	       reply->data->len + note->data->len <= request->frame.size) {
		g_byte_array_append(reply->data, note->data->data, note->data->len);
		note->hook->counts.sent++;
		note_free(g_queue_pop_head(&the.notes));
	}
	g_cond_broadcast(&the.changed);	/* the next WAIT is the first one now */
	g_mutex_unlock(&the.lock);
	return 0;
}

int op_hook_reply(struct request *request, struct frame *reply)
{
	const GByteArray *data = request->frame.data;
	struct waiter *waiter = NULL;

	if (data->len != sizeof(struct hypermem_verdict))
		return -EINVAL;
	g_mutex_lock(&the.lock);
	if (request->session == the.session)
		waiter = g_hash_table_lookup(the.waiters, &request->frame.addr);
	if (waiter && (waiter->replied || waiter->abandoned))
		waiter = NULL;
	if (waiter) {
		memcpy(&waiter->verdict, data->data, data->len);
		waiter->replied = true;
		g_cond_broadcast(&the.changed);
	}
	g_mutex_unlock(&the.lock);
	reply->size = waiter ? data->len : 0;
	return waiter ? 0 : -ESRCH;
}

int op_hook_counts(struct request *request, struct frame *reply)
{
	uint64_t counts[sizeof(struct hypermem_hook_counts) / sizeof(uint64_t)];
	struct hook *hook;

	g_mutex_lock(&the.lock);
	hook = hook_find(request);
	if (hook)
		memcpy(counts, &hook->counts, sizeof(counts));
	g_mutex_unlock(&the.lock);
	if (!hook)
		return -ENOENT;
	for (size_t i = 0; i < G_N_ELEMENTS(counts); i++)
		counts[i] = GUINT64_TO_LE(counts[i]);
	g_byte_array_append(reply->data, (const guint8 *)counts, sizeof(counts));
	return 0;
}

/* -- going wrong ------------------------------------------------------------------------------- */

void hooks_spoil(struct request *request, struct frame *reply, int64_t how)
{
	struct hypermem_event event;

	if (request->frame.op != HYPER_OP_HOOK_WAIT || reply->data->len < sizeof(event))
		return;
	memcpy(&event, reply->data->data, sizeof(event));
	switch ((enum event_lie)how) {
	case EVENT_MANY_REGS:
		event.n_regs = GUINT16_TO_LE(HYPER_REGS_MAX + 1);
		break;
	case EVENT_REGS_BEYOND:
		event.n_regs = GUINT16_TO_LE(HYPER_REGS_MAX);
		break;
	case EVENT_COMM:
		event.comm[0] = 0;
		event.comm[15] = 'x';
		break;
	case EVENT_CALL:
		g_strlcpy(event.call, "$(reboot)", sizeof(event.call));
		break;
	case EVENT_NO_CALL:
		memset(event.call, 0, sizeof(event.call));
		break;
	case EVENT_HOOK:
		event.hook = GUINT32_TO_LE(0x5a5a5a5a);
		break;
	case EVENT_NO_ID:
		event.id = 0;
		break;
	case EVENT_PID:
		event.pid = GUINT32_TO_LE(HYPERMEM_PID_MAX);
		break;
	case EVENT_TWICE:
		g_byte_array_append(reply->data, (const guint8 *)&event, sizeof(event));
		return;
	case EVENT_NONE:
		g_byte_array_set_size(reply->data, 0);
		return;
	}
	memcpy(reply->data->data, &event, sizeof(event));
}
