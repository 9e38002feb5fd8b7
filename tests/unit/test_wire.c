// SPDX-License-Identifier: MIT
/*
 * wire: records that pass and records that must not, one change from a good one each.
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

#include "bridge/trace.h"
#include "bridge/wire.h"

/* A little-endian number at an offset of a record. */
struct change {
	const char *what;
	size_t offset, size;
	uint64_t value;
	int rc;
};

#define FIELD(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)

static void put(uint8_t *record, const struct change *change)
{
	for (size_t i = 0; i < change->size; i++)
		record[change->offset + i] = (uint8_t)(i < 8 ? change->value >> 8 * i : 0);
}

/* Decode a good record with each change in turn, and in all sizes. */
static void check_changes(const void *good, size_t size, const struct change *changes,
			  size_t n, int (*decode)(const uint8_t *data, size_t size))
{
	assert_int_equal(decode(good, size), 0);
	for (size_t i = 0; i < n; i++) {
		g_autofree uint8_t *record = g_memdup2(good, size);
		int rc;

		put(record, &changes[i]);
		rc = decode(record, size);
		if (rc != changes[i].rc)
			fail_msg("%s: %d", changes[i].what, rc);
	}
	for (size_t less = 0; less < size; less++) {
		g_autofree uint8_t *record = g_memdup2(good, less);

		assert_int_equal(decode(record, less), -EPROTO);
	}
}

static void a_header_is_little_endian(void **state)
{
	const struct hm_header header = {
		.op = HYPER_OP_WRITE, .pid = 0x01020304, .addr = 0x1122334455667788,
		.size = 0xa0b0c0d, .tag = 0x1516, .stamp = 0x2526,
	};
	const uint8_t expected[HYPERMEM_HEADER_SIZE] = {
		0x03, 0x01, 0, 0, 4, 3, 2, 1,
		0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		0x0d, 0x0c, 0x0b, 0x0a, 0x16, 0x15, 0x26, 0x25,
	};
	uint8_t bytes[HYPERMEM_HEADER_SIZE];
	struct hm_header back;

	hm_header_encode(&header, bytes);
	assert_memory_equal(bytes, expected, sizeof(bytes));
	hm_header_decode(bytes, &back);
	assert_memory_equal(&back, &header, sizeof(header));
}

static void only_operations_with_data_have_data(void **state)
{
	struct hm_header header = { .op = HYPER_OP_READ, .size = 4096 };

	assert_int_equal(hm_header_data_size(&header), 0);
	header.op = HYPER_RESP_READ_OK;
	assert_int_equal(hm_header_data_size(&header), 4096);
	header.op = HYPER_RESP_WRITE_OK;
	assert_int_equal(hm_header_data_size(&header), 0);
}

static void a_header_that_is_no_response_or_too_large_is_refused(void **state)
{
	struct hm_header header = { .op = HYPER_RESP_READ_OK, .size = 4096 };

	assert_int_equal(hm_header_check(&header, 4096), 0);
	assert_int_equal(hm_header_check(&header, 4095), -EPROTO);
	header.size = UINT32_MAX;
	assert_int_equal(hm_header_check(&header, HYPERMEM_DATA_MAX), -EPROTO);
	header.op = HYPER_RESP_WRITE_OK;	/* its size is only a number */
	assert_int_equal(hm_header_check(&header, 4096), 0);
	header.size = 0;
	for (uint32_t op = 0; op < 0x200; op++) {
		header.op = op;
		assert_int_equal(hm_header_check(&header, 4096), -EPROTO);
	}
	header.op = HYPER_RESP_READ_OK & ~HYPER_DATA;
	assert_int_equal(hm_header_check(&header, 4096), -EPROTO);
	header.op = HYPER_RESP_RESET + 1;
	assert_int_equal(hm_header_check(&header, 4096), -EPROTO);
}

/* A request for 100 bytes at 0x1000 of process 42 and an answer to it. */
struct answer {
	const char *what;
	uint32_t op;
	uint32_t resp;
	uint64_t addr;
	uint32_t size;
	bool good;
};

