// SPDX-License-Identifier: MIT
/*
 * trace: a frame as a line, for hypermemfs -d and for complaints.
 */
#include "bridge/trace.h"

#include <glib.h>

char *hm_header_to_string(const struct hm_header *header, bool to_guest)
{
	GString *line = g_string_new(to_guest ? ">" : "<");
	const char *name = hm_op_name(header->op);

	if (name)
		g_string_append_printf(line, " %s", name);
	else
		g_string_append_printf(line, " op %#x", header->op);
	g_string_append_printf(line, " tag %u pid %u", header->tag, header->pid);
	if (header->stamp)
		g_string_append_printf(line, " stamp %#x", header->stamp);
	g_string_append_printf(line, " addr %#" G_GINT64_MODIFIER "x size %u", header->addr,
			       header->size);
	return g_string_free(line, FALSE);
}
