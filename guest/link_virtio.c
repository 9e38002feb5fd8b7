// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio: a virtio-serial port named org.hypermem.* as a link.
 *
 * This module drives the whole controller that the port sits on, itself.  A
 * controller that has no such port, or other ports besides, is left to
 * virtio_console; one that virtio_console has already is taken over if our port is
 * all it has, and given back at the end.
 *
 * The controller's queues: 0 and 1 are port 0's, 2 and 3 control, then two for each
 * further port; the even ones bring data in.  QEMU answers a control message
 * before it gives the message's buffer back, so nothing here waits for a time.
 *
 * The host's connect and disconnect come as control events, on another queue than
 * the data: what is in the data queue when the event is seen may be of the old
 * host or the new one.  So it is dropped, and the new host is asked for a HELLO.
 *
 * QEMU (discard_throttle_data() in hw/char/virtio-serial-bus.c) never gives back the
 * buffer that it was sending when the host left without reading: each such host
 * costs a buffer of the queue.  Only a reset of the device gets them back, so after a
 * few the driver is bound anew.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/kernfs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <linux/wait.h>

#include "compat.h"
#include "link.h"

#define PORTS_MAX	511		/* of a controller; the virtio specification's */
#define NAME_MAX_SIZE	64		/* of a port */
#define NO_PORT		U32_MAX
#define RX_BUFFERS	16		/* pages that wait for data */
#define CONTROL_BUFFERS	32
#define TX_LOST_MAX	16		/* of the queue's 128, before the device is reset */
#define CONTROL_SIZE	(sizeof(struct virtio_console_control) + NAME_MAX_SIZE)
#define SG_MAX		(HYPERMEM_LINK_DATA_MAX / PAGE_SIZE + 3)

struct hypermem_virtio {
	struct hypermem_link link;
	struct virtio_device *vdev;
	struct virtqueue **vqs;
	unsigned int n_vqs;
	struct virtqueue *rx, *tx;	/* our port's; NULL before it is found */

	u32 port;
	u32 ports;			/* that the controller has */
	char name[NAME_MAX_SIZE];

	struct work_struct work;	/* the link's receiver; control events too */
	bool host_connected;
	bool host_changed;		/* the last events said so; not acted on yet */

	bool stopping;
	unsigned int tx_events;		/* counts; tx has given buffers back */
	wait_queue_head_t tx_wait;
	/* All three under link.send_lock. */
	u32 tx_number;			/* the next frame's */
	u32 tx_expected;		/* of the next frame that comes back */
	u32 tx_lost;			/* frames that others have overtaken */
	struct scatterlist sg[SG_MAX];	/* under link.send_lock */
};

static void hypermem_virtio_renew(struct work_struct *work);
static DECLARE_WORK(hypermem_virtio_renewal, hypermem_virtio_renew);
static bool hypermem_virtio_leaving;	/* the driver is about to be unregistered */

static struct virtqueue *control_in(struct hypermem_virtio *hv)
{
	return hv->vqs[2];
}

static struct virtqueue *control_out(struct hypermem_virtio *hv)
{
	return hv->vqs[3];
}

/* Hand a buffer to the device to be filled; frees it if that fails. */
static void hypermem_virtio_offer(struct virtqueue *vq, void *buf, size_t size)
{
	struct scatterlist sg;

	sg_init_one(&sg, buf, size);
	if (virtqueue_add_inbuf(vq, &sg, 1, buf, GFP_KERNEL) < 0)
		kfree(buf);
}

/* Offer up to n new buffers. */
static int hypermem_virtio_fill(struct virtqueue *vq, unsigned int n, size_t size)
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

/*
 * Tell the device something and wait until it has taken it: QEMU has put its
 * answers, if any, into control_in by then.
 */
static int hypermem_virtio_tell(struct hypermem_virtio *hv, u32 port, u16 event, u16 value)
{
	struct virtqueue *vq = control_out(hv);
	struct virtio_console_control *msg;
	struct scatterlist sg;
	unsigned int len, tries = 20000;	/* 2 s and more */
	int rc;

	msg = kmalloc(sizeof(*msg), GFP_KERNEL);
	if (!msg)
		return -ENOMEM;
	msg->id = cpu_to_virtio32(hv->vdev, port);
	msg->event = cpu_to_virtio16(hv->vdev, event);
	msg->value = cpu_to_virtio16(hv->vdev, value);
	sg_init_one(&sg, msg, sizeof(*msg));
	rc = virtqueue_add_outbuf(vq, &sg, 1, msg, GFP_KERNEL);
	if (rc < 0) {
		kfree(msg);
		return rc;
	}
	virtqueue_kick(vq);
	while (!virtqueue_get_buf(vq, &len)) {
		if (virtqueue_is_broken(vq) || !tries--)
			return -EIO;	/* msg is the device's until it is reset */
		usleep_range(20, 100);
	}
	kfree(msg);
	return 0;
}

