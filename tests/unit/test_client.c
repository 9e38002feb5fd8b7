// SPDX-License-Identifier: MIT
/*
 * client: what each operation makes of what the guest says.
 *
 * What may happen to the link itself is in test_session.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/guest.h"

#define CHUNK HYPERMEM_CHUNK_SIZE

static const struct hm_who who = { GUEST_EPOCH, GUEST_PID, GUEST_STAMP };

struct world {
	struct guest *guest;
	struct hm_client *client;
};

static struct hm_client *client_of(struct guest *guest, bool readonly)
{
	struct hm_client_config config = {
		.address = guest->address, .timeout_ms = 2000, .readonly = readonly,
	};
	struct hm_client *client;
	struct hm_refusal refusal;

	assert_int_equal(hm_client_open(&config, &refusal, &client), 0);
	assert_int_equal(hm_client_start(client), 0);
	return client;
}

static int setup(void **state)
{
	struct world *world = g_new0(struct world, 1);

	world->guest = guest_new();
	world->client = client_of(world->guest, false);
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

static void check_bytes(const uint8_t *buf, uint64_t addr, size_t size)
{
	for (size_t i = 0; i < size; i++)
		assert_int_equal(buf[i], guest_byte(addr + i));
}

/* -- reading ----------------------------------------------------------------------- */

static void a_read_returns_what_the_guest_has(void **state)
{
	struct world *world = *state;
	uint8_t buf[64];

	assert_int_equal(hm_client_read(world->client, who, 0x1003, buf, sizeof(buf)), 64);
	check_bytes(buf, 0x1003, 64);
}

static void a_long_read_is_split(void **state)
{
	struct world *world = *state;
	size_t size = 100 * CHUNK + 1;
	g_autofree uint8_t *buf = g_malloc(size);

	assert_int_equal(hm_client_read(world->client, who, 5, buf, size), size);
	check_bytes(buf, 5, size);
	assert_int_equal(g_atomic_int_get(&world->guest->requests), 101);
}

static void a_read_of_nothing_asks_nobody(void **state)
{
	struct world *world = *state;

	assert_int_equal(hm_client_read(world->client, who, 5, NULL, 0), 0);
	assert_int_equal(g_atomic_int_get(&world->guest->requests), 0);
}

static void a_read_ends_with_the_address_space(void **state)
{
	struct world *world = *state;
	uint8_t buf[2 * CHUNK];

	assert_int_equal(hm_client_read(world->client, who, UINT64_MAX, buf, 1), 1);
	assert_int_equal(hm_client_read(world->client, who, UINT64_MAX, buf, sizeof(buf)), 1);
	assert_int_equal(hm_client_read(world->client, who, -CHUNK - 9, buf, sizeof(buf)),
			 CHUNK + 9);
	check_bytes(buf, -CHUNK - 9, CHUNK + 9);
}

/* Memory ends at 10000. */
static bool ends_at_10000(struct guest *guest, const struct hm_header *request,
			  const uint8_t *data)
{
	uint8_t bytes[CHUNK];
	uint32_t n = request->addr < 10000 ? MIN(request->size, 10000 - request->addr) : 0;

	if (request->op != HYPER_OP_READ || n == request->size)
		return false;
	for (uint32_t i = 0; i < n; i++)
		bytes[i] = guest_byte(request->addr + i);
	if (n)
		guest_reply(guest, request, HYPER_RESP_READ_PARTIAL, EFAULT, bytes, n);
	else
		guest_reply(guest, request, HYPER_RESP_READ_FAIL, EFAULT, NULL, 0);
	return true;
}

