/* SPDX-License-Identifier: MIT */
/*
 * guest: a scripted guest in a thread, at the other end of a Unix socket.
 *
 * Left alone it answers HELLO, READ and WRITE as it should.  A test gives it an
 * `answer` function that has the first say about each request.  It knows no
 * processes and checks nothing: tests/fake_guest.c plays a whole guest.
 */
#ifndef TESTS_UNIT_GUEST_H
#define TESTS_UNIT_GUEST_H

#include <glib.h>

#include "bridge/client.h"

#define GUEST_EPOCH 0x1234567890abcdefULL
#define GUEST_PID 42
#define GUEST_STAMP 0xbeef

/* Busy machines have so much time for what should be done at once. */
#define PATIENCE (15 * G_TIME_SPAN_SECOND)

/* Until *n, an atomic, is as large as that; or the test fails. */
void wait_for(const gint *n, gint least);

struct guest;

/* In the guest's thread; true: the request has been dealt with. */
typedef bool (*guest_answer)(struct guest *guest, const struct hm_header *request,
			     const uint8_t *data);

struct guest {
	char *dir;
	char *address;
	int listener;
	GThread *thread;
	gint fd;		/* atomic: the connection */
	guest_answer answer;	/* atomic */

	/* What HELLO says. */
	uint64_t epoch;
	uint64_t allowed;
	uint32_t version, max_data, max_inflight;

	/* For scripts. */
	gint hellos;		/* atomic: said on any connection */
	gint requests;		/* atomic: others */
	gint n;			/* atomic: the script's own counter */
	struct hm_header held[64];
	GByteArray *written;
};

struct guest *guest_new(void);
void guest_free(struct guest *guest);

void guest_script(struct guest *guest, guest_answer answer);

/* A client of it, at work; NULL: it cannot be had, however long it is tried. */
struct hm_client *guest_connect(struct guest *guest, int timeout_ms, bool (*interrupted)(void));

/* What the guest's memory holds at an address. */
uint8_t guest_byte(uint64_t addr);

/* For scripts. */
void guest_reply(struct guest *guest, const struct hm_header *request, uint32_t resp,
		 uint64_t addr, const void *data, uint32_t size);
void guest_reply_well(struct guest *guest, const struct hm_header *request, const uint8_t *data);
void guest_send(struct guest *guest, const void *buf, size_t size);
/* From any thread. */
void guest_hang_up(struct guest *guest);
void guest_hello_fill(const struct guest *guest, struct hypermem_hello_reply *ret);

#endif
