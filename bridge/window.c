// SPDX-License-Identifier: MIT
/*
 * window: guest RAM as a way to read memory: whether there is one, and why not.
 *
 * It is looked for when it is wanted first, and again when the guest has booted anew or
 * another QEMU has it.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>

#include "bridge/ram.h"
#include "bridge/request.h"

#define RAMS_MAX 64

/* A guest that does not answer is not asked again so soon. */
#define AGAIN_TIME (10 * G_TIME_SPAN_SECOND)

/* Ask the guest for its ranges, and to prove them. */
static int window_ask(struct hm_client *client, uint64_t epoch, uint64_t *ret_challenge,
		      struct hm_ram rams[RAMS_MAX], size_t *ret_n)
{
	const uint32_t size = sizeof(struct hypermem_ram);
	uint8_t data[RAMS_MAX * sizeof(struct hypermem_ram)];
	struct hm_who who = { .epoch = epoch };
	struct hm_call call;
	uint64_t challenge;
	int rc;

	if (getrandom(&challenge, sizeof(challenge), 0) < 0)
		return -errno;
	hm_call_prepare(&call, HYPER_OP_WINDOW, who, challenge, data, sizeof(data));
	rc = hm_client_call(client, &call);
	if (rc)
		return rc;
	if (call.fault || call.n % size)
		return hm_client_nonsense(client, &call, "is no list of RAM");
	for (uint32_t i = 0; i < call.n / size; i++)
		if (hm_ram_decode(data + i * size, size, &rams[i]))
			return hm_client_nonsense(client, &call, "has RAM that cannot be");
	*ret_challenge = challenge;
	*ret_n = call.n / size;
	return 0;
}

static int window_open(struct hm_client *client, uint64_t epoch, pid_t peer,
		       struct hm_window **ret)
{
	struct hm_ram rams[RAMS_MAX];
	struct hm_window *window;
	uint64_t challenge;
	size_t n;
	int rc;

	rc = window_ask(client, epoch, &challenge, rams, &n);
	if (rc == 0)
		rc = hm_window_find(peer, rams, n, challenge, &window);
	if (rc)
		return rc;
	rc = window_ask(client, epoch, &challenge, rams, &n);
	if (rc == 0)
		rc = hm_window_confirm(window, challenge);
	if (rc)
		hm_window_unref(window);
	else
		*ret = window;
	return rc;
}

/* Why not to look again soon: it is as it is, not a matter of the link. */
static bool is_settled(int rc)
{
	return rc == 0 || rc == -EPERM || rc == -ENOENT || rc == -ESRCH || rc == -EPROTO ||
	       rc == -EFAULT;
}

/* What is known of the window; -EAGAIN: nothing, or not any more. */
static int window_get(struct hm_client *client, uint64_t epoch, pid_t peer, struct hm_window **ret)
{
	int rc = -EAGAIN;

	g_mutex_lock(&client->window_lock);
	if (client->window_peer == peer && client->window_epoch == epoch &&
	    (is_settled(client->window_rc) || g_get_monotonic_time() < client->window_again))
		rc = client->window_rc;
	if (rc == 0)
		*ret = hm_window_ref(client->window);
	g_mutex_unlock(&client->window_lock);
	return rc;
}

static void window_set(struct hm_client *client, uint64_t epoch, pid_t peer,
		       struct hm_window *window, int rc)
{
	g_mutex_lock(&client->window_lock);
	hm_window_unref(client->window);
	client->window = window;
	client->window_rc = rc;
	client->window_peer = peer;
	client->window_epoch = epoch;
	client->window_again = rc == -ETIMEDOUT ? g_get_monotonic_time() + AGAIN_TIME : 0;
	g_mutex_unlock(&client->window_lock);
}

/* One looks for it; who waits for that can be interrupted. */
static int window_look(struct hm_client *client, uint64_t epoch, pid_t peer,
		       struct hm_window **ret)
{
	struct hm_session *session = &client->session;
	int64_t deadline = g_get_monotonic_time() +
			   session->timeout_ms * G_TIME_SPAN_MILLISECOND;
	struct hm_window *window = NULL;
	int rc;

	rc = hm_sem_wait(&client->window_search, deadline, session->calls.interrupted);
	if (rc)
		return rc;
	rc = window_get(client, epoch, peer, ret);
	if (rc == -EAGAIN) {
		rc = window_open(client, epoch, peer, &window);
		if (rc == 0)
			*ret = hm_window_ref(window);
		window_set(client, epoch, peer, window, rc);
	}
	sem_post(&client->window_search);
	return rc;
}

static int window_possible(struct hm_client *client, const struct hm_guest *guest, pid_t peer)
{
	if (client->ram == HM_RAM_OFF)
		return -ECANCELED;
	if (~guest->allowed & (1ULL << HYPER_OP_WINDOW | 1ULL << HYPER_OP_TRANSLATE))
		return -EOPNOTSUPP;
	return peer ? 0 : -ENODEV;
}

int hm_client_window(struct hm_client *client, struct hm_window **ret)
{
	pid_t peer = g_atomic_int_get(&client->session.peer);
	struct hm_guest guest;
	int rc;

	rc = hm_client_guest(client, &guest);
	if (rc == 0)
		rc = window_possible(client, &guest, peer);
	if (rc)
		return rc;
	rc = window_get(client, guest.epoch, peer, ret);
	return rc == -EAGAIN ? window_look(client, guest.epoch, peer, ret) : rc;
}

void hm_client_window_lost(struct hm_client *client, struct hm_window *window, int rc)
{
	g_mutex_lock(&client->window_lock);
	if (client->window == window) {
		hm_window_unref(client->window);
		client->window = NULL;
		client->window_rc = rc;
	}
	g_mutex_unlock(&client->window_lock);
}

void hm_client_window_init(struct hm_client *client)
{
	sem_init(&client->window_search, 0, 1);
	g_mutex_init(&client->window_lock);
}

void hm_client_window_deinit(struct hm_client *client)
{
	hm_window_unref(client->window);
	sem_destroy(&client->window_search);
	g_mutex_clear(&client->window_lock);
}

int hm_client_ram(struct hm_client *client, char **ret)
{
	pid_t peer = g_atomic_int_get(&client->session.peer);
	struct hm_window *window;
	int rc = hm_client_window(client, &window);

	switch (rc) {
	case 0:
		*ret = g_strdup_printf("%" PRIu64 " MiB in the memory of process %d",
				       hm_window_size(window) >> 20, (int)hm_window_pid(window));
		hm_window_unref(window);
		return 0;
	case -ECANCELED:
		*ret = g_strdup("ram=off");
		break;
	case -EOPNOTSUPP:
		*ret = g_strdup("the guest's module cannot: its kernel has no MMU notifiers, the module is older, or is told not to");
		break;
	case -ENODEV:
		*ret = g_strdup("the chardev is no Unix socket, so QEMU's process is not known");
		break;
	case -EPERM:
		*ret = g_strdup_printf("not permitted to read the memory of process %d; run hypermemfs as its user, or as root",
				       (int)peer);
		break;
	case -ENOENT:
	case -ESRCH:
		*ret = g_strdup_printf("process %d, which listens at the chardev, does not have the guest's RAM",
				       (int)peer);
		break;
	default:
		*ret = g_strdup(g_strerror(-rc));
	}
	return rc;
}