static const struct answer answers[] = {
	{ "all", HYPER_OP_READ, HYPER_RESP_READ_OK, 0x1000, 100, true },
	{ "none", HYPER_OP_READ, HYPER_RESP_READ_OK, 0x1000, 0, true },
	{ "some, all right", HYPER_OP_READ, HYPER_RESP_READ_OK, 0x1000, 99, false },
	{ "more", HYPER_OP_READ, HYPER_RESP_READ_OK, 0x1000, 101, false },
	{ "elsewhere", HYPER_OP_READ, HYPER_RESP_READ_OK, 0x1001, 100, false },
	{ "some", HYPER_OP_READ, HYPER_RESP_READ_PARTIAL, EFAULT, 99, true },
	{ "all but partial", HYPER_OP_READ, HYPER_RESP_READ_PARTIAL, EFAULT, 100, false },
	{ "some, no errno", HYPER_OP_READ, HYPER_RESP_READ_PARTIAL, 0, 99, false },
	{ "failure", HYPER_OP_READ, HYPER_RESP_READ_FAIL, EFAULT, 0, true },
	{ "failure, EPROTO", HYPER_OP_READ, HYPER_RESP_READ_FAIL, HYPER_EPROTO, 0, true },
	{ "failure, no errno", HYPER_OP_READ, HYPER_RESP_READ_FAIL, 0, 0, false },
	{ "failure, errno 512", HYPER_OP_READ, HYPER_RESP_READ_FAIL, 512, 0, false },
	{ "failure, with size", HYPER_OP_READ, HYPER_RESP_READ_FAIL, EFAULT, 1, false },
	{ "a write's", HYPER_OP_READ, HYPER_RESP_WRITE_OK, 0x1000, 100, false },
	{ "a write's failure", HYPER_OP_READ, HYPER_RESP_WRITE_FAIL, EFAULT, 0, false },
	{ "reset", HYPER_OP_READ, HYPER_RESP_RESET, 0x1000, 0, false },
	{ "all", HYPER_OP_WRITE, HYPER_RESP_WRITE_OK, 0x1000, 100, true },
	{ "some, all right", HYPER_OP_WRITE, HYPER_RESP_WRITE_OK, 0x1000, 99, false },
	{ "none, all right", HYPER_OP_WRITE, HYPER_RESP_WRITE_OK, 0x1000, 0, false },
	{ "more", HYPER_OP_WRITE, HYPER_RESP_WRITE_OK, 0x1000, 101, false },
	{ "some", HYPER_OP_WRITE, HYPER_RESP_WRITE_PARTIAL, EFAULT, 99, true },
	{ "more, partial", HYPER_OP_WRITE, HYPER_RESP_WRITE_PARTIAL, EFAULT, 101, false },
	{ "a read's", HYPER_OP_WRITE, HYPER_RESP_READ_OK, 0x1000, 100, false },
	{ "short string", HYPER_OP_READ_STR, HYPER_RESP_READ_OK, 0x1000, 5, true },
	{ "another string", HYPER_OP_READ_STR, HYPER_RESP_READ_OK, 0x2000, 5, false },
	{ "cursor", HYPER_OP_LIST_PROCS, HYPER_RESP_READ_OK, 7, 100, true },
	{ "text's cursor", HYPER_OP_READ_PROC_FILE, HYPER_RESP_READ_OK, 7, 100, true },
	{ "to no operation", 99, HYPER_RESP_READ_OK, 0x1000, 100, false },
	{ "to no operation", HYPER_OP_WRITE & ~HYPER_DATA, HYPER_RESP_WRITE_OK, 0x1000, 100,
	  false },
};