static void a_read_is_short_where_memory_ends(void **state)
{
	struct world *world = *state;
	g_autofree uint8_t *buf = g_malloc(20 * CHUNK);

	guest_script(world->guest, ends_at_10000);
	assert_int_equal(hm_client_read(world->client, who, 9, buf, 20 * CHUNK), 9991);
	check_bytes(buf, 9, 9991);
	assert_int_equal(hm_client_read(world->client, who, 10000 - CHUNK, buf, 20 * CHUNK),
			 CHUNK);
	assert_int_equal(hm_client_read(world->client, who, 9999, buf, 2), 1);
	assert_int_equal(hm_client_read(world->client, who, 10000, buf, 20 * CHUNK), -EIO);
}

/* The second chunk never comes whole, those behind it do. */
static bool hole_in_second_chunk(struct guest *guest, const struct hm_header *request,
				 const uint8_t *data)
{
	if (request->op != HYPER_OP_READ || request->addr != CHUNK)
		return false;
	guest_reply(guest, request, HYPER_RESP_READ_FAIL, EFAULT, NULL, 0);
	return true;
}

static void a_read_does_not_jump_over_a_hole(void **state)
{
	struct world *world = *state;
	g_autofree uint8_t *buf = g_malloc(6 * CHUNK);

	guest_script(world->guest, hole_in_second_chunk);
	assert_int_equal(hm_client_read(world->client, who, 0, buf, 6 * CHUNK), CHUNK);
	/* The answers that nobody wanted disturb nobody. */
	assert_int_equal(hm_client_read(world->client, who, 2 * CHUNK, buf, CHUNK), CHUNK);
	check_bytes(buf, 2 * CHUNK, CHUNK);
}

static bool no_memory(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op != HYPER_OP_READ)
		return false;
	guest_reply(guest, request, HYPER_RESP_READ_OK, request->addr, NULL, 0);
	return true;
}

static void a_process_without_memory_is_empty(void **state)
{
	struct world *world = *state;
	uint8_t buf[3 * CHUNK];

	guest_script(world->guest, no_memory);
	assert_int_equal(hm_client_read(world->client, who, 0, buf, sizeof(buf)), 0);
}

/* -- writing ------------------------------------------------------------------------ */

static void a_write_arrives_in_order(void **state)
{
	struct world *world = *state;
	g_autofree uint8_t *buf = g_malloc(5 * CHUNK + 3);

	for (int i = 0; i < 5 * CHUNK + 3; i++)
		buf[i] = (uint8_t)(i >> 3);
	assert_int_equal(hm_client_write(world->client, who, 0, buf, 5 * CHUNK + 3),
			 5 * CHUNK + 3);
	assert_int_equal(world->guest->written->len, 5 * CHUNK + 3);
	assert_memory_equal(world->guest->written->data, buf, 5 * CHUNK + 3);
	assert_int_equal(hm_client_write(world->client, who, 0, buf, 0), 0);
}

/* The third write is done up to 10 bytes; a fourth must not come. */
static bool third_is_partial(struct guest *guest, const struct hm_header *request,
			     const uint8_t *data)
{
	if (request->op != HYPER_OP_WRITE || ++guest->n != 3)
		return false;
	guest_reply(guest, request, HYPER_RESP_WRITE_PARTIAL, EFAULT, NULL, 10);
	return true;
}

static bool writes_fail(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	if (request->op != HYPER_OP_WRITE)
		return false;
	guest_reply(guest, request, HYPER_RESP_WRITE_FAIL, EFAULT, NULL, 0);
	return true;
}

static void a_write_stops_at_the_first_byte_that_fails(void **state)
{
	struct world *world = *state;
	g_autofree uint8_t *buf = g_malloc0(5 * CHUNK);

	guest_script(world->guest, third_is_partial);
	assert_int_equal(hm_client_write(world->client, who, 0, buf, 5 * CHUNK), 2 * CHUNK + 10);
	assert_int_equal(g_atomic_int_get(&world->guest->requests), 3);
	guest_script(world->guest, writes_fail);
	assert_int_equal(hm_client_write(world->client, who, 0, buf, 5 * CHUNK), -EIO);
}

