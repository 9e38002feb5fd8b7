/* SPDX-License-Identifier: MIT */
/*
 * hooks: system calls of the guest that somebody wants to know of.
 *
 * A hook is there as long as its owner wants it, whatever becomes of the link: when there
 * is another session, or another boot, it is set there again.  One thread waits for what
 * the guest has to tell of all of them; the link's other users do not notice.  What waits
 * for its reader is bounded: when there is no room, or no reader, calls go on at once.
 *
 * Any thread may call.  What asks the guest has the errors of client.h.
 */
#ifndef HM_HOOKS_H
#define HM_HOOKS_H

#include "bridge/client.h"
#include "bridge/wire_hook.h"

#define HM_HOOK_TIMEOUT_MS 5000		/* of a new one */

struct hm_hooks;
struct hm_hook;

struct hm_hooks *hm_hooks_new(struct hm_client *client);
/* The client has been stopped (hm_client_stop()), and all hooks are free. */
void hm_hooks_free(struct hm_hooks *hooks);

/*
 * A hook that matches nothing yet, enabled.  -ENOSPC: there are HYPER_HOOKS_MAX.
 * -EOPNOTSUPP, -EPERM: the guest's module has none, or may not; -EROFS; -ENOTCONN.
 */
int hm_hook_new(struct hm_hooks *hooks, struct hm_hook **ret);
/*
 * It ends, in the guest too, and so do waits for its events.  Then it can be freed.
 * -EINTR: while it was being set; it is there still.  -ENODEV: it has been removed.
 */
int hm_hook_remove(struct hm_hook *hook);
void hm_hook_free(struct hm_hook *hook);

/*
 * -ENODEV: it has been removed.  -ENOENT: the guest has none of the calls; -EINVAL: it does
 * not take the filter, -E2BIG: it is too large.  After a failure all is as it was.
 */
int hm_hook_set_filter(struct hm_hook *hook, const struct hm_filter *filter);
int hm_hook_set_enabled(struct hm_hook *hook, bool enabled);
int hm_hook_set_timeout(struct hm_hook *hook, uint32_t timeout_ms);
bool hm_hook_enabled(struct hm_hook *hook);
uint32_t hm_hook_timeout(struct hm_hook *hook);

/*
 * From here on its events come and calls wait.  -EBUSY: somebody has it already.  -ENODEV:
 * removed.  `notify`, if not NULL, is told when hm_hook_is_ready() becomes true; it must not
 * wait, nor call back.
 */
int hm_hook_attend(struct hm_hook *hook, void (*notify)(void *arg), void *arg);
/* To here: calls that wait go on.  notify is not called any more. */
void hm_hook_leave(struct hm_hook *hook);

/* The next event, to g_free(); its `lost` counts what had no room here, too.  -EAGAIN: there
 * is none.  -ENODEV: removed, no more will come.  -ENOTCONN: the client has been stopped. */
int hm_hook_next(struct hm_hook *hook, struct hm_event **ret);
/* hm_hook_next() has something to say other than -EAGAIN. */
bool hm_hook_is_ready(struct hm_hook *hook);
/* Until it has.  -EINTR; -EBUSY: another thread waits for this already. */
int hm_hook_wait(struct hm_hook *hook);

/*
 * A call goes on.  -ESRCH: none of the hook's calls waits with that id (any more), as far as is
 * known, or, with `wait`, as the guest has said.  -EINVAL: that cannot be done to such a call;
 * -ERANGE: its caller has 32 bits, and a value has more.
 */
int hm_hook_reply(struct hm_hook *hook, uint64_t id, const struct hm_verdict *verdict, bool wait);

/*
 * What has happened with its calls since it was made, where the host has let them go on, too.
 * While there is no link, what was known last.
 */
int hm_hook_stats(struct hm_hook *hook, struct hm_hook_counts *ret);

#endif