static void hypermem_virtio_adopt(struct hypermem_virtio *hv, u32 port, const char *name,
				  size_t size)
{
	unsigned int queue = port ? 2 * (port + 1) : 0;

	if (size < strlen(HYPERMEM_PORT_PREFIX) || queue + 1 >= hv->n_vqs ||
	    memcmp(name, HYPERMEM_PORT_PREFIX, strlen(HYPERMEM_PORT_PREFIX)))
		return;
	if (hv->port != NO_PORT)
		return;
	memcpy(hv->name, name, min_t(size_t, size, sizeof(hv->name) - 1));
	hv->port = port;
}

static void hypermem_virtio_event(struct hypermem_virtio *hv,
				  const struct virtio_console_control *msg, unsigned int size)
{
	u32 port = virtio32_to_cpu(hv->vdev, msg->id);
	u16 value = virtio16_to_cpu(hv->vdev, msg->value);

	switch (virtio16_to_cpu(hv->vdev, msg->event)) {
	case VIRTIO_CONSOLE_PORT_ADD:
		hv->ports++;
		if (hv->rx)
			pr_warn("%s: a port was added to the controller of %s and is not served: give it a controller of its own\n",
				hv->link.name, hv->name);
		else
			hypermem_virtio_tell(hv, port, VIRTIO_CONSOLE_PORT_READY, 1);
		break;
	case VIRTIO_CONSOLE_PORT_NAME:
		if (!hv->rx)
			hypermem_virtio_adopt(hv, port, (const char *)(msg + 1),
					      size - sizeof(*msg));
		break;
	case VIRTIO_CONSOLE_PORT_OPEN:
		if (port != hv->port)
			break;
		hv->host_connected = value;
		hv->host_changed = true;
		break;
	case VIRTIO_CONSOLE_PORT_REMOVE:
		if (port != hv->port)
			break;
		pr_warn("%s: port %s was removed; plug it again and reload the module\n",
			hv->link.name, hv->name);
		hv->host_connected = false;
		hv->host_changed = true;
		break;
	}
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

	mutex_lock(&hv->link.send_lock);
	hypermem_virtio_tx_reap(hv);
	worn = hv->tx_lost >= TX_LOST_MAX;
	mutex_unlock(&hv->link.send_lock);
	return worn;
}

static void hypermem_virtio_drain_control(struct hypermem_virtio *hv)
{
	struct virtio_console_control *msg;
	struct virtqueue *vq = control_in(hv);
	bool kick = false;
	unsigned int size;

	while ((msg = virtqueue_get_buf(vq, &size))) {
		size = min_t(unsigned int, size, CONTROL_SIZE);
		if (size >= sizeof(*msg))
			hypermem_virtio_event(hv, msg, size);
		hypermem_virtio_offer(vq, msg, CONTROL_SIZE);
		kick = true;
	}
	if (kick)
		virtqueue_kick(vq);
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
	if (hypermem_virtio_is_worn(hv))
		schedule_work(&hypermem_virtio_renewal);
	else if (hv->host_connected)
		hypermem_link_invite(&hv->link);
}

/* One buffer of data.  An event that is seen after it was taken may have come before it. */
static bool hypermem_virtio_receive(struct hypermem_virtio *hv)
{
	unsigned int len;
	void *buf = virtqueue_get_buf(hv->rx, &len);

	hypermem_virtio_drain_control(hv);
	if (buf && !hv->host_changed)
		hypermem_link_receive(&hv->link, buf, min_t(size_t, len, PAGE_SIZE));
	if (buf) {
		hypermem_virtio_offer(hv->rx, buf, PAGE_SIZE);
		virtqueue_kick(hv->rx);
	}
	if (hv->host_changed)
		hypermem_virtio_host_changed(hv);
	return buf;
}