static void a_read_only_client_does_not_write(void **state)
{
	struct world *world = *state;
	struct hm_client *client;

	hm_client_close(world->client);
	client = world->client = client_of(world->guest, true);
	assert_int_equal(hm_client_write(client, who, 0, "x", 1), -EROFS);
	assert_int_equal(hm_client_write_pointer(client, who, 0, 1), -EROFS);
	assert_int_equal(g_atomic_int_get(&world->guest->requests), 0);
}

/* -- texts ---------------------------------------------------------------------------- */

/* What the next request gets; then as ever. */
struct part {
	uint32_t resp;
	uint64_t addr;		/* ECHO: the request's */
	const void *data;
	uint32_t size;		/* FILL: as much as was asked for */
};

#define ECHO 0xec40ec40ec40ULL
#define FILL UINT32_MAX

/* What the guest says, part after part; the scripts' only argument. */
static const struct part *parts;

static bool in_parts(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	const struct part *part = &parts[guest->n++];
	g_autofree uint8_t *fill = NULL;
	uint32_t size = part->size;

	if (size == FILL) {
		size = request->size;
		fill = g_malloc(size);
		memset(fill, 'x', size);
	}
	guest_reply(guest, request, part->resp, part->addr == ECHO ? request->addr : part->addr,
		    fill ?: part->data, size);
	return true;
}

static void script(struct world *world, const struct part *list)
{
	parts = list;
	guest_script(world->guest, in_parts);
}

static bool is_big_endian(struct guest *guest, const struct hm_header *request,
			  const uint8_t *data)
{
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;

	if (request->op != HYPER_OP_HELLO)
		return false;
	memcpy(&hello, data, sizeof(hello));
	guest_hello_fill(guest, &reply);
	reply.flags = GUINT32_TO_LE(HYPER_HELLO_BIG_ENDIAN);
	guest_reply(guest, request, HYPER_RESP_READ_OK, GUINT64_FROM_LE(hello.nonce), &reply,
		    sizeof(reply));
	return true;
}

static void a_number_is_read_and_written_as_the_guest_has_it(void **state)
{
	struct world *world = *state;
	uint64_t number, expected = 0;

	for (int i = 7; i >= 0; i--)
		expected = expected << 8 | guest_byte(0x1000 + i);
	assert_int_equal(hm_client_read_number(world->client, who, 0x1000, 8, &number), 0);
	assert_true(number == expected);
	assert_int_equal(hm_client_write_number(world->client, who, 0x1000, 4, 0x11223344), 0);
	assert_int_equal(world->guest->written->len, 4);
	assert_memory_equal(world->guest->written->data, "\x44\x33\x22\x11", 4);

	hm_client_close(world->client);
	guest_script(world->guest, is_big_endian);
	world->client = client_of(world->guest, false);
	assert_int_equal(hm_client_read_number(world->client, who, 0x1000, 8, &number), 0);
	assert_true(number == GUINT64_SWAP_LE_BE(expected));
	assert_int_equal(hm_client_write_number(world->client, who, 0x1000, 4, 0x11223344), 0);
	assert_memory_equal(world->guest->written->data + 4, "\x11\x22\x33\x44", 4);
}

static void a_number_that_is_not_all_there_is_none(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_PARTIAL, EFAULT, "abc", 3 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, 0 },
		{ HYPER_RESP_READ_FAIL, EFAULT, NULL, 0 },
		{ HYPER_RESP_WRITE_PARTIAL, EFAULT, NULL, 3 },
		{ HYPER_RESP_WRITE_FAIL, EFAULT, NULL, 0 },
	};
	struct world *world = *state;
	uint64_t number = 7;

	script(world, list);
	for (int i = 0; i < 3; i++)
		assert_int_equal(hm_client_read_number(world->client, who, 1, 4, &number), -EIO);
	assert_true(number == 7);
	for (int i = 0; i < 2; i++)
		assert_int_equal(hm_client_write_number(world->client, who, 1, 4, 1), -EIO);
}