static void a_reply_must_fit_its_request(void **state)
{
	struct hm_header request = {
		.pid = 42, .stamp = 7, .addr = 0x1000, .size = 100, .tag = 5,
	};

	for (size_t i = 0; i < G_N_ELEMENTS(answers); i++) {
		struct hm_header reply = request;
		const char *wrong;

		request.op = answers[i].op;
		reply.op = answers[i].resp;
		reply.addr = answers[i].addr;
		reply.size = answers[i].size;
		wrong = hm_reply_check(&request, 100, &reply);
		if (!wrong != answers[i].good)
			fail_msg("%s: %s", answers[i].what, wrong);
		reply.pid++;
		assert_non_null(hm_reply_check(&request, 100, &reply));
		reply.pid--;
		reply.stamp++;
		assert_non_null(hm_reply_check(&request, 100, &reply));
	}
}

/* -- HELLO ---------------------------------------------------------------------- */

static struct hypermem_hello_reply good_hello(void)
{
	return (struct hypermem_hello_reply){
		.version = GUINT32_TO_LE(HYPERMEM_VERSION),
		.epoch = GUINT64_TO_LE(77),
		.ops = GUINT64_TO_LE(0xff),
		.allowed = GUINT64_TO_LE(0xff0f),
		.max_data = GUINT32_TO_LE(65536),
		.max_inflight = GUINT32_TO_LE(64),
		.page_size = GUINT32_TO_LE(16384),
		.word_bits = GUINT32_TO_LE(32),
		.release = "6.1.0-debian",
		.machine = "mips64",
		.module = "0.1",
	};
}

static int decode_hello(const uint8_t *data, size_t size)
{
	struct hm_guest guest;

	return hm_hello_reply_decode(data, size, &guest);
}

static void hello_tells_of_the_guest(void **state)
{
	struct hypermem_hello_reply raw = good_hello();
	struct hm_guest guest;

	assert_int_equal(hm_hello_reply_decode((uint8_t *)&raw, sizeof(raw), &guest), 0);
	assert_int_equal(guest.epoch, 77);
	assert_int_equal(guest.ops, 0xff);
	assert_int_equal(guest.allowed, 0x0f);		/* it cannot do more than it has */
	assert_int_equal(guest.max_data, 65536);
	assert_int_equal(guest.page_size, 16384);
	assert_int_equal(guest.word_bits, 32);
	assert_string_equal(guest.release, "6.1.0-debian");
	assert_string_equal(guest.machine, "mips64");
}

static void a_guest_that_does_too_little_at_a_time_has_no_hooks(void **state)
{
	struct hypermem_hello_reply raw = good_hello();
	struct hm_guest guest;

	raw.ops = raw.allowed = GUINT64_TO_LE((1ULL << HYPER_OP_MAX) - 1);
	for (uint32_t n = 1; n <= 4; n++) {
		raw.max_inflight = GUINT32_TO_LE(n);
		assert_int_equal(hm_hello_reply_decode((uint8_t *)&raw, sizeof(raw), &guest), 0);
		assert_int_equal(guest.ops, guest.allowed);
		assert_int_equal(!!(guest.ops & 1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_SET)), n > 2);
		assert_int_equal(!!(guest.ops & 1ULL << HYPER_OP_INDEX(HYPER_OP_HOOK_WAIT)), n > 2);
		assert_true(guest.ops & 1ULL << HYPER_OP_INDEX(HYPER_OP_READ));
	}
}

