// SPDX-License-Identifier: MIT
/*
 * complaints: what the user is told about the guest.  See complaints.h.
 */
#include "bridge/complaints.h"

#include "bridge/trace.h"

#define INTERVAL G_TIME_SPAN_SECOND

void hm_complaints_init(struct hm_complaints *complaints)
{
	*complaints = (struct hm_complaints){ .last = G_MININT64 };
	g_mutex_init(&complaints->lock);
}

void hm_complaints_deinit(struct hm_complaints *complaints)
{
	g_mutex_clear(&complaints->lock);
}

/* Is it time for one again?  *ret_unseen: how many there were meanwhile. */
static bool complaints_due(struct hm_complaints *complaints, uint32_t *ret_unseen)
{
	int64_t now = g_get_monotonic_time();
	bool due;

	g_mutex_lock(&complaints->lock);
	due = complaints->last <= now - INTERVAL;
	if (due) {
		*ret_unseen = complaints->unseen;
		complaints->last = now;
		complaints->unseen = 0;
	} else {
		complaints->unseen++;
	}
	g_mutex_unlock(&complaints->lock);
	return due;
}

void hm_complain(struct hm_complaints *complaints, const struct hm_header *header, bool to_guest,
		 const char *what)
{
	g_autofree char *line = NULL;
	uint32_t unseen;

	if (!complaints_due(complaints, &unseen))
		return;
	line = hm_header_to_string(header, to_guest);
	if (unseen)
		g_warning("the guest's answer %s: \"%s\" (and %u more like it)", what, line,
			  unseen);
	else
		g_warning("the guest's answer %s: \"%s\"", what, line);
}
