/* SPDX-License-Identifier: MIT */
/* fuzz_wire: the fuzz target, for libFuzzer or fuzz_main.c to call. */
#ifndef FUZZ_WIRE_H
#define FUZZ_WIRE_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* fuzz_words.c: a part of it. */
void fuzz_words(const uint8_t *data, size_t size);
/* Removes the socket. */
void fuzz_wire_deinit(void);

#endif
