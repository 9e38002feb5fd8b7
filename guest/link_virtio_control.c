// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio_control: the control queues of a virtio-serial controller.  See
 * link_virtio.h.
 *
 * QEMU answers a control message before it gives the message's buffer back, so
 * nothing here waits for a time.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/slab.h>
#include <linux/virtio_console.h>

#include "link_virtio.h"

#define CONTROL_BUFFERS	32
#define CONTROL_SIZE	(sizeof(struct virtio_console_control) + NAME_MAX_SIZE)

/*
 * Tell the device something and wait until it has taken it: QEMU has put its
 * answers, if any, into control_in by then.
 */
static int hypermem_virtio_tell(struct hypermem_virtio *hv, u32 port, u16 event, u16 value)
{
	struct virtqueue *vq = control_out(hv);
	struct virtio_console_control *msg;
	struct scatterlist sg;
	void *done;		/* msg, or one that was given up on */
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
	while (!(done = virtqueue_get_buf(vq, &len))) {
		if (virtqueue_is_broken(vq) || !tries--)
			return -EIO;	/* msg is the device's until it is reset */
		usleep_range(20, 100);
	}
	kfree(done);
	return 0;
}

static void hypermem_virtio_adopt(struct hypermem_virtio *hv, u32 port, const char *name,
				  size_t size)
{
	unsigned int queue = port ? 2 * (port + 1) : 0;

	if (size < strlen(HYPERMEM_PORT_PREFIX) || queue + 1 >= hv->n_vqs ||
	    memcmp(name, HYPERMEM_PORT_PREFIX, strlen(HYPERMEM_PORT_PREFIX)))
		return;
	hv->ours++;
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
		/* Of one that is plugged in just as DEVICE_READY is answered the host tells twice. */
		if (port > PORTS_MAX || __test_and_set_bit(port, hv->known))
			break;
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
		if (port != hv->port) {
			if (port <= PORTS_MAX && __test_and_clear_bit(port, hv->known))
				hv->ports--;
			break;
		}
		pr_warn("%s: port %s was removed; it is served again when it is plugged in again\n",
			hv->link.name, hv->name);
		hv->host_connected = false;
		hv->host_changed = true;
		hypermem_virtio_renew(hv);
		break;
	}
}

void hypermem_virtio_drain_control(struct hypermem_virtio *hv)
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

int hypermem_virtio_find_port(struct hypermem_virtio *hv)
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
	if (hv->ports && !hv->ours)
		return -ENODEV;
	if (hv->ports > hv->ours) {
		hypermem_virtio_refuse(&hv->vdev->dev, hv->ports - hv->ours);
		return -ENODEV;
	}
	if (hv->ours > 1)
		dev_warn(&hv->vdev->dev,
			 "the controller has more ports named %s*, only %s is served: give each a controller of its own\n",
			 HYPERMEM_PORT_PREFIX, hv->name);
	return 0;
}

void hypermem_virtio_wait_for_port(struct hypermem_virtio *hv)
{
	/* Whatever comes now is about a port. */
	smp_store_release(&hv->waiting, true);
	if (!virtqueue_enable_cb(control_in(hv)))
		hypermem_virtio_renew(hv);
}

int hypermem_virtio_open_port(struct hypermem_virtio *hv)
{
	return hypermem_virtio_tell(hv, hv->port, VIRTIO_CONSOLE_PORT_OPEN, 1);
}
