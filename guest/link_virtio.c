// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio: the driver of a controller; data in and out.  See link_virtio.h.
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

#include <linux/device.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

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
static void hypermem_virtio_tx_reap(struct hypermem_virtio *hv)
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

/* One buffer of data.  An event that is seen after it was taken may have come before it. */
static bool hypermem_virtio_receive(struct hypermem_virtio *hv)
{
	unsigned int len;
	void *buf = virtqueue_get_buf(hv->rx, &len);

	hypermem_virtio_drain_control(hv);
	if (buf && !hv->host_changed)
		hypermem_link_receive(&hv->link, buf, min_t(size_t, len, PAGE_SIZE));
	if (buf)
		hypermem_virtio_give_back(hv, buf);
	if (hv->host_changed)
		hypermem_virtio_host_changed(hv);
	return buf;
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

static void hypermem_virtio_rx_event(struct virtqueue *vq)
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

static void hypermem_virtio_tx_event(struct virtqueue *vq)
{
	struct hypermem_virtio *hv = vq->vdev->priv;

	if (vq != hv->tx)
		return;
	WRITE_ONCE(hv->tx_events, hv->tx_events + 1);
	wake_up(&hv->tx_wait);
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
		hypermem_virtio_tx_reap(hv);
		frame->number = hv->tx_number;
		if (virtqueue_add_outbuf(hv->tx, hv->sg, n, frame, GFP_KERNEL) == 0) {
			hv->tx_number++;
			virtqueue_kick(hv->tx);
			return;
		}
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

static const struct hypermem_link_ops hypermem_virtio_ops = {
	.send = hypermem_virtio_send,
};

static int hypermem_virtio_find_vqs(struct hypermem_virtio *hv)
{
	vq_callback_t **callbacks;
	const char **names;
	unsigned int i;
	int rc = -ENOMEM;

	hv->vqs = kcalloc(hv->n_vqs, sizeof(*hv->vqs), GFP_KERNEL);
	callbacks = kcalloc(hv->n_vqs, sizeof(*callbacks), GFP_KERNEL);
	names = kcalloc(hv->n_vqs, sizeof(*names), GFP_KERNEL);
	if (!hv->vqs || !callbacks || !names)
		goto free;
	for (i = 0; i < hv->n_vqs; i++) {
		names[i] = i & 1 ? "hypermem-out" : "hypermem-in";
		callbacks[i] = i & 1 ? hypermem_virtio_tx_event : hypermem_virtio_rx_event;
	}
	names[2] = "hypermem-control-in";
	names[3] = "hypermem-control-out";
	callbacks[3] = NULL;
	rc = hypermem_find_vqs(hv->vdev, hv->n_vqs, hv->vqs, callbacks, names);
free:
	kfree(names);
	kfree(callbacks);
	return rc;
}

static void hypermem_virtio_free_vqs(struct hypermem_virtio *hv)
{
	unsigned int i;
	void *buf;

	hypermem_virtio_tx_reap(hv);
	for (i = 0; i < hv->n_vqs; i++) {
		while ((buf = virtqueue_detach_unused_buf(hv->vqs[i]))) {
			if (hv->vqs[i] == hv->tx)
				hypermem_frame_free(buf);
			else
				kfree(buf);
		}
	}
	hv->vdev->config->del_vqs(hv->vdev);
}

/* Stop the device, then what works for it, then free what they used. */
static void hypermem_virtio_destroy(struct hypermem_virtio *hv)
{
	unsigned int i;

	WRITE_ONCE(hv->stopping, true);
	wake_up(&hv->tx_wait);
	virtio_reset_device(hv->vdev);
	for (i = 0; i < ARRAY_SIZE(hv->receivers); i++)
		cancel_work_sync(&hv->receivers[i].work);
	hypermem_link_deinit(&hv->link);
	hypermem_virtio_free_vqs(hv);
	/* Not every transport waits for its interrupts when it is reset; now there are none. */
	destroy_workqueue(hv->wq);
	hypermem_frame_trim();
	hv->vdev->priv = NULL;
	kfree(hv->vqs);
	kfree(hv);
}

/* Take our port into use. */
static int hypermem_virtio_serve(struct hypermem_virtio *hv)
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

static void hypermem_virtio_init_receivers(struct hypermem_virtio *hv)
{
	unsigned int i;

	hypermem_lock_init(&hv->receive_lock);
	for (i = 0; i < ARRAY_SIZE(hv->receivers); i++) {
		hv->receivers[i].hv = hv;
		INIT_WORK(&hv->receivers[i].work, hypermem_virtio_work);
	}
	hv->receiver = &hv->receivers[0].work;
}

static int hypermem_virtio_probe(struct virtio_device *vdev)
{
	struct hypermem_virtio *hv;
	u32 max_ports;
	int rc;

	if (hypermem_virtio_is_given(&vdev->dev) ||
	    !virtio_has_feature(vdev, VIRTIO_CONSOLE_F_MULTIPORT))
		return -ENODEV;
	virtio_cread(vdev, struct virtio_console_config, max_nr_ports, &max_ports);
	if (!max_ports || max_ports > PORTS_MAX)
		return -ENODEV;
	hv = kzalloc(sizeof(*hv), GFP_KERNEL);
	if (!hv)
		return -ENOMEM;
	hv->vdev = vdev;
	hv->port = NO_PORT;
	hv->n_vqs = 2 * (max_ports + 1);
	hypermem_virtio_init_receivers(hv);
	init_waitqueue_head(&hv->tx_wait);
	vdev->priv = hv;
	rc = -ENOMEM;
	hv->wq = alloc_workqueue("hypermem-rx", WQ_HIGHPRI | HYPERMEM_WQ_PERCPU,
				 ARRAY_SIZE(hv->receivers));
	if (!hv->wq)
		goto free_hv;
	rc = hypermem_link_init(&hv->link, dev_name(&vdev->dev),
				HYPERMEM_LINK_DATA_MAX, &hypermem_virtio_ops);
	if (rc)
		goto destroy_wq;
	hv->link.receiver_works = true;
	rc = hypermem_virtio_find_vqs(hv);
	if (rc)
		goto deinit_link;
	virtio_device_ready(vdev);
	rc = hypermem_virtio_find_port(hv);
	if (rc)
		goto destroy;
	if (hv->port == NO_PORT)
		hypermem_virtio_wait_for_port(hv);
	else
		rc = hypermem_virtio_serve(hv);
	if (rc)
		goto destroy;
	return 0;

destroy:
	hypermem_virtio_destroy(hv);
	return rc;
deinit_link:
	kfree(hv->vqs);
	hypermem_link_deinit(&hv->link);
destroy_wq:
	destroy_workqueue(hv->wq);
free_hv:
	vdev->priv = NULL;
	kfree(hv);
	return rc;
}

static void hypermem_virtio_remove(struct virtio_device *vdev)
{
	if (vdev->priv)		/* not if it could not be restored */
		hypermem_virtio_destroy(vdev->priv);
}

#ifdef CONFIG_PM
/*
 * A device that sleeps forgets everything: begin anew, with a new session.  A request
 * may wait for user space, which sleeps already: then nobody can sleep now.
 */
static int hypermem_virtio_freeze(struct virtio_device *vdev)
{
	struct hypermem_virtio *hv = vdev->priv;
	int rc = hv ? hypermem_link_rest(&hv->link) : 0;

	if (rc) {
		dev_warn(&vdev->dev, "a request waits for user space, so the machine cannot be suspended now\n");
		return rc;
	}
	hypermem_virtio_remove(vdev);
	return 0;
}
#endif

/* Not MODULE_DEVICE_TABLE: it is loaded by who wants it, not for every console. */
static const struct virtio_device_id hypermem_virtio_ids[] = {
	{ VIRTIO_ID_CONSOLE, VIRTIO_DEV_ANY_ID },
	{ 0 },
};

static const unsigned int hypermem_virtio_features[] = {
	VIRTIO_CONSOLE_F_MULTIPORT,
};

struct virtio_driver hypermem_virtio_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = hypermem_virtio_ids,
	.feature_table = hypermem_virtio_features,
	.feature_table_size = ARRAY_SIZE(hypermem_virtio_features),
	.probe = hypermem_virtio_probe,
	.remove = hypermem_virtio_remove,
#ifdef CONFIG_PM
	.freeze = hypermem_virtio_freeze,
	.restore = hypermem_virtio_probe,
#endif
};