static void a_pointer_is_as_wide_as_the_guest_says(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, ECHO, "\1\2\3\4", 4 },
		{ HYPER_RESP_READ_OK, ECHO, "\1\2\3\4\5\6\7\x88", 8 },
		{ HYPER_RESP_READ_OK, ECHO, "\1\2\3\4\5", 5 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, 0 },
		{ HYPER_RESP_READ_PARTIAL, EIO, "\1\2\3\4", 4 },
		{ HYPER_RESP_READ_FAIL, EFAULT, NULL, 0 },
		{ HYPER_RESP_WRITE_OK, ECHO, NULL, 8 },
		{ HYPER_RESP_WRITE_OK, ECHO, NULL, 4 },
		{ HYPER_RESP_WRITE_PARTIAL, EIO, NULL, 4 },
		{ HYPER_RESP_WRITE_FAIL, ERANGE, NULL, 0 },
	};
	static const int read_errors[] = { -EPROTO, -EPROTO, -EIO, -EIO };
	static const int write_errors[] = { 0, -EPROTO, -EIO, -ERANGE };
	struct world *world = *state;
	uint64_t pointer;

	script(world, list);
	assert_int_equal(hm_client_read_pointer(world->client, who, 16, &pointer), 0);
	assert_true(pointer == 0x04030201);
	assert_int_equal(hm_client_read_pointer(world->client, who, 16, &pointer), 0);
	assert_true(pointer == 0x8807060504030201);
	for (size_t i = 0; i < G_N_ELEMENTS(read_errors); i++)
		assert_int_equal(hm_client_read_pointer(world->client, who, 16, &pointer),
				 read_errors[i]);
	assert_true(pointer == 0x8807060504030201);
	for (size_t i = 0; i < G_N_ELEMENTS(write_errors); i++)
		assert_int_equal(hm_client_write_pointer(world->client, who, 16, 1),
				 write_errors[i]);
}

static void a_string_ends_at_its_nul(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, ECHO, "hello", 6 },
		{ HYPER_RESP_READ_OK, ECHO, "", 1 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, FILL },
		{ HYPER_RESP_READ_OK, ECHO, "yz", 3 },
	};
	struct world *world = *state;
	char buf[2 * CHUNK];

	script(world, list);
	assert_int_equal(hm_client_read_str(world->client, who, 1, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	assert_int_equal(hm_client_read_str(world->client, who, 1, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "");
	assert_int_equal(hm_client_read_str(world->client, who, 1, buf, sizeof(buf)), CHUNK + 2);
	assert_int_equal(buf[CHUNK - 1], 'x');
	assert_string_equal(buf + CHUNK, "yz");
}

static void a_string_without_end_says_why(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, ECHO, NULL, FILL },
		{ HYPER_RESP_READ_PARTIAL, EFAULT, "abc", 3 },
		{ HYPER_RESP_READ_FAIL, EFAULT, NULL, 0 },
		{ HYPER_RESP_READ_OK, ECHO, "a\0b", 4 },
		{ HYPER_RESP_READ_OK, ECHO, "abc", 3 },
		{ HYPER_RESP_READ_PARTIAL, EFAULT, "abc", 4 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, 0 },
	};
	static const int expected[] = { -E2BIG, -EIO, -EIO, -EPROTO, -EPROTO, -EPROTO, -EPROTO };
	struct world *world = *state;
	char buf[100];

	script(world, list);
	for (size_t i = 0; i < G_N_ELEMENTS(expected); i++)
		assert_int_equal(hm_client_read_str(world->client, who, 1, buf, sizeof(buf)),
				 expected[i]);
}

