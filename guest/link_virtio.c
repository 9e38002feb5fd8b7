// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio: the driver of a controller, from its probe to its removal.  See link_virtio.h.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include "compat.h"
#include "link_virtio.h"

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
	/*
	 * Not cancel_work_sync(): a worker may still be busy with that when it has returned, at
	 * which destroy_workqueue() warns, and leaves the workqueue there.
	 */
	flush_workqueue(hv->wq);
	hypermem_link_deinit(&hv->link);
	hypermem_virtio_free_vqs(hv);
	/* Not every transport waits for its interrupts when it is reset; now there are none. */
	destroy_workqueue(hv->wq);
	hypermem_frame_trim();
	kfree(hv->ahead.buf);
	hv->vdev->priv = NULL;
	kfree(hv->vqs);
	kfree(hv);
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
	/* Each may have been called again while it works: that must not keep the other one out. */
	hv->wq = alloc_workqueue("hypermem-rx", HYPERMEM_WQ_PERCPU,
				 2 * ARRAY_SIZE(hv->receivers));
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

