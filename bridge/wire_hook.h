/* SPDX-License-Identifier: MIT */
/*
 * wire_hook: hooks, events and verdicts as they go over the wire.  See wire.h.
 */
#ifndef HM_WIRE_HOOK_H
#define HM_WIRE_HOOK_H

#include "bridge/wire.h"

/* A step of a filter's program: see struct hypermem_test. */
struct hm_test {
	uint8_t test;		/* enum HYPER_TEST */
	uint8_t field;		/* enum HYPER_FIELD */
	uint8_t compare;	/* enum HYPER_COMPARE */
	uint8_t flags;		/* HYPER_TEST_SIGNED, _INT */
	uint64_t mask;
	uint64_t a, b;
};

/* Which calls, and a program that says which of them match. */
struct hm_filter {
	uint32_t flags;		/* HYPER_HOOK_ENTER, _RETURN, _TRACE, _REGS */
	uint16_t n_tests;
	uint16_t names_size;	/* each name with its NUL */
	uint16_t text_size;
	struct hm_test tests[HYPER_TESTS_MAX];
	char names[HYPER_HOOK_TEXT_MAX];
	char text[HYPER_HOOK_TEXT_MAX];
};

#define HM_HOOK_SIZE_MAX (sizeof(struct hypermem_hook) +                                           \
			  HYPER_TESTS_MAX * sizeof(struct hypermem_test) +                         \
			  2 * HYPER_HOOK_TEXT_MAX)

struct hm_reg {
	char name[9];		/* a lower-case letter, then such letters, digits and _ */
	uint64_t value;
};

struct hm_event {
	uint64_t id;		/* not 0 */
	uint32_t hook;		/* as the guest says: look it up */
	uint32_t flags;		/* HYPER_EVENT_* */
	uint32_t pid;
	uint32_t tid;
	uint32_t nr;
	uint16_t stamp;
	uint16_t n_regs;
	uint64_t time;		/* ns since the guest booted */
	uint64_t args[6];
	int64_t retval;
	uint64_t lost;
	char comm[17];		/* NUL-terminated, any bytes */
	char call[33];		/* NUL-terminated: letters, digits, _; not empty */
	struct hm_reg regs[];	/* n_regs */
};

/* How a call goes on. */
struct hm_verdict {
	uint32_t flags;		/* HYPER_VERDICT_* */
	uint64_t retval;
	uint64_t args[6];
};

struct hm_hook_counts {
	uint64_t matched;
	uint64_t sent;
	uint64_t replied;
	uint64_t continued;	/* of these, by a reply that changed nothing */
	uint64_t timed_out;
	uint64_t killed;
	uint64_t abandoned;
	uint64_t unattended;
	uint64_t dropped;
	uint64_t restarted;
	uint64_t missed;
};

/* state: HYPER_HOOK_ENABLED, _ATTENDED, besides the filter's own.  Returns the bytes. */
size_t hm_hook_encode(const struct hm_filter *filter, uint32_t state, uint32_t timeout_ms,
		      uint8_t buf[HM_HOOK_SIZE_MAX]);
void hm_verdict_encode(const struct hm_verdict *verdict,
		       uint8_t buf[sizeof(struct hypermem_verdict)]);

/*
 * The first event of those in `data`, for the caller to g_free(); *ret_size: its bytes.
 * -EPROTO if there is none that can be one.
 */
int hm_event_decode(const uint8_t *data, size_t size, struct hm_event **ret, size_t *ret_size);
int hm_hook_counts_decode(const uint8_t *data, size_t size, struct hm_hook_counts *ret);

#endif
