/* SPDX-License-Identifier: MIT */
/*
 * request: how client.c and lists.c ask the guest something.
 */
#ifndef HM_REQUEST_H
#define HM_REQUEST_H

#include "bridge/client.h"
#include "bridge/session.h"

struct hm_client {
	struct hm_session session;
	bool readonly;
};

/* Data of a frame, as agreed with the guest that there is or was. */
uint32_t hm_client_max_data(struct hm_client *client);

/* A request for up to `limit` bytes about a process, into `in`. */
void hm_call_prepare(struct hm_call *call, uint32_t op, struct hm_who who, uint64_t addr,
		     void *in, uint32_t limit);

/* Send it and wait for the answer: 0, or -errno. */
int hm_client_call(struct hm_client *client, struct hm_call *call);

/* The answer was one to the call, but its data cannot be used. */
int hm_client_nonsense(struct hm_client *client, const struct hm_call *call, const char *what);

#endif
