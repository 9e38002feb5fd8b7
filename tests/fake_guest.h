/* SPDX-License-Identifier: MIT */
/*
 * fake_guest: plays the guest's module without a guest.
 *
 * It answers the protocol of guest/uapi/hypermem.h from the host's own /proc,
 * so whatever a test reads through it can be compared with /proc itself.  It
 * can also be told to misbehave: see the table in fake_guest_misbehave.c.
 *
 * fake_guest_main.c makes a program of it; unit tests link it and give it one
 * end of a socketpair.
 */
#ifndef FAKE_GUEST_H
#define FAKE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

struct fake_guest;

struct fake_guest_config {
	uint32_t max_data;	/* greatest data of a frame, bytes; 0: HYPERMEM_DATA_MAX */
	bool readonly;		/* refuse WRITE, whoever asks */
	/*
	 * File with the misbehaviour, or NULL.  It is read again for each
	 * request, and may be missing or empty: well-behaved.
	 */
	const char *control;
};

struct fake_guest *fake_guest_new(const struct fake_guest_config *config);
/* No fake_guest_serve() may be in progress. */
void fake_guest_free(struct fake_guest *guest);

/*
 * NAME[=NUMBER] of the table, from now on; NULL or "": behave well again.
 * -EINVAL: no such misbehaviour.
 */
int fake_guest_misbehave(struct fake_guest *guest, const char *text);

/*
 * Answer what comes in on fd until the other side hangs up; fd is closed when
 * the last answer is out.  One connection at a time, as QEMU's chardev.
 */
void fake_guest_serve(struct fake_guest *guest, int fd);

#endif
