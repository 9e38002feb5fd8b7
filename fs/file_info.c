// SPDX-License-Identifier: MIT
/*
 * file_info: /info, what is at the other end: a line for each, `key: value`.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "fs/file.h"

static char *info_text(struct hmfs *fs)
{
	g_autofree char *ram = NULL;
	bool window = hm_client_ram(fs->client, &ram) == 0;
	struct hm_guest guest = {};
	int rc = hm_client_guest(fs->client, &guest);
	bool writable = guest.allowed & (1ULL << HYPER_OP_INDEX(HYPER_OP_WRITE));

	return g_strdup_printf("hypermemfs: %s\n"
			       "protocol: %u\n"
			       "chardev: %s\n"
			       "link: %s\n"
			       "release: %s\n"
			       "machine: %s\n"
			       "bits: %" PRIu32 "\n"
			       "endian: %s\n"
			       "page_size: %" PRIu32 "\n"
			       "module: %s\n"
			       "epoch: %016" PRIx64 "\n"
			       "writable: %s\n"
			       "frame_data: %" PRIu32 "\n"
			       "ram: %s (%s)\n",
			       HYPERMEMFS_VERSION, HYPERMEM_VERSION, fs->address,
			       rc == 0 ? "up" : "down", guest.release, guest.machine,
			       guest.word_bits,
			       guest.flags & HYPER_HELLO_BIG_ENDIAN ? "big" : "little",
			       guest.page_size, guest.module, guest.epoch,
			       writable ? "yes" : "no", guest.max_data,
			       window ? "window" : "inline", ram);
}

static int info_make(struct hmfs_file *file, GByteArray *text)
{
	g_autofree char *lines = info_text(file->fs);

	g_byte_array_append(text, (const guint8 *)lines, (guint)strlen(lines));
	return 0;
}

ssize_t hmfs_info_read(struct hmfs_file *file, void *buf, size_t size, off_t offset)
{
	return hmfs_text_read_made(file, buf, size, offset, info_make);
}
