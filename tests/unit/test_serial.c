// SPDX-License-Identifier: MIT
/* Frames on a serial line: what comes out is what went in, whatever came in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "bridge/serial.h"

/* A WRITE of `size` bytes of all values. */
static GByteArray *frame_new(uint32_t size, uint8_t first)
{
	struct hm_header header = { .op = HYPER_OP_WRITE, .pid = 0x7e7d, .addr = 0x11137f00,
				    .size = size, .tag = 0x7d03 };
	GByteArray *frame = g_byte_array_new();
	uint8_t buf[HYPERMEM_HEADER_SIZE];

	hm_header_encode(&header, buf);
	g_byte_array_append(frame, buf, sizeof(buf));
	for (uint32_t i = 0; i < size; i++, first++)
		g_byte_array_append(frame, &first, 1);
	return frame;
}

static void line_append(GByteArray *line, const GByteArray *frame)
{
	const struct iovec iov[] = {
		{ frame->data, HYPERMEM_HEADER_SIZE },
		{ frame->data + HYPERMEM_HEADER_SIZE, frame->len - HYPERMEM_HEADER_SIZE },
	};

	hm_serial_encode(iov, 2, line);
}

/* All the frames on a line that comes in pieces of `piece` bytes, one behind the other. */
static GByteArray *line_decode(const GByteArray *line, size_t piece, unsigned int *ret_n)
{
	g_autofree struct hm_serial *serial = g_new(struct hm_serial, 1);
	GByteArray *frames = g_byte_array_new();
	size_t done = 0, size;

	*ret_n = 0;
	hm_serial_init(serial);
	while (done < line->len) {
		size_t n = MIN(piece, line->len - done);

		n = hm_serial_decode(serial, line->data + done, n, &size);
		assert_true(n > 0);
		done += n;
		g_byte_array_append(frames, serial->bytes, (guint)size);
		*ret_n += size > 0;
	}
	return frames;
}

static void check_frames(const GByteArray *line, const GByteArray *expected, unsigned int n)
{
	static const size_t pieces[] = { 1, 7, 4096, SIZE_MAX };

	for (size_t i = 0; i < G_N_ELEMENTS(pieces); i++) {
		unsigned int got_n;
		g_autoptr(GByteArray) got = line_decode(line, pieces[i], &got_n);

		assert_int_equal(got_n, n);
		assert_int_equal(got->len, expected->len);
		assert_memory_equal(got->data, expected->data, expected->len);
	}
}

static void frames_come_out_as_they_went_in(void **state)
{
	g_autoptr(GByteArray) line = g_byte_array_new();
	g_autoptr(GByteArray) all = g_byte_array_new();
	static const uint32_t sizes[] = { 0, 1, 256, HYPERMEM_CHUNK_SIZE };

	for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
		g_autoptr(GByteArray) frame = frame_new(sizes[i], (uint8_t)i);

		line_append(line, frame);
		g_byte_array_append(all, frame->data, frame->len);
	}
	check_frames(line, all, G_N_ELEMENTS(sizes));
}

static void nothing_special_goes_over_the_line(void **state)
{
	g_autoptr(GByteArray) line = g_byte_array_new();
	g_autoptr(GByteArray) frame = frame_new(1000, 0);

	line_append(line, frame);
	for (guint i = 1; i + 1 < line->len; i++)
		assert_true(line->data[i] == HYPER_SERIAL_ESCAPE ||
			    !HYPER_SERIAL_IS_SPECIAL(line->data[i]));
}

static void noise_between_frames_is_dropped(void **state)
{
	static const char *const noises[] = {
		"[    0.000000] Linux version 6.1\r\n", "~", "~~~", "}", "~}", "}~}~",
		"~half a frame", "\x7e\x7d", "",
	};
	g_autoptr(GByteArray) line = g_byte_array_new();
	g_autoptr(GByteArray) all = g_byte_array_new();
	g_autoptr(GByteArray) frame = frame_new(100, 9);

	for (size_t i = 0; i < G_N_ELEMENTS(noises); i++) {
		g_byte_array_append(line, (const guint8 *)noises[i], (guint)strlen(noises[i]));
		line_append(line, frame);
		g_byte_array_append(all, frame->data, frame->len);
	}
	check_frames(line, all, G_N_ELEMENTS(noises));
}

static void a_frame_too_long_is_dropped(void **state)
{
	g_autoptr(GByteArray) line = g_byte_array_new();
	g_autoptr(GByteArray) good = frame_new(5, 1);
	g_autoptr(GByteArray) bad = frame_new(HYPERMEM_CHUNK_SIZE + 1, 1);

	line_append(line, bad);
	line_append(line, good);
	check_frames(line, good, 1);
}

static void a_frame_whose_size_is_not_its_own_is_dropped(void **state)
{
	g_autoptr(GByteArray) line = g_byte_array_new();
	g_autoptr(GByteArray) good = frame_new(5, 1);
	g_autoptr(GByteArray) bad = frame_new(100, 1);

	g_byte_array_set_size(bad, bad->len - 1);
	line_append(line, bad);
	line_append(line, good);
	check_frames(line, good, 1);
}

/* Lose, change or double any one byte of the first of two frames: only that one suffers. */
static void one_wrong_byte_costs_one_frame(void **state)
{
	g_autoptr(GByteArray) first = frame_new(60, 0x70), second = frame_new(60, 0x10);
	g_autoptr(GByteArray) good = g_byte_array_new();
	guint first_end;

	line_append(good, first);
	first_end = good->len;
	line_append(good, second);
	for (guint i = 1; i + 1 < first_end; i++) {
		for (int how = 0; how < 3; how++) {
			g_autoptr(GByteArray) line = g_byte_array_new();
			g_autoptr(GByteArray) got = NULL;
			unsigned int n;

			g_byte_array_append(line, good->data, good->len);
			if (how == 0)
				g_byte_array_remove_index(line, i);
			else if (how == 1)
				line->data[i] ^= 1;
			else
				line->data[i] = HYPER_SERIAL_FLAG;
			got = line_decode(line, SIZE_MAX, &n);
			assert_int_equal(n, 1);
			assert_memory_equal(got->data, second->data, second->len);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_come_out_as_they_went_in),
		cmocka_unit_test(nothing_special_goes_over_the_line),
		cmocka_unit_test(noise_between_frames_is_dropped),
		cmocka_unit_test(a_frame_too_long_is_dropped),
		cmocka_unit_test(a_frame_whose_size_is_not_its_own_is_dropped),
		cmocka_unit_test(one_wrong_byte_costs_one_frame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
