// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio_data: the queues of our port, data in and out.  See link_virtio.h.
 *
 * The host's connect and disconnect come as control events, on another queue than
 * the data: what is in the data queue when the event is seen may be of the old
 * host or the new one.  So it is dropped, and the new host is asked for a HELLO.
 *
 * QEMU (discard_throttle_data() in hw/char/virtio-serial-bus.c) never gives back the
 * buffer that it was sending when the host left without reading: each such host
 * costs a buffer of the queue.  Only a reset of the device gets them back, so after a
 * few the driver is bound anew; as it is when our port comes or goes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/slab.h>

#include "compat.h"
#include "link_virtio.h"
#include "ops.h"

#define RX_BUFFERS	16		/* pages that wait for data */
#define TX_LOST_MAX	16		/* of the queue's 128, before the device is reset */

void hypermem_virtio_offer(struct virtqueue *vq, void *buf, size_t size)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, size);
	if (virtqueue_add_inbuf(vq, &sg, 1, buf, GFP_KERNEL) < 0)
		kfree(buf);
}

int hypermem_virtio_fill(struct virtqueue *vq, unsigned int n, size_t size)
{
	void *buf;

	n = min(n, virtqueue_get_vring_size(vq));
	while (n--) {
		buf = kmalloc(size, GFP_KERNEL);
		if (!buf)
			return -ENOMEM;
		hypermem_virtio_offer(vq, buf, size);
	}
	virtqueue_kick(vq);
	return 0;
}

/* Frames come back in the order in which they were sent: one that has not is lost. */
void hypermem_virtio_tx_reap(struct hypermem_virtio *hv)
{
	struct hypermem_frame *frame;
	unsigned int len;

	while (hv->tx && (frame = virtqueue_get_buf(hv->tx, &len))) {
		hv->tx_lost += frame->number - hv->tx_expected;
		hv->tx_expected = frame->number + 1;
		hypermem_frame_free(frame);
	}
}

static bool hypermem_virtio_is_worn(struct hypermem_virtio *hv)
{
	bool worn;

	hypermem_lock_take(&hv->link.send_lock);
	hypermem_virtio_tx_reap(hv);
	worn = hv->tx_lost >= TX_LOST_MAX;
	hypermem_lock_release(&hv->link.send_lock);
	return worn;
}

/* Another host, or none: what has come so far is nobody's. */
static void hypermem_virtio_host_changed(struct hypermem_virtio *hv)
{
	unsigned int len;
	void *buf;

	hv->host_changed = false;
	while ((buf = virtqueue_get_buf(hv->rx, &len)))
		hypermem_virtio_offer(hv->rx, buf, PAGE_SIZE);
	virtqueue_kick(hv->rx);
	hypermem_link_reset(&hv->link);
	if (hypermem_virtio_is_worn(hv)) {
		pr_info("%s: resetting the device: hosts have left without reading\n",
			hv->link.name);
		hypermem_virtio_renew(hv);
	} else if (hv->host_connected) {
		hypermem_link_invite(&hv->link);
	} else {
		hypermem_frame_trim();
	}
}

/*
 * The device sees buffers that are offered without a kick, when it has data for them.
 * Only if it had none left it waits for a kick: one for every few will do.
 */
static void hypermem_virtio_give_back(struct hypermem_virtio *hv, void *buf)
{
	hypermem_virtio_offer(hv->rx, buf, PAGE_SIZE);
	if (++hv->rx_unkicked < hv->rx_buffers / 2)
		return;
	hv->rx_unkicked = 0;
	virtqueue_kick(hv->rx);
}

/* The next buffer of data; buf NULL: there is none. */
static struct hypermem_virtio_data hypermem_virtio_take(struct hypermem_virtio *hv)
{
	struct hypermem_virtio_data data = hv->ahead;
	unsigned int len;

	hv->ahead.buf = NULL;
	if (data.buf)
		return data;
	data.buf = virtqueue_get_buf(hv->rx, &len);
	data.start = 0;
	data.end = data.buf ? min_t(size_t, len, PAGE_SIZE) : 0;
	return data;
}

/* One buffer of data.  An event that is seen after it was taken may have come before it. */
static bool hypermem_virtio_receive(struct hypermem_virtio *hv)
{
	struct hypermem_virtio_data data = hypermem_virtio_take(hv);

	hypermem_virtio_drain_control(hv);
	if (data.buf && !hv->host_changed)
		hypermem_link_receive(&hv->link, data.buf + data.start, data.end - data.start);
	if (data.buf)
		hypermem_virtio_give_back(hv, data.buf);
	if (hv->host_changed)
		hypermem_virtio_host_changed(hv);
	return data.buf;
}

