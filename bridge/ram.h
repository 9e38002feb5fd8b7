/* SPDX-License-Identifier: MIT */
/*
 * ram: guest RAM seen from the host, in the memory of the QEMU process that has it.
 *
 * The only file that looks into another process.  Which memory of QEMU's is which
 * guest-physical range is found out by proofs: pages that hold what only the guest can
 * have written there.  Nothing outside a range that has been proven is ever read for
 * its content.
 */
#ifndef HM_RAM_H
#define HM_RAM_H

#include <glib.h>

#include "bridge/wire.h"

struct hm_window;

/*
 * Look for the ranges in the memory of process pid, whose pages `proof` show `challenge`
 * now.  *ret has those that were found, at least one.
 * -EPERM: this process may not look there (run as QEMU's user, or as root).
 * -ESRCH: no such process.  -ENOENT: nothing was found, soon enough.
 */
int hm_window_find(pid_t pid, const struct hm_ram *rams, size_t n, uint64_t challenge,
		   struct hm_window **ret);
/*
 * Forget the ranges whose proofs do not show `challenge`: another one than at first, so
 * that a copy of the page is told from the page.  -ENOENT: none is left.
 */
int hm_window_confirm(struct hm_window *window, uint64_t challenge);

struct hm_window *hm_window_ref(struct hm_window *window);
void hm_window_unref(struct hm_window *window);

pid_t hm_window_pid(const struct hm_window *window);
/* Bytes of RAM within reach. */
uint64_t hm_window_size(const struct hm_window *window);

/*
 * Copy memory from `offset` on in what the hold translates; at most `size` bytes and to
 * its end.  Returns bytes: they are what the process had there, at the time of the call.
 * -EAGAIN: the translation is not good any more.
 * -ENXIO: the memory at `offset` is not within reach; *ret_skip bytes of it are not.
 * -ESRCH, -EPERM, -EFAULT: QEMU has gone, or its memory.
 */
ssize_t hm_window_read(const struct hm_window *window, const struct hm_hold *hold,
		       uint64_t offset, void *buf, size_t size, size_t *ret_skip);

#endif