static void a_hello_that_cannot_be_is_refused(void **state)
{
	static const struct change changes[] = {
		{ "version 2", FIELD(hypermem_hello_reply, version), 2, -EPROTONOSUPPORT },
		{ "version 0", FIELD(hypermem_hello_reply, version), 0, -EPROTONOSUPPORT },
		{ "epoch 0", FIELD(hypermem_hello_reply, epoch), 0, -EPROTO },
		{ "max_data 0", FIELD(hypermem_hello_reply, max_data), 0, -EPROTO },
		{ "max_data", FIELD(hypermem_hello_reply, max_data), 4071, -EPROTO },
		{ "max_data least", FIELD(hypermem_hello_reply, max_data), 4072, 0 },
		{ "max_data huge", FIELD(hypermem_hello_reply, max_data), UINT32_MAX, 0 },
		{ "max_inflight 0", FIELD(hypermem_hello_reply, max_inflight), 0, -EPROTO },
		{ "max_inflight", FIELD(hypermem_hello_reply, max_inflight), UINT32_MAX, 0 },
		{ "page_size 0", FIELD(hypermem_hello_reply, page_size), 0, -EPROTO },
		{ "page_size 512", FIELD(hypermem_hello_reply, page_size), 512, -EPROTO },
		{ "page_size 1024", FIELD(hypermem_hello_reply, page_size), 1024, 0 },
		{ "page_size 4097", FIELD(hypermem_hello_reply, page_size), 4097, -EPROTO },
		{ "page_size 1 MiB", FIELD(hypermem_hello_reply, page_size), 1 << 20, 0 },
		{ "page_size 2 MiB", FIELD(hypermem_hello_reply, page_size), 1 << 21, -EPROTO },
		{ "word_bits 0", FIELD(hypermem_hello_reply, word_bits), 0, -EPROTO },
		{ "word_bits 16", FIELD(hypermem_hello_reply, word_bits), 16, -EPROTO },
		{ "word_bits 64", FIELD(hypermem_hello_reply, word_bits), 64, 0 },
		{ "flags", FIELD(hypermem_hello_reply, flags), UINT32_MAX, 0 },
		{ "empty release", FIELD(hypermem_hello_reply, release), 0, 0 },
	};
	struct hypermem_hello_reply raw = good_hello();

	check_changes(&raw, sizeof(raw), changes, G_N_ELEMENTS(changes), decode_hello);
}

static void a_hello_of_another_version_may_be_as_short_as_what_all_have(void **state)
{
	uint8_t raw[16] = { 9, 0, 0, 0 };
	struct hm_guest guest = { 0 };

	assert_int_equal(hm_hello_reply_decode(raw, 15, &guest), -EPROTO);
	assert_int_equal(hm_hello_reply_decode(raw, 16, &guest), -EPROTONOSUPPORT);
	assert_int_equal(guest.version, 9);
}

static void a_later_hello_may_be_longer(void **state)
{
	struct {
		struct hypermem_hello_reply hello;
		uint8_t more[100];
	} raw = { .hello = good_hello() };
	struct hm_guest guest;

	memset(raw.more, 0xff, sizeof(raw.more));
	assert_int_equal(hm_hello_reply_decode((uint8_t *)&raw, sizeof(raw), &guest), 0);
}

static void a_guest_that_takes_more_than_we_do_is_talked_down(void **state)
{
	struct hypermem_hello_reply raw = good_hello();
	struct hm_guest guest;

	raw.max_data = GUINT32_TO_LE(UINT32_MAX);
	assert_int_equal(hm_hello_reply_decode((uint8_t *)&raw, sizeof(raw), &guest), 0);
	assert_int_equal(guest.max_data, HYPERMEM_DATA_MAX);
}

static void a_string_of_the_guest_stays_within_its_line(void **state)
{
	struct hypermem_hello_reply raw = good_hello();
	struct hm_guest guest;

	memcpy(raw.release, "6\nlink: up\x1b[2J\x80", 16);
	assert_int_equal(hm_hello_reply_decode((uint8_t *)&raw, sizeof(raw), &guest), 0);
	assert_string_equal(guest.release, "6?link: up?[2J?");
	memset(raw.machine, 'x', sizeof(raw.machine));
	assert_int_equal(decode_hello((uint8_t *)&raw, sizeof(raw)), -EPROTO);
	raw = good_hello();
	memset(raw.module, 'x', sizeof(raw.module));
	assert_int_equal(decode_hello((uint8_t *)&raw, sizeof(raw)), -EPROTO);
}

/* -- records ---------------------------------------------------------------------- */

static int decode_proc(const uint8_t *data, size_t size)
{
	struct hm_proc proc;

	return hm_proc_decode(data, size, &proc);
}

