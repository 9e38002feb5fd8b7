/* SPDX-License-Identifier: GPL-2.0 */
/*
 * link_virtio: a virtio-serial port named org.hypermem.* as a link.
 *
 *	link_virtio.c		the driver of a controller
 *	link_virtio_data.c	the queues of our port: data in and out
 *	link_virtio_control.c	the control queues: ports, their names, connect and disconnect
 *	link_virtio_bus.c	which controllers are ours; virtio_console's part in it
 *
 * This module drives the whole controller that the port sits on, itself.  The
 * controller's queues: 0 and 1 are port 0's, 2 and 3 control, then two for each
 * further port; the even ones bring data in.
 */
#ifndef HYPERMEM_LINK_VIRTIO_H
#define HYPERMEM_LINK_VIRTIO_H

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/types.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "link.h"

#define PORTS_MAX	511		/* of a controller; the virtio specification's */
#define NAME_MAX_SIZE	64		/* of a port */
#define NO_PORT		U32_MAX
#define SG_MAX		(HYPERMEM_LINK_DATA_MAX / PAGE_SIZE + 3)

struct hypermem_virtio {
	struct hypermem_link link;
	struct virtio_device *vdev;
	struct virtqueue **vqs;
	unsigned int n_vqs;
	struct virtqueue *rx, *tx;	/* our port's; NULL before it is found */

	u32 port;
	u32 ports;			/* that the controller has ... */
	u32 ours;			/* ... and of these, org.hypermem.* */
	DECLARE_BITMAP(known, PORTS_MAX + 1);	/* which they are */
	char name[NAME_MAX_SIZE];

	/*
	 * The link's receiver; control events too.  When it has taken all that has come, it
	 * does the last request itself, and meanwhile the other one receives.
	 */
	struct hypermem_virtio_receiver {
		struct work_struct work;
		struct hypermem_virtio *hv;
		bool works;		/* on a request; under receive_lock */
	} receivers[2];
	struct hypermem_lock receive_lock;	/* one at a time receives */
	struct work_struct *receiver;	/* who is called when something comes */
	struct workqueue_struct *wq;	/* they run in */

	bool host_connected;
	bool host_changed;		/* the last events said so; not acted on yet */

	/* Data that has been taken from rx by who only looked for it; buf NULL: there is none. */
	struct hypermem_virtio_data {
		u8 *buf;
		unsigned int start, end;
	} ahead;			/* under receive_lock */
	unsigned int rx_buffers;	/* that wait for data, or have some */
	unsigned int rx_unkicked;	/* offered since the last kick */

	bool stopping;
	bool waiting;			/* the controller has no port yet */
	bool renew;			/* to be bound anew */
	unsigned int tx_events;		/* counts; tx has given buffers back */
	wait_queue_head_t tx_wait;
	/* All three under link.send_lock. */
	u32 tx_number;			/* the next frame's */
	u32 tx_expected;		/* of the next frame that comes back */
	u32 tx_lost;			/* frames that others have overtaken */
	struct scatterlist sg[SG_MAX];	/* under link.send_lock */
};

static inline struct virtqueue *control_in(struct hypermem_virtio *hv)
{
	return hv->vqs[2];
}

static inline struct virtqueue *control_out(struct hypermem_virtio *hv)
{
	return hv->vqs[3];
}

/* Hand a buffer to the device to be filled; frees it if that fails. */
void hypermem_virtio_offer(struct virtqueue *vq, void *buf, size_t size);
/* Offer up to n new buffers. */
int hypermem_virtio_fill(struct virtqueue *vq, unsigned int n, size_t size);

extern struct virtio_driver hypermem_virtio_driver;

/* link_virtio_data.c */
extern const struct hypermem_link_ops hypermem_virtio_ops;
void hypermem_virtio_init_receivers(struct hypermem_virtio *hv);
/* Take our port into use: its queues are the receivers' from now on. */
int hypermem_virtio_serve(struct hypermem_virtio *hv);
void hypermem_virtio_rx_event(struct virtqueue *vq);
void hypermem_virtio_tx_event(struct virtqueue *vq);
/* Free the frames that the device has given back. */
void hypermem_virtio_tx_reap(struct hypermem_virtio *hv);

/*
 * Ask for the ports: which one is ours, and is it alone?  0: it is, or there is none yet
 * (port is NO_PORT); -ENODEV: the controller is not for us; or -errno.
 */
int hypermem_virtio_find_port(struct hypermem_virtio *hv);
/* There is none: bind the controller anew when one comes. */
void hypermem_virtio_wait_for_port(struct hypermem_virtio *hv);
/* Take our port into use: from now on the host may connect. */
int hypermem_virtio_open_port(struct hypermem_virtio *hv);
/* From the receiver's context: what the control queue says. */
void hypermem_virtio_drain_control(struct hypermem_virtio *hv);

/* Bind the controller anew, soon; from any context. */
void hypermem_virtio_renew(struct hypermem_virtio *hv);
/* A controller that is left to another driver just now. */
bool hypermem_virtio_is_given(const struct device *dev);
/* Say why a controller is left alone: once, although both drivers come by. */
void hypermem_virtio_refuse(struct device *dev, unsigned int others);

#endif