static void hypermem_virtio_work(struct work_struct *work)
{
	struct hypermem_virtio *hv = container_of(work, struct hypermem_virtio, work);

	do {
		virtqueue_disable_cb(hv->rx);
		virtqueue_disable_cb(control_in(hv));
		while (!READ_ONCE(hv->stopping) && hypermem_virtio_receive(hv))
			;
	} while (!READ_ONCE(hv->stopping) &&
		 (!virtqueue_enable_cb(control_in(hv)) || !virtqueue_enable_cb(hv->rx)));
}

static void hypermem_virtio_rx_event(struct virtqueue *vq)
{
	struct hypermem_virtio *hv = vq->vdev->priv;

	if (hv->rx && !READ_ONCE(hv->stopping) && (vq == hv->rx || vq == control_in(hv)))
		queue_work(system_highpri_wq, &hv->work);
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
		wait_event(hv->tx_wait,
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
	WRITE_ONCE(hv->stopping, true);
	wake_up(&hv->tx_wait);
	virtio_reset_device(hv->vdev);
	cancel_work_sync(&hv->work);
	hypermem_link_deinit(&hv->link);
	hypermem_virtio_free_vqs(hv);
	hv->vdev->priv = NULL;
	kfree(hv->vqs);
	kfree(hv);
}

/* Ask for the ports: which one is ours, and is it alone? */
static int hypermem_virtio_find_port(struct hypermem_virtio *hv)
{
	int rc;

	rc = hypermem_virtio_fill(control_in(hv), CONTROL_BUFFERS, CONTROL_SIZE);
	if (rc)
		return rc;
	rc = hypermem_virtio_tell(hv, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
	if (rc)
		return rc;
	/* Each PORT_ADD is answered with PORT_READY, which brings the port's name. */
	hypermem_virtio_drain_control(hv);
	if (hv->port == NO_PORT)
		return -ENODEV;
	if (hv->ports > 1) {
		dev_warn(&hv->vdev->dev,
			 "port %s shares its controller with %u others, leaving it alone: give it one of its own (-device virtio-serial-pci,id=hm -device virtserialport,bus=hm.0,...)\n",
			 hv->name, hv->ports - 1);
		return -ENODEV;
	}
	return 0;
}

static int hypermem_virtio_probe(struct virtio_device *vdev)
{
	struct hypermem_virtio *hv;
	unsigned int queue;
	u32 max_ports;
	int rc;

	if (!virtio_has_feature(vdev, VIRTIO_CONSOLE_F_MULTIPORT))
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
	INIT_WORK(&hv->work, hypermem_virtio_work);
	init_waitqueue_head(&hv->tx_wait);
	vdev->priv = hv;
	rc = hypermem_link_init(&hv->link, dev_name(&vdev->dev), &hypermem_virtio_ops);
	if (rc)
		goto free_hv;
	rc = hypermem_virtio_find_vqs(hv);
	if (rc)
		goto deinit_link;
	virtio_device_ready(vdev);
	rc = hypermem_virtio_find_port(hv);
	if (rc)
		goto destroy;

	queue = hv->port ? 2 * (hv->port + 1) : 0;
	hv->tx = hv->vqs[queue + 1];
	hv->rx = hv->vqs[queue];
	virtqueue_disable_cb(hv->tx);
	rc = hypermem_virtio_fill(hv->rx, RX_BUFFERS, PAGE_SIZE);
	if (rc)
		goto destroy;
	rc = hypermem_virtio_tell(hv, hv->port, VIRTIO_CONSOLE_PORT_OPEN, 1);
	if (rc)
		goto destroy;
	dev_info(&vdev->dev, "serving port %s\n", hv->name);
	/* Events that came before hv->rx was there to be told of them. */
	queue_work(system_highpri_wq, &hv->work);
	return 0;

destroy:
	hypermem_virtio_destroy(hv);
	return rc;
deinit_link:
	kfree(hv->vqs);
	hypermem_link_deinit(&hv->link);
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
/* A device that sleeps forgets everything: begin anew, with a new session. */
static int hypermem_virtio_freeze(struct virtio_device *vdev)
{
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

static struct virtio_driver hypermem_virtio_driver = {
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

/* The ports of a controller that virtio_console has. */
struct hypermem_virtio_ports {
	unsigned int all, ours;
};

/*
 * virtio_console shows a port's name only as an attribute in sysfs.  It is asked for
 * here as sysfs would, so that nobody needs to have mounted it.
 */
static bool hypermem_virtio_port_is_ours(struct device *dev)
{
	struct kernfs_node *kn = kernfs_find_and_get(dev->kobj.sd, "name");
	struct device_attribute *attr;
	bool ours = false;
	char *page;

	if (!kn)
		return false;	/* it has no name */
	attr = container_of((struct attribute *)kn->priv, struct device_attribute, attr);
	page = (char *)get_zeroed_page(GFP_KERNEL);
	if (page && attr->show && attr->show(dev, attr, page) > 0)
		ours = strstarts(page, HYPERMEM_PORT_PREFIX);
	free_page((unsigned long)page);
	kernfs_put(kn);
	return ours;
}

static int hypermem_virtio_count_port(struct device *dev, void *arg)
{
	struct hypermem_virtio_ports *ports = arg;

	if (!dev->class || strcmp(dev->class->name, "virtio-ports"))
		return 0;
	ports->all++;
	if (hypermem_virtio_port_is_ours(dev))
		ports->ours++;
	return 0;
}

static bool hypermem_virtio_is_console(struct device *dev)
{
	return dev_to_virtio(dev)->id.device == VIRTIO_ID_CONSOLE;
}

/* Make virtio_console let go of a controller if our port is all it has. */
static int hypermem_virtio_release(struct device *dev, void *arg)
{
	struct hypermem_virtio_ports ports = {};

	if (!hypermem_virtio_is_console(dev) || !dev->driver ||
	    dev->driver == &hypermem_virtio_driver.driver)
		return 0;
	device_for_each_child(dev, &ports, hypermem_virtio_count_port);
	if (!ports.ours)
		return 0;
	if (ports.all > 1) {
		dev_warn(dev, "an %s* port shares its controller with %u others, leaving it to %s: give it one of its own (-device virtio-serial-pci,id=hm -device virtserialport,bus=hm.0,...)\n",
			 HYPERMEM_PORT_PREFIX, ports.all - 1, dev->driver->name);
		return 0;
	}
	dev_info(dev, "taking over from %s\n", dev->driver->name);
	device_release_driver(dev);
	return 0;
}

static int hypermem_virtio_renew_device(struct device *dev, void *arg)
{
	struct hypermem_virtio *hv;
	bool worn;

	device_lock(dev);
	hv = dev->driver == &hypermem_virtio_driver.driver ? dev_to_virtio(dev)->priv : NULL;
	worn = hv && hypermem_virtio_is_worn(hv);
	device_unlock(dev);
	if (!worn)
		return 0;
	dev_info(dev, "resetting the device: hosts have left without reading\n");
	device_release_driver(dev);
	return 0;
}

static void hypermem_virtio_renew(struct work_struct *work)
{
	int rc;

	if (READ_ONCE(hypermem_virtio_leaving))
		return;
	bus_for_each_dev(hypermem_virtio_driver.driver.bus, NULL, NULL,
			 hypermem_virtio_renew_device);
	rc = driver_attach(&hypermem_virtio_driver.driver);
	if (rc)
		pr_err("binding anew failed: %d\n", rc);
}

/* Let another driver have the controllers that nobody drives now. */
static int hypermem_virtio_give(struct device *dev, void *arg)
{
	if (hypermem_virtio_is_console(dev) && !dev->driver && device_attach(dev) < 0)
		dev_warn(dev, "no other driver takes it\n");
	return 0;
}

int hypermem_virtio_register(void)
{
	int rc = register_virtio_driver(&hypermem_virtio_driver);

	if (rc)
		return rc;
	bus_for_each_dev(hypermem_virtio_driver.driver.bus, NULL, NULL, hypermem_virtio_release);
	return driver_attach(&hypermem_virtio_driver.driver);
}

void hypermem_virtio_unregister(void)
{
	/* No device is bound to a driver that goes; once it has gone nobody renews. */
	WRITE_ONCE(hypermem_virtio_leaving, true);
	cancel_work_sync(&hypermem_virtio_renewal);
	unregister_virtio_driver(&hypermem_virtio_driver);
	cancel_work_sync(&hypermem_virtio_renewal);
	bus_for_each_dev(hypermem_virtio_driver.driver.bus, NULL, NULL, hypermem_virtio_give);
}