/* Take all that has come; from the end on, an interrupt says that there is more. */
static void hypermem_virtio_receive_all(struct hypermem_virtio *hv)
{
	while (!READ_ONCE(hv->stopping)) {
		virtqueue_disable_cb(hv->rx);
		virtqueue_disable_cb(control_in(hv));
		while (!READ_ONCE(hv->stopping) && hypermem_virtio_receive(hv))
			cond_resched();
		if (READ_ONCE(hv->stopping) ||
		    (virtqueue_enable_cb(control_in(hv)) && virtqueue_enable_cb(hv->rx)))
			break;
	}
}

/*
 * A worker that does the request that it has received saves a way through the workqueue.
 * It may sleep for long then, and its work item cannot run a second time meanwhile: so
 * that is done only while the other receiver is free to be called.
 */
static void hypermem_virtio_work(struct work_struct *work)
{
	struct hypermem_virtio_receiver *receiver =
		container_of(work, struct hypermem_virtio_receiver, work);
	struct hypermem_virtio *hv = receiver->hv;
	struct hypermem_virtio_receiver *other = &hv->receivers[receiver == hv->receivers];
	struct hypermem_request *request;

	hypermem_lock_take(&hv->receive_lock);
	WRITE_ONCE(hv->receiver, other->works ? &receiver->work : &other->work);
	hypermem_virtio_receive_all(hv);
	request = hv->link.last;
	hv->link.last = NULL;
	receiver->works = request && !other->works;
	hypermem_lock_release(&hv->receive_lock);

	if (receiver->works) {
		hypermem_request_do(request);
		hypermem_lock_take(&hv->receive_lock);
		receiver->works = false;
		hypermem_lock_release(&hv->receive_lock);
	} else if (request) {
		hypermem_request_queue(request);
	}
}

void hypermem_virtio_init_receivers(struct hypermem_virtio *hv)
{
	unsigned int i;

	hypermem_lock_init(&hv->receive_lock);
	for (i = 0; i < ARRAY_SIZE(hv->receivers); i++) {
		hv->receivers[i].hv = hv;
		INIT_WORK(&hv->receivers[i].work, hypermem_virtio_work);
	}
	hv->receiver = &hv->receivers[0].work;
}

void hypermem_virtio_rx_event(struct virtqueue *vq)
{
	struct hypermem_virtio *hv = vq->vdev->priv;
	struct virtqueue *rx = smp_load_acquire(&hv->rx);

	if (READ_ONCE(hv->stopping))
		return;
	if (rx && (vq == rx || vq == control_in(hv)))
		queue_work(hv->wq, READ_ONCE(hv->receiver));
	else if (smp_load_acquire(&hv->waiting))
		hypermem_virtio_renew(hv);
}

void hypermem_virtio_tx_event(struct virtqueue *vq)
{
	struct hypermem_virtio *hv = vq->vdev->priv;

	if (vq != hv->tx)
		return;
	WRITE_ONCE(hv->tx_events, hv->tx_events + 1);
	wake_up(&hv->tx_wait);
}

/*
 * Until something has come.  The device need not interrupt meanwhile: QEMU would do
 * that with its lock held, for which the processor then waits.  No cpu_relax(), which makes an
 * emulated processor ask for that lock.
 */
static bool hypermem_virtio_look(struct hypermem_virtio *hv, bool (*goes_on)(void *arg), void *arg)
{
	unsigned int seen = virtqueue_enable_cb_prepare(hv->rx);
	bool come;

	virtqueue_disable_cb(hv->rx);
	do {
		come = virtqueue_poll(hv->rx, seen);
	} while (!come && goes_on(arg) && !READ_ONCE(hv->stopping));
	return come && !READ_ONCE(hv->stopping);
}

/* The next buffer of data, if it is quick to do; otherwise the rest of it is left. */
static bool hypermem_virtio_receive_quick(struct hypermem_virtio *hv)
{
	struct hypermem_virtio_data *data = &hv->ahead;
	size_t n = 1;

	*data = hypermem_virtio_take(hv);
	/* An event that is there now may have come before it. */
	if (!data->buf || !virtqueue_enable_cb(control_in(hv)))
		return false;
	for (; n && data->start < data->end; data->start += n)
		n = hypermem_link_receive_quick(&hv->link, data->buf + data->start,
						data->end - data->start);
	if (!n)
		return false;
	hypermem_virtio_give_back(hv, data->buf);
	data->buf = NULL;
	return true;
}

/*
 * With preemption off as long as the lock is held but for what must not be done so: nobody shall
 * wait for a task that does not run, and that may be one of the least priority.
 */