static struct hypermem_proc good_proc(void)
{
	return (struct hypermem_proc){
		.pid = GUINT32_TO_LE(42),
		.ppid = GUINT32_TO_LE(1),
		.uid = GUINT32_TO_LE(1000),
		.stamp = GUINT16_TO_LE(7),
		.state = 'S',
		.comm = "cat",
	};
}

static void a_process_that_cannot_be_is_refused(void **state)
{
	static const struct change changes[] = {
		{ "pid 0", FIELD(hypermem_proc, pid), 0, -EPROTO },
		{ "pid 1", FIELD(hypermem_proc, pid), 1, 0 },
		{ "pid greatest", FIELD(hypermem_proc, pid), HYPERMEM_PID_MAX - 1, 0 },
		{ "pid too great", FIELD(hypermem_proc, pid), HYPERMEM_PID_MAX, -EPROTO },
		{ "pid negative", FIELD(hypermem_proc, pid), UINT32_MAX, -EPROTO },
		{ "ppid 0", FIELD(hypermem_proc, ppid), 0, 0 },
		{ "ppid", FIELD(hypermem_proc, ppid), HYPERMEM_PID_MAX, -EPROTO },
		{ "uid", FIELD(hypermem_proc, uid), UINT32_MAX, 0 },
		{ "stamp 0", FIELD(hypermem_proc, stamp), 0, -EPROTO },
		{ "state 0", FIELD(hypermem_proc, state), 0, 0 },
		{ "state R", FIELD(hypermem_proc, state), 'R', 0 },
		{ "state digit", FIELD(hypermem_proc, state), '1', -EPROTO },
		{ "state newline", FIELD(hypermem_proc, state), '\n', -EPROTO },
		{ "state 0xc4", FIELD(hypermem_proc, state), 0xc4, -EPROTO },
	};
	struct hypermem_proc raw = good_proc();

	check_changes(&raw, sizeof(raw), changes, G_N_ELEMENTS(changes), decode_proc);
}