static void arguments_go_on_to_their_end(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, ECHO, NULL, FILL },
		{ HYPER_RESP_READ_OK, ECHO, "a\0b", 4 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, 0 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, FILL },
		{ HYPER_RESP_READ_FAIL, EIO, NULL, 0 },
		{ HYPER_RESP_READ_FAIL, EACCES, NULL, 0 },
		{ HYPER_RESP_READ_PARTIAL, EIO, "ab", 2 },
		{ HYPER_RESP_READ_PARTIAL, EACCES, "ab", 2 },
	};
	static const struct {
		int expected;
		bool ended;
	} reads[] = { { CHUNK + 4, true }, { 0, true }, { CHUNK, false }, { -EACCES, false },
		      { 2, false }, { -EACCES, false } };
	struct world *world = *state;
	char buf[2 * CHUNK];
	bool ended;

	script(world, list);
	for (size_t i = 0; i < G_N_ELEMENTS(reads); i++) {
		assert_int_equal((i < 2 ? hm_client_read_procargs : hm_client_read_procenv)
				 (world->client, who, 7, buf, sizeof(buf), &ended),
				 reads[i].expected);
		assert_int_equal(ended, reads[i].ended);
		if (i == 0)
			assert_memory_equal(buf + CHUNK, "a\0b", 4);
	}
}

static void a_link_has_a_text(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, ECHO, "/bin/busybox", 12 },
		{ HYPER_RESP_READ_OK, ECHO, "/tmp/x", 6 },
		{ HYPER_RESP_READ_FAIL, ENOENT, NULL, 0 },
		{ HYPER_RESP_READ_FAIL, HYPER_ENAMETOOLONG, NULL, 0 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, 0 },
		{ HYPER_RESP_READ_OK, ECHO, "/a\0b", 4 },
		{ HYPER_RESP_READ_PARTIAL, EIO, "/a", 2 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, FILL },
	};
	static const int expected[] = { -ENOENT, -ENAMETOOLONG, -EPROTO, -EPROTO, -EPROTO, 99 };
	struct world *world = *state;
	char buf[100];

	script(world, list);
	assert_int_equal(hm_client_read_link(world->client, who, HYPER_LINK_EXE, buf, 100), 12);
	assert_string_equal(buf, "/bin/busybox");
	assert_int_equal(hm_client_read_fd_name(world->client, who, 3, buf, 100), 6);
	assert_string_equal(buf, "/tmp/x");
	for (size_t i = 0; i < G_N_ELEMENTS(expected); i++)
		assert_int_equal(hm_client_read_fd_name(world->client, who, 3, buf, 100),
				 expected[i]);
}

static void a_text_comes_in_parts(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, 7, "one\n", 4 },
		{ HYPER_RESP_READ_OK, 3, "two\n", 4 },
		{ HYPER_RESP_READ_OK, 0, NULL, 0 },
	};
	struct world *world = *state;
	g_autoptr(GByteArray) text = g_byte_array_new();
	uint64_t cursor = 0;

	script(world, list);
	for (size_t i = 0; i < G_N_ELEMENTS(list); i++) {
		assert_int_equal(hm_client_read_proc_file(world->client, who, "maps", &cursor,
							  text), 0);
		assert_int_equal(cursor, list[i].addr);
	}
	assert_int_equal(text->len, 8);
	assert_memory_equal(text->data, "one\ntwo\n", 8);
}

static void a_text_that_does_not_get_on_is_refused(void **state)
{
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, 7, "one\n", 4 },		/* the cursor that it had */
		{ HYPER_RESP_READ_OK, 8, NULL, 0 },		/* nothing, but there is more */
		{ HYPER_RESP_READ_PARTIAL, EIO, "one\n", 4 },
		{ HYPER_RESP_READ_FAIL, ENOENT, NULL, 0 },
	};
	static const int expected[] = { -EPROTO, -EPROTO, -EPROTO, -ENOENT };
	struct world *world = *state;
	g_autoptr(GByteArray) text = g_byte_array_new();
	uint64_t cursor = 7;

	script(world, list);
	for (size_t i = 0; i < G_N_ELEMENTS(list); i++)
		assert_int_equal(hm_client_read_proc_file(world->client, who, "maps", &cursor,
							  text), expected[i]);
	assert_int_equal(cursor, 7);
	assert_int_equal(text->len, 0);
}

