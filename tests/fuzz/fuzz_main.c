// SPDX-License-Identifier: MIT
/*
 * fuzz_main: the fuzz target without a fuzzer.
 *
 *	fuzz-smoke		inputs from a generator with a fixed seed, for some seconds
 *	fuzz-smoke FILE...	these inputs: what a fuzzer has found, again
 *
 * The inputs are always the same ones in the same order; how many of them the seconds
 * allow is not.
 */
#include <glib.h>
#include <stdio.h>

#include "tests/fuzz/fuzz_wire.h"

#define SEED 20240229
#define SECONDS 4
#define INPUTS_MIN 20
#define SIZE_MAX_LOG2 11

/* Bytes that mean something more often than others do. */
static uint8_t random_byte(GRand *rand)
{
	static const uint8_t often[] = { 0, 1, 0x0f, 0x0b, 0x07, 0x80, 0xf0, 0xff };

	return g_rand_boolean(rand) ? often[g_rand_int_range(rand, 0, sizeof(often))] :
				      (uint8_t)g_rand_int(rand);
}

static void run_generated(void)
{
	int64_t until = g_get_monotonic_time() + SECONDS * G_TIME_SPAN_SECOND;
	g_autoptr(GRand) rand = g_rand_new_with_seed(SEED);
	int n;

	for (n = 0; n < INPUTS_MIN || g_get_monotonic_time() < until; n++) {
		size_t size = (size_t)g_rand_int_range(
			rand, 0, 1 << g_rand_int_range(rand, 1, SIZE_MAX_LOG2 + 1));
		g_autofree uint8_t *data = g_malloc(size + 1);

		for (size_t i = 0; i < size; i++)
			data[i] = random_byte(rand);
		LLVMFuzzerTestOneInput(data, size);
	}
	printf("%d inputs\n", n);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		g_autofree char *data = NULL;
		gsize size;

		if (!g_file_get_contents(argv[i], &data, &size, NULL)) {
			fprintf(stderr, "%s: cannot be read\n", argv[i]);
			return 1;
		}
		LLVMFuzzerTestOneInput((const uint8_t *)data, size);
	}
	if (argc == 1)
		run_generated();
	fuzz_wire_deinit();
	return 0;
}