static void a_name_of_a_process_ends_at_its_nul_or_after_16_bytes(void **state)
{
	struct hypermem_proc raw = good_proc();
	struct hm_proc proc;

	memcpy(raw.comm, "ab\0cdefghijklmno", 16);
	assert_int_equal(hm_proc_decode((uint8_t *)&raw, sizeof(raw), &proc), 0);
	assert_memory_equal(proc.comm, "ab\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 17);
	memcpy(raw.comm, "0123456789abcdef", 16);
	assert_int_equal(hm_proc_decode((uint8_t *)&raw, sizeof(raw), &proc), 0);
	assert_string_equal(proc.comm, "0123456789abcdef");
}

static int decode_fd(const uint8_t *data, size_t size)
{
	struct hm_fd fd;

	return hm_fd_decode(data, size, &fd);
}

static void a_descriptor_that_cannot_be_is_refused(void **state)
{
	static const struct change changes[] = {
		{ "fd greatest", FIELD(hypermem_fd, fd), INT32_MAX, 0 },
		{ "fd negative", FIELD(hypermem_fd, fd), 1ULL << 31, -EPROTO },
		{ "mode 0", FIELD(hypermem_fd, mode), 0, -EPROTO },
		{ "no modes", FIELD(hypermem_fd, mode), S_IFLNK, 0 },
		{ "a file", FIELD(hypermem_fd, mode), S_IFREG | 0700, -EPROTO },
		{ "a directory", FIELD(hypermem_fd, mode), S_IFDIR | 0700, -EPROTO },
		{ "set-uid", FIELD(hypermem_fd, mode), S_IFLNK | 04700, -EPROTO },
		{ "more bits", FIELD(hypermem_fd, mode), S_IFLNK | 0x10000, -EPROTO },
	};
	struct hypermem_fd raw = { .mode = GUINT32_TO_LE(S_IFLNK | 0500) };

	check_changes(&raw, sizeof(raw), changes, G_N_ELEMENTS(changes), decode_fd);
}

static int decode_map(const uint8_t *data, size_t size)
{
	struct hm_map map;

	return hm_map_decode(data, size, &map);
}

static void a_mapping_that_cannot_be_is_refused(void **state)
{
	static const struct change changes[] = {
		{ "empty", FIELD(hypermem_map, end), 0x1000, -EPROTO },
		{ "backwards", FIELD(hypermem_map, end), 0xfff, -EPROTO },
		{ "whole", FIELD(hypermem_map, end), UINT64_MAX, 0 },
		{ "from the end", FIELD(hypermem_map, start), UINT64_MAX, -EPROTO },
		{ "from 0", FIELD(hypermem_map, start), 0, 0 },
	};
	struct hypermem_map raw = {
		.start = GUINT64_TO_LE(0x1000), .end = GUINT64_TO_LE(0x2000),
	};

	check_changes(&raw, sizeof(raw), changes, G_N_ELEMENTS(changes), decode_map);
}

static int decode_ram(const uint8_t *data, size_t size)
{
	struct hm_ram ram;

	return hm_ram_decode(data, size, &ram);
}

static void ram_that_cannot_be_is_refused(void **state)
{
	static const struct change changes[] = {
		{ "empty", FIELD(hypermem_ram, end), 0x1000, -EPROTO },
		{ "proof before", FIELD(hypermem_ram, proof), 0, -EPROTO },
		{ "proof behind", FIELD(hypermem_ram, proof), 0x9000, -EPROTO },
		{ "proof within a page", FIELD(hypermem_ram, proof), 0x2010, -EPROTO },
		{ "proof at the start", FIELD(hypermem_ram, proof), 0x1000, 0 },
		{ "half a page", FIELD(hypermem_ram, end), 0x8800, -EPROTO },
		{ "starts within a page", FIELD(hypermem_ram, start), 0x1800, -EPROTO },
		{ "all there is", FIELD(hypermem_ram, end), 0xfffffffffffff000, 0 },
	};
	struct hypermem_ram raw = {
		.start = GUINT64_TO_LE(0x1000), .end = GUINT64_TO_LE(0x9000),
		.proof = GUINT64_TO_LE(0x2000),
	};

	check_changes(&raw, sizeof(raw), changes, G_N_ELEMENTS(changes), decode_ram);
}

/* A translation of three pages, in two runs. */
struct raw_hold {
	struct hypermem_hold hold;
	__le64 runs[2];
};

static int decode_hold(const uint8_t *data, size_t size)
{
	g_autofree struct hm_hold *hold = g_new(struct hm_hold, 1);

	return hm_hold_decode(data, size, 4096, hold);
}

static void a_translation_that_cannot_be_is_refused(void **state)
{
	static const struct change changes[] = {
		{ "no generation", FIELD(hypermem_hold, generation), 0, -EPROTO },
		{ "odd word", FIELD(hypermem_hold, word), 0x1004, -EPROTO },
		{ "4-byte mm", FIELD(hypermem_hold, mm_size), 4, 0 },
		{ "no mm", FIELD(hypermem_hold, mm_size), 0, -EPROTO },
		{ "large mm", FIELD(hypermem_hold, mm_size), 16, -EPROTO },
		{ "odd mm", FIELD(hypermem_hold, mm_addr), 0x3004, -EPROTO },
		{ "fewer pages", FIELD(hypermem_hold, pages), 2, -EPROTO },
		{ "more pages", FIELD(hypermem_hold, pages), 4, -EPROTO },
		{ "far more pages", FIELD(hypermem_hold, pages), UINT32_MAX, -EPROTO },
		{ "a longer run", FIELD(raw_hold, runs[0]), 0x5002, -EPROTO },
		{ "the last page", FIELD(raw_hold, runs[1]), 0xfffffffffffff000, 0 },
		{ "behind the last page", FIELD(raw_hold, runs[0]), 0xfffffffffffff001, -EPROTO },
	};
	struct raw_hold raw = {
		.hold = { .generation = GUINT64_TO_LE(7), .word = GUINT64_TO_LE(0x1010),
			  .mm_addr = GUINT64_TO_LE(0x3000), .mm_size = GUINT32_TO_LE(8),
			  .pages = GUINT32_TO_LE(3) },
		.runs = { GUINT64_TO_LE(0x5001), GUINT64_TO_LE(0x9000) },
	};

	check_changes(&raw, sizeof(raw), changes, G_N_ELEMENTS(changes), decode_hold);
	assert_int_equal(decode_hold((uint8_t *)&raw, sizeof(raw) - 1), -EPROTO);
	assert_int_equal(decode_hold((uint8_t *)&raw, sizeof(raw.hold)), -EPROTO);
}

static void a_translation_is_decoded(void **state)
{
	g_autofree struct hm_hold *hold = g_new(struct hm_hold, 1);
	struct raw_hold raw = {
		.hold = { .generation = GUINT64_TO_LE(7), .word = GUINT64_TO_LE(0x1010),
			  .mm_addr = GUINT64_TO_LE(0x3000), .mm = "the mm", .mm_size = GUINT32_TO_LE(8),
			  .pages = GUINT32_TO_LE(3) },
		.runs = { GUINT64_TO_LE(0x50001), GUINT64_TO_LE(0x90000) },
	};

	assert_int_equal(hm_hold_decode((uint8_t *)&raw, sizeof(raw), 65536, hold), 0);
	assert_int_equal(hold->size, 3 * 65536);
	raw.runs[0] = GUINT64_TO_LE(0x51001);
	assert_int_equal(hm_hold_decode((uint8_t *)&raw, sizeof(raw), 65536, hold), -EPROTO);
	assert_int_equal(hm_hold_decode((uint8_t *)&raw, sizeof(raw), 4096, hold), 0);
	assert_int_equal(hold->n_runs, 2);
	assert_int_equal(hold->runs[0].addr, 0x51000);
	assert_int_equal(hold->runs[0].size, 2 * 4096);
	assert_int_equal(hold->runs[1].size, 4096);
	assert_int_equal(hold->size, 3 * 4096);
	assert_string_equal((char *)hold->mm, "the mm");
}

/* -- errno and trace ----------------------------------------------------------------- */

static void an_errno_of_the_wire_is_one_of_the_host_or_eproto(void **state)
{
	static const uint64_t nonsense[] = { 0, 35, 37, 512, 4096, UINT32_MAX, 1ULL << 32 | 5,
					     UINT64_MAX };

	for (int i = 1; i <= 34; i++)
		assert_int_equal(hm_errno_decode(i), -i);
	assert_int_equal(hm_errno_decode(36), -ENAMETOOLONG);
	assert_int_equal(hm_errno_decode(40), -ELOOP);
	assert_int_equal(hm_errno_decode(71), -EPROTO);
	assert_int_equal(hm_errno_decode(75), -EOVERFLOW);
	assert_int_equal(hm_errno_decode(95), -EOPNOTSUPP);
	assert_int_equal(hm_errno_decode(110), -ETIMEDOUT);
	assert_int_equal(hm_errno_decode(116), -ESTALE);
	for (size_t i = 0; i < G_N_ELEMENTS(nonsense); i++)
		assert_int_equal(hm_errno_decode(nonsense[i]), -EPROTO);
}

static void a_trace_line_says_it_all(void **state)
{
	struct hm_header header = {
		.op = HYPER_OP_READ, .pid = 42, .addr = 0x7ffe, .size = 4096, .tag = 5,
	};
	g_autofree char *request = hm_header_to_string(&header, true);
	g_autofree char *reply = NULL, *unknown = NULL;

	assert_string_equal(request, "> READ tag 5 pid 42 addr 0x7ffe size 4096");
	header.op = HYPER_RESP_READ_PARTIAL;
	header.stamp = 0xbeef;
	reply = hm_header_to_string(&header, false);
	assert_string_equal(reply,
			    "< READ_PARTIAL tag 5 pid 42 stamp 0xbeef addr 0x7ffe size 4096");
	header.op = 0xdead;
	unknown = hm_header_to_string(&header, false);
	assert_true(g_str_has_prefix(unknown, "< op 0xdead tag 5"));
}

static void a_number_is_in_the_guests_byte_order(void **state)
{
	static const uint8_t bytes[8] = { 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88 };
	static const struct {
		size_t size;
		bool big_endian;
		uint64_t number;
	} rows[] = {
		{ 4, false, 0x84838281 },
		{ 4, true, 0x81828384 },
		{ 8, false, 0x8887868584838281 },
		{ 8, true, 0x8182838485868788 },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		uint8_t back[8] = { 0 };

		assert_true(hm_number_decode(bytes, rows[i].size, rows[i].big_endian) ==
			    rows[i].number);
		hm_number_encode(rows[i].number, rows[i].size, rows[i].big_endian, back);
		assert_memory_equal(back, bytes, rows[i].size);
	}
}

static void every_operation_has_a_name(void **state)
{
	static const uint32_t ops[] = {
		HYPER_OP_HELLO, HYPER_OP_READ, HYPER_OP_WRITE, HYPER_OP_READ_STR,
		HYPER_OP_READ_PROCARGS, HYPER_OP_READ_PROCENV, HYPER_OP_READ_FD_NAME,
		HYPER_OP_LIST_PROCS, HYPER_OP_READ_PROC, HYPER_OP_LIST_FDS, HYPER_OP_LIST_MAPS,
		HYPER_OP_READ_LINK, HYPER_OP_READ_PROC_FILE, HYPER_OP_WINDOW, HYPER_OP_TRANSLATE,
		HYPER_OP_HOOK_SET, HYPER_OP_HOOK_REMOVE, HYPER_OP_HOOK_WAIT, HYPER_OP_HOOK_REPLY,
		HYPER_OP_HOOK_COUNTS, HYPER_OP_READ_PTR, HYPER_OP_WRITE_PTR, HYPER_OP_HOOK_POST,
	};

	assert_int_equal(G_N_ELEMENTS(ops), HYPER_OP_MAX - 1);
	for (size_t i = 0; i < G_N_ELEMENTS(ops); i++)
		assert_non_null(hm_op_name(ops[i]));
	assert_null(hm_op_name(HYPER_OP_NONE));
	assert_null(hm_op_name(HYPER_OP_READ | HYPER_DATA));
	assert_null(hm_op_name(0xff));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_is_little_endian),
		cmocka_unit_test(only_operations_with_data_have_data),
		cmocka_unit_test(a_header_that_is_no_response_or_too_large_is_refused),
		cmocka_unit_test(a_reply_must_fit_its_request),
		cmocka_unit_test(hello_tells_of_the_guest),
		cmocka_unit_test(a_guest_that_does_too_little_at_a_time_has_no_hooks),
		cmocka_unit_test(a_hello_that_cannot_be_is_refused),
		cmocka_unit_test(a_hello_of_another_version_may_be_as_short_as_what_all_have),
		cmocka_unit_test(a_later_hello_may_be_longer),
		cmocka_unit_test(a_guest_that_takes_more_than_we_do_is_talked_down),
		cmocka_unit_test(a_string_of_the_guest_stays_within_its_line),
		cmocka_unit_test(a_process_that_cannot_be_is_refused),
		cmocka_unit_test(a_name_of_a_process_ends_at_its_nul_or_after_16_bytes),
		cmocka_unit_test(a_descriptor_that_cannot_be_is_refused),
		cmocka_unit_test(a_mapping_that_cannot_be_is_refused),
		cmocka_unit_test(ram_that_cannot_be_is_refused),
		cmocka_unit_test(a_translation_that_cannot_be_is_refused),
		cmocka_unit_test(a_translation_is_decoded),
		cmocka_unit_test(an_errno_of_the_wire_is_one_of_the_host_or_eproto),
		cmocka_unit_test(a_trace_line_says_it_all),
		cmocka_unit_test(a_number_is_in_the_guests_byte_order),
		cmocka_unit_test(every_operation_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