/* -- records --------------------------------------------------------------------------- */

#define PROC(n) { .pid = GUINT32_TO_LE(n), .stamp = GUINT16_TO_LE(1), .state = 'S' }
#define FD(n) { .fd = GUINT32_TO_LE(n), .mode = GUINT32_TO_LE(S_IFLNK | 0700) }
#define MAP(from, to) { .start = GUINT64_TO_LE(from), .end = GUINT64_TO_LE(to) }

static void a_process_is_the_one_that_was_asked_for(void **state)
{
	static const struct hypermem_proc procs[] = { PROC(42), PROC(43) };
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, ECHO, &procs[0], sizeof(procs[0]) },
		{ HYPER_RESP_READ_OK, ECHO, &procs[1], sizeof(procs[1]) },
		{ HYPER_RESP_READ_OK, ECHO, &procs[0], sizeof(procs[0]) - 1 },
		{ HYPER_RESP_READ_OK, ECHO, NULL, 0 },
		{ HYPER_RESP_READ_PARTIAL, EIO, &procs[0], 8 },
		{ HYPER_RESP_READ_OK, ECHO, procs, sizeof(procs) },
		{ HYPER_RESP_READ_FAIL, ESRCH, NULL, 0 },
	};
	struct world *world = *state;
	uint64_t epoch = 0;
	struct hm_proc proc;

	script(world, list);
	assert_int_equal(hm_client_read_proc(world->client, 42, &proc, &epoch), 0);
	assert_int_equal(proc.pid, 42);
	assert_int_equal(epoch, GUEST_EPOCH);
	for (size_t i = 1; i < G_N_ELEMENTS(list) - 1; i++)
		assert_int_equal(hm_client_read_proc(world->client, 42, &proc, &epoch), -EPROTO);
	assert_int_equal(hm_client_read_proc(world->client, 42, &proc, &epoch), -ESRCH);
}

static void a_list_comes_in_parts(void **state)
{
	static const struct hypermem_proc procs[] = { PROC(1), PROC(2), PROC(9) };
	static const struct hypermem_fd fds[] = { FD(0), FD(2), FD(255) };
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, 5, procs, 2 * sizeof(procs[0]) },
		{ HYPER_RESP_READ_OK, 0, &procs[2], sizeof(procs[2]) },
		{ HYPER_RESP_READ_OK, 1, fds, sizeof(fds[0]) },
		{ HYPER_RESP_READ_OK, 256, fds + 1, 2 * sizeof(fds[0]) },
		{ HYPER_RESP_READ_OK, 0, NULL, 0 },
	};
	struct world *world = *state;
	g_autoptr(GArray) some = NULL, files = NULL;
	uint64_t epoch;

	script(world, list);
	assert_int_equal(hm_client_list_procs(world->client, &some, &epoch), 0);
	assert_int_equal(epoch, GUEST_EPOCH);
	assert_int_equal(some->len, 3);
	assert_int_equal(g_array_index(some, struct hm_proc, 2).pid, 9);
	assert_int_equal(hm_client_list_fds(world->client, who, &files), 0);
	assert_int_equal(files->len, 3);
	assert_int_equal(g_array_index(files, struct hm_fd, 2).fd, 255);
}

