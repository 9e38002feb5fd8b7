/* SPDX-License-Identifier: MIT */
/*
 * complaints: what the user is told about a guest whose answers make no sense.  A guest
 * that sends nothing else must not fill the log.
 */
#ifndef HM_COMPLAINTS_H
#define HM_COMPLAINTS_H

#include <glib.h>

#include "bridge/wire.h"

struct hm_complaints {
	GMutex lock;		/* protects what follows */
	int64_t last;		/* when the user was told: g_get_monotonic_time() */
	uint32_t unseen;	/* complaints since then that nobody has seen */
};

void hm_complaints_init(struct hm_complaints *complaints);
void hm_complaints_deinit(struct hm_complaints *complaints);

/*
 * Tell the user, but not too often, what is wrong with what the guest has sent: the
 * header is the answer's, or the request's if only that is at hand.
 */
void hm_complain(struct hm_complaints *complaints, const struct hm_header *header, bool to_guest,
		 const char *what);

#endif