static void hypermem_virtio_poll(struct hypermem_link *link, bool (*goes_on)(void *arg), void *arg)
{
	struct hypermem_virtio *hv = container_of(link, struct hypermem_virtio, link);
	bool more;

	preempt_disable();
	if (!mutex_trylock(&hv->receive_lock.mutex)) {
		preempt_enable();
		return;
	}
	more = !hv->ahead.buf && !READ_ONCE(hv->stopping);
	while (more && hypermem_virtio_look(hv, goes_on, arg) && goes_on(arg)) {
		preempt_enable();
		more = hypermem_virtio_receive_quick(hv);
		preempt_disable();
	}
	if ((hv->ahead.buf || !virtqueue_enable_cb(hv->rx)) && !READ_ONCE(hv->stopping))
		queue_work(hv->wq, READ_ONCE(hv->receiver));
	hypermem_lock_release(&hv->receive_lock);
	preempt_enable();
}

/* The frame's pages; vmalloc memory is not contiguous. */
static unsigned int hypermem_virtio_map(struct hypermem_virtio *hv, struct hypermem_frame *frame)
{
	u8 *bytes = frame->bytes;
	size_t left = frame->size, n;
	unsigned int i = 0;

	if (!is_vmalloc_addr(bytes)) {
		sg_init_one(hv->sg, bytes, left);
		return 1;
	}
	sg_init_table(hv->sg, SG_MAX);
	for (; left; left -= n, bytes += n) {
		n = min_t(size_t, left, PAGE_SIZE - offset_in_page(bytes));
		sg_set_page(&hv->sg[i++], vmalloc_to_page(bytes), n, offset_in_page(bytes));
	}
	sg_mark_end(&hv->sg[i - 1]);
	return i;
}

/* false: there is no room now. */
static bool hypermem_virtio_put(struct hypermem_virtio *hv, struct hypermem_frame *frame,
				unsigned int n)
{
	hypermem_virtio_tx_reap(hv);
	frame->number = hv->tx_number;
	if (virtqueue_add_outbuf(hv->tx, hv->sg, n, frame, GFP_KERNEL))
		return false;
	hv->tx_number++;
	virtqueue_kick(hv->tx);
	return true;
}

static bool hypermem_virtio_try_send(struct hypermem_link *link, struct hypermem_frame *frame)
{
	struct hypermem_virtio *hv = container_of(link, struct hypermem_virtio, link);

	return !READ_ONCE(hv->stopping) &&
	       hypermem_virtio_put(hv, frame, hypermem_virtio_map(hv, frame));
}

/*
 * Buffers come back when there is another to send, not by interrupt; only a full
 * queue waits for one.  It moves on when the host reads, and when it disconnects,
 * since QEMU drops the port's data then.
 */
static void hypermem_virtio_send(struct hypermem_link *link, struct hypermem_frame *frame)
{
	struct hypermem_virtio *hv = container_of(link, struct hypermem_virtio, link);
	unsigned int seen, n = hypermem_virtio_map(hv, frame);

	while (!READ_ONCE(hv->stopping)) {
		seen = READ_ONCE(hv->tx_events);
		if (hypermem_virtio_put(hv, frame, n))
			return;
		if (virtqueue_is_broken(hv->tx))
			break;
		if (!virtqueue_enable_cb(hv->tx))
			continue;
		wait_event_idle(hv->tx_wait,
				READ_ONCE(hv->tx_events) != seen || READ_ONCE(hv->stopping));
		virtqueue_disable_cb(hv->tx);
	}
	hypermem_frame_free(frame);
}

const struct hypermem_link_ops hypermem_virtio_ops = {
	.send = hypermem_virtio_send,
	.try_send = hypermem_virtio_try_send,
	.poll = hypermem_virtio_poll,
};

int hypermem_virtio_serve(struct hypermem_virtio *hv)
{
	unsigned int queue = hv->port ? 2 * (hv->port + 1) : 0;
	struct virtqueue *rx = hv->vqs[queue];
	int rc;

	hv->tx = hv->vqs[queue + 1];
	virtqueue_disable_cb(hv->tx);
	hv->rx_buffers = min(virtqueue_get_vring_size(rx), (unsigned int)RX_BUFFERS);
	rc = hypermem_virtio_fill(rx, hv->rx_buffers, PAGE_SIZE);
	if (rc)
		return rc;
	rc = hypermem_virtio_open_port(hv);
	if (rc)
		return rc;
	dev_info(&hv->vdev->dev, "serving port %s\n", hv->name);
	/* From here on the queues are the worker's; it begins with what came before. */
	smp_store_release(&hv->rx, rx);
	queue_work(hv->wq, hv->receiver);
	return 0;
}