static void a_list_that_is_not_in_order_or_never_ends_is_refused(void **state)
{
	static const struct hypermem_fd fds[] = { FD(1), FD(2), FD(2), FD(1), FD(1U << 31) };
	static const struct part lists[][2] = {
		{ { HYPER_RESP_READ_OK, 0, &fds[1], 2 * sizeof(fds[0]) } },	/* twice */
		{ { HYPER_RESP_READ_OK, 0, &fds[2], 2 * sizeof(fds[0]) } },	/* backwards */
		{ { HYPER_RESP_READ_OK, 0, &fds[4], sizeof(fds[0]) } },		/* impossible */
		{ { HYPER_RESP_READ_OK, 0, fds, sizeof(fds[0]) + 1 } },		/* and a bit */
		{ { HYPER_RESP_READ_OK, 1, NULL, 0 } },				/* and more */
		{ { HYPER_RESP_READ_OK, 1, fds, sizeof(fds[0]) } },		/* that one again */
		{ { HYPER_RESP_READ_OK, 5, fds, sizeof(fds[0]) },
		  { HYPER_RESP_READ_OK, 0, &fds[1], sizeof(fds[0]) } },	/* before the cursor */
		{ { HYPER_RESP_READ_OK, 5, fds, sizeof(fds[0]) },
		  { HYPER_RESP_READ_OK, 6, NULL, 0 } },
		{ { HYPER_RESP_READ_PARTIAL, EIO, fds, sizeof(fds[0]) } },
	};
	struct world *world = *state;
	GArray *array = NULL;

	for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
		script(world, lists[i]);
		if (hm_client_list_fds(world->client, who, &array) != -EPROTO)
			fail_msg("list %zu", i);
		assert_null(array);
	}
}

/* A file more in each part: it ascends, but who has so many? */
static bool endless_files(struct guest *guest, const struct hm_header *request,
			  const uint8_t *data)
{
	uint32_t n = request->size / sizeof(struct hypermem_fd);
	g_autofree struct hypermem_fd *fds = NULL;

	if (request->op != HYPER_OP_LIST_FDS)
		return false;
	fds = g_new(struct hypermem_fd, n);
	for (uint32_t i = 0; i < n; i++)
		fds[i] = (struct hypermem_fd)FD(request->addr + i);
	guest_reply(guest, request, HYPER_RESP_READ_OK, request->addr + n, fds, n * sizeof(*fds));
	return true;
}

static void a_list_does_not_fill_all_memory(void **state)
{
	struct world *world = *state;
	GArray *array = NULL;

	hm_client_close(world->client);
	world->guest->max_data = HYPERMEM_DATA_MAX;
	world->client = client_of(world->guest, false);
	guest_script(world->guest, endless_files);
	assert_int_equal(hm_client_list_fds(world->client, who, &array), -EFBIG);
}

static void mappings_are_those_that_end_above(void **state)
{
	static const struct hypermem_map maps[] = {
		MAP(0x1000, 0x3000), MAP(0x3000, 0x4000), MAP(0x3800, 0x5000),
	};
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, 0x4000, maps, 2 * sizeof(maps[0]) },
		{ HYPER_RESP_READ_OK, 0, NULL, 0 },
		{ HYPER_RESP_READ_OK, 0, maps, sizeof(maps[0]) },	/* it ends at 0x3000 */
		{ HYPER_RESP_READ_OK, 0, maps + 1, 2 * sizeof(maps[0]) },	/* they overlap */
		{ HYPER_RESP_READ_OK, 0x3fff, maps, 2 * sizeof(maps[0]) },
	};
	struct world *world = *state;
	g_autoptr(GArray) some = NULL, none = NULL;
	GArray *wrong = NULL;

	script(world, list);
	assert_int_equal(hm_client_list_maps(world->client, who, 0x2000, &some), 0);
	assert_int_equal(some->len, 2);
	assert_int_equal(g_array_index(some, struct hm_map, 0).start, 0x1000);
	assert_int_equal(hm_client_list_maps(world->client, who, 0x5000, &none), 0);
	assert_int_equal(none->len, 0);
	for (int i = 2; i < 5; i++)
		assert_int_equal(hm_client_list_maps(world->client, who, 0x3000, &wrong),
				 -EPROTO);
}

