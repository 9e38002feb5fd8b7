// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio_bus: which controllers are ours.  See link_virtio.h.
 *
 * A controller that has no org.hypermem.* port, or other ports besides, is left to
 * virtio_console; one that virtio_console has already is taken over if our port is
 * all it has, and given back at the end.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/gfp.h>
#include <linux/kernfs.h>
#include <linux/string.h>
#include <linux/virtio_ids.h>

#include "link_virtio.h"

static void hypermem_virtio_renew_work(struct work_struct *work);
static DECLARE_WORK(hypermem_virtio_renewal, hypermem_virtio_renew_work);
static bool hypermem_virtio_leaving;	/* the driver is about to be unregistered */

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
static int hypermem_virtio_release(struct device *dev, void *taken)
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
	++*(unsigned int *)taken;
	return 0;
}

static int hypermem_virtio_renew_device(struct device *dev, void *arg)
{
	struct hypermem_virtio *hv;
	bool worn;

	device_lock(dev);
	hv = dev->driver == &hypermem_virtio_driver.driver ? dev_to_virtio(dev)->priv : NULL;
	worn = hv && READ_ONCE(hv->worn);
	device_unlock(dev);
	if (!worn)
		return 0;
	dev_info(dev, "resetting the device: hosts have left without reading\n");
	device_release_driver(dev);
	return 0;
}

static void hypermem_virtio_renew_work(struct work_struct *work)
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

void hypermem_virtio_renew(void)
{
	schedule_work(&hypermem_virtio_renewal);
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
	unsigned int taken = 0;

	if (rc)
		return rc;
	bus_for_each_dev(hypermem_virtio_driver.driver.bus, NULL, &taken,
			 hypermem_virtio_release);
	if (!taken)
		return 0;
	rc = driver_attach(&hypermem_virtio_driver.driver);
	if (rc)
		hypermem_virtio_unregister();
	return rc;
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
