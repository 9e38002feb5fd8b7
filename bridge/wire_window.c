// SPDX-License-Identifier: MIT
/*
 * wire_window: where the guest's RAM is, and memory in it.  See wire.h, and wire.c for the rules.
 */
#include "bridge/wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

int hm_ram_decode(const uint8_t *data, size_t size, struct hm_ram *ret)
{
	struct hypermem_ram raw;
	struct hm_ram ram;

	if (size != sizeof(raw))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	ram = (struct hm_ram){
		.start = le64toh(raw.start),
		.end = le64toh(raw.end),
		.proof = le64toh(raw.proof),
	};
	if (ram.start > ram.proof || ram.proof >= ram.end ||
	    (ram.start | ram.end | ram.proof) & HYPER_RUN_PAGES_MASK)
		return -EPROTO;
	*ret = ram;
	return 0;
}

static int run_decode(uint64_t raw, uint32_t page_size, struct hm_run *ret)
{
	uint64_t addr = raw & ~(uint64_t)HYPER_RUN_PAGES_MASK;
	uint64_t size = ((raw & HYPER_RUN_PAGES_MASK) + 1) * page_size;

	if (addr % page_size || size - 1 > UINT64_MAX - addr)
		return -EPROTO;
	*ret = (struct hm_run){ .addr = addr, .size = size };
	return 0;
}

int hm_hold_decode(const uint8_t *data, size_t size, uint32_t page_size, struct hm_hold *ret)
{
	struct hypermem_hold raw;
	uint64_t run;

	if (size < sizeof(raw) + sizeof(run) || size > HM_HOLD_SIZE_MAX ||
	    (size - sizeof(raw)) % sizeof(run))
		return -EPROTO;
	memcpy(&raw, data, sizeof(raw));
	ret->generation = le64toh(raw.generation);
	ret->word = le64toh(raw.word);
	ret->mm_addr = le64toh(raw.mm_addr);
	ret->mm_size = le32toh(raw.mm_size);
	memcpy(ret->mm, raw.mm, sizeof(ret->mm));
	ret->n_runs = (uint32_t)((size - sizeof(raw)) / sizeof(run));
	ret->size = 0;
	for (uint32_t i = 0; i < ret->n_runs; i++) {
		memcpy(&run, data + sizeof(raw) + i * sizeof(run), sizeof(run));
		if (run_decode(le64toh(run), page_size, &ret->runs[i]))
			return -EPROTO;
		ret->size += ret->runs[i].size;
	}
	if (!ret->generation || ret->word % 8 || (ret->mm_size != 4 && ret->mm_size != 8) ||
	    ret->mm_addr % ret->mm_size || le32toh(raw.pages) > HYPERMEM_TRANSLATE_PAGES ||
	    ret->size != (uint64_t)le32toh(raw.pages) * page_size)
		return -EPROTO;
	return 0;
}

uint64_t hm_word_decode(const uint8_t data[8])
{
	uint64_t raw;

	memcpy(&raw, data, sizeof(raw));
	return le64toh(raw);
}

void hm_proof_encode(uint64_t challenge, uint64_t addr, uint8_t buf[sizeof(struct hypermem_proof)])
{
	struct hypermem_proof raw = {
		.challenge = htole64(challenge),
		.addr = htole64(addr),
	};

	memcpy(buf, &raw, sizeof(raw));
}