static void an_open_file_is_there_or_not(void **state)
{
	static const struct hypermem_fd fds[] = { FD(3), FD(4) };
	static const struct part list[] = {
		{ HYPER_RESP_READ_OK, 4, &fds[0], sizeof(fds[0]) },
		{ HYPER_RESP_READ_OK, 5, &fds[1], sizeof(fds[1]) },
		{ HYPER_RESP_READ_OK, 0, NULL, 0 },
	};
	struct world *world = *state;
	struct hm_fd fd;

	script(world, list);
	assert_int_equal(hm_client_read_fd(world->client, who, 3, &fd), 0);
	assert_int_equal(fd.fd, 3);
	assert_int_equal(hm_client_read_fd(world->client, who, 3, &fd), -ENOENT);
	assert_int_equal(hm_client_read_fd(world->client, who, 3, &fd), -ENOENT);
}

/* -- permission -------------------------------------------------------------------------- */

static bool lacks_read(struct guest *guest, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hello_reply reply;
	struct hypermem_hello hello;

	if (request->op != HYPER_OP_HELLO)
		return false;
	memcpy(&hello, data, sizeof(hello));
	guest_hello_fill(guest, &reply);
	reply.ops &= ~GUINT64_TO_LE(1ULL << HYPER_OP_READ);
	guest_reply(guest, request, HYPER_RESP_READ_OK, GUINT64_FROM_LE(hello.nonce), &reply,
		    sizeof(reply));
	return true;
}

static void what_the_guest_cannot_or_will_not_do_is_not_asked_for(void **state)
{
	struct world *world = *state;
	uint8_t byte;

	hm_client_close(world->client);
	world->guest->allowed = ~(1ULL << HYPER_OP_INDEX(HYPER_OP_WRITE));
	guest_script(world->guest, lacks_read);
	world->client = client_of(world->guest, false);
	assert_int_equal(hm_client_read(world->client, who, 0, &byte, 1), -EOPNOTSUPP);
	assert_int_equal(hm_client_write(world->client, who, 0, "x", 1), -EPERM);
	assert_int_equal(g_atomic_int_get(&world->guest->requests), 0);
}

static void ignore(const char *domain, GLogLevelFlags level, const char *message, gpointer data)
{
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_read_returns_what_the_guest_has),
		TEST(a_long_read_is_split),
		TEST(a_read_of_nothing_asks_nobody),
		TEST(a_read_ends_with_the_address_space),
		TEST(a_read_is_short_where_memory_ends),
		TEST(a_read_does_not_jump_over_a_hole),
		TEST(a_process_without_memory_is_empty),
		TEST(a_write_arrives_in_order),
		TEST(a_write_stops_at_the_first_byte_that_fails),
		TEST(a_read_only_client_does_not_write),
		TEST(a_number_is_read_and_written_as_the_guest_has_it),
		TEST(a_number_that_is_not_all_there_is_none),
		TEST(a_pointer_is_as_wide_as_the_guest_says),
		TEST(a_string_ends_at_its_nul),
		TEST(a_string_without_end_says_why),
		TEST(arguments_go_on_to_their_end),
		TEST(a_link_has_a_text),
		TEST(a_text_comes_in_parts),
		TEST(a_text_that_does_not_get_on_is_refused),
		TEST(a_process_is_the_one_that_was_asked_for),
		TEST(a_list_comes_in_parts),
		TEST(a_list_that_is_not_in_order_or_never_ends_is_refused),
		TEST(a_list_does_not_fill_all_memory),
		TEST(mappings_are_those_that_end_above),
		TEST(an_open_file_is_there_or_not),
		TEST(what_the_guest_cannot_or_will_not_do_is_not_asked_for),
	};

	/* The guest is complained about: that is what most of these are for. */
	g_log_set_default_handler(ignore, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
