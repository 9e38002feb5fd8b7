// SPDX-License-Identifier: GPL-2.0
/*
 * link_virtio_bus: which controllers are ours.  See link_virtio.h.
 *
 * A controller that has other ports than org.hypermem.* is left to virtio_console.  One
 * that virtio_console has already is taken over if all its ports are ours, and given
 * back at the end.  One without ports is nobody's loss: it is taken, to see what is
 * plugged in there, and given back if that is not ours.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/kobject.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio_ids.h>
#include <linux/workqueue.h>

#include "link_virtio.h"

/* virtio_console looks for its ports after it was bound, and by work of its own. */
#define LOOK_DELAY	HZ
#define LOOKS_MAX	10	/* at ports whose names may still come; some never get one */

static void hypermem_virtio_settle_work(struct work_struct *work);
static DECLARE_WORK(hypermem_virtio_renewal, hypermem_virtio_settle_work);
static DECLARE_DELAYED_WORK(hypermem_virtio_look, hypermem_virtio_settle_work);
static DEFINE_MUTEX(hypermem_virtio_settling);	/* one at a time; protects given */
static struct device *hypermem_virtio_given;	/* to whoever else wants it */
static struct device *hypermem_virtio_refused;	/* the last one; only to compare with */
static unsigned int hypermem_virtio_looks;	/* since another driver was bound */
static bool hypermem_virtio_leaving;	/* the driver is about to be unregistered */

/* The ports of a controller that virtio_console has. */
struct hypermem_virtio_ports {
	unsigned int all, ours, nameless;
};

/* virtio_console shows a port's name only as an attribute in sysfs. */
static void hypermem_virtio_count_name(struct device *dev, struct hypermem_virtio_ports *ports)
{
	char *device = kobject_get_path(&dev->kobj, GFP_KERNEL), *path = NULL;
	char name[NAME_MAX_SIZE];
	ssize_t n = -ENOMEM;

	if (device)
		path = kasprintf(GFP_KERNEL, "%s/name", device + strspn(device, "/"));
	if (path)
		n = hypermem_sysfs_read(path, name, sizeof(name));
	if (n < 0)
		ports->nameless++;
	else
		ports->ours += strstarts(name, HYPERMEM_PORT_PREFIX);
	kfree(path);
	kfree(device);
}

static int hypermem_virtio_count_port(struct device *dev, void *arg)
{
	struct hypermem_virtio_ports *ports = arg;

	if (!dev->class || strcmp(dev->class->name, "virtio-ports"))
		return 0;
	ports->all++;
	hypermem_virtio_count_name(dev, ports);
	return 0;
}

static bool hypermem_virtio_is_console(struct device *dev)
{
	return dev_to_virtio(dev)->id.device == VIRTIO_ID_CONSOLE;
}

void hypermem_virtio_refuse(struct device *dev, unsigned int others)
{
	if (xchg(&hypermem_virtio_refused, dev) == dev)
		return;
	dev_warn(dev, "an %s* port shares its controller with %u other port%s, leaving all to virtio_console: give it a controller of its own (-device virtio-serial-pci,id=hm -device virtserialport,bus=hm.0,...)\n",
		 HYPERMEM_PORT_PREFIX, others, others == 1 ? "" : "s");
}

/* Has virtio_console a controller that has no ports but ours?  Under the device's lock. */
static bool hypermem_virtio_is_to_take(struct device *dev)
{
	struct hypermem_virtio_ports ports = {};

	if (!dev->driver || dev->driver == &hypermem_virtio_driver.driver)
		return false;
	device_for_each_child(dev, &ports, hypermem_virtio_count_port);
	if (ports.all > ports.ours) {
		if (ports.ours)
			hypermem_virtio_refuse(dev, ports.all - ports.ours);
		else if (ports.nameless && hypermem_virtio_looks++ < LOOKS_MAX)
			schedule_delayed_work(&hypermem_virtio_look, LOOK_DELAY);
		return false;
	}
	if (ports.ours)
		dev_info(dev, "taking over from %s\n", dev->driver->name);
	return true;
}

static int hypermem_virtio_take(struct device *dev, void *released)
{
	bool take;

	if (!hypermem_virtio_is_console(dev))
		return 0;
	device_lock(dev);
	take = hypermem_virtio_is_to_take(dev);
	device_unlock(dev);
	if (!take)
		return 0;
	device_release_driver(dev);
	*(bool *)released = true;
	return 0;
}

static int hypermem_virtio_renew_device(struct device *dev, void *released)
{
	struct hypermem_virtio *hv;
	bool renew;

	device_lock(dev);
	hv = dev->driver == &hypermem_virtio_driver.driver ? dev_to_virtio(dev)->priv : NULL;
	renew = hv && READ_ONCE(hv->renew);
	device_unlock(dev);
	if (!renew)
		return 0;
	device_release_driver(dev);
	*(bool *)released = true;
	return 0;
}

/* Let another driver have the controllers that nobody drives now. */
static int hypermem_virtio_give(struct device *dev, void *arg)
{
	if (!hypermem_virtio_is_console(dev) || dev->driver)
		return 0;
	WRITE_ONCE(hypermem_virtio_given, dev);
	if (device_attach(dev) < 0)
		dev_warn(dev, "no other driver takes it\n");
	WRITE_ONCE(hypermem_virtio_given, NULL);
	return 0;
}

bool hypermem_virtio_is_given(const struct device *dev)
{
	return READ_ONCE(hypermem_virtio_given) == dev;
}

/* All virtio devices until one returns other than 0, which is returned. */
static int hypermem_virtio_each(int (*fn)(struct device *dev, void *arg), void *arg)
{
	return bus_for_each_dev(hypermem_virtio_driver.driver.bus, NULL, arg, fn);
}

/* Each controller to whom it belongs, as its ports are now. */
static int hypermem_virtio_settle(void)
{
	bool released = false;
	int rc = 0;

	mutex_lock(&hypermem_virtio_settling);
	hypermem_virtio_each(hypermem_virtio_renew_device, &released);
	hypermem_virtio_each(hypermem_virtio_take, &released);
	/* Those that have no driver although nobody was made to let go are somebody's wish. */
	if (released) {
		rc = driver_attach(&hypermem_virtio_driver.driver);
		hypermem_virtio_each(hypermem_virtio_give, NULL);
	}
	mutex_unlock(&hypermem_virtio_settling);
	return rc;
}

static void hypermem_virtio_settle_work(struct work_struct *work)
{
	int rc;

	if (READ_ONCE(hypermem_virtio_leaving))
		return;
	rc = hypermem_virtio_settle();
	if (rc)
		pr_err("binding anew failed: %d\n", rc);
}

void hypermem_virtio_renew(struct hypermem_virtio *hv)
{
	WRITE_ONCE(hv->renew, true);
	schedule_work(&hypermem_virtio_renewal);
}

/* Controllers are plugged in and out; who is bound first has them at first. */
static int hypermem_virtio_bus_event(struct notifier_block *nb, unsigned long event, void *data)
{
	struct device *dev = data;

	if (event == BUS_NOTIFY_DEL_DEVICE)
		cmpxchg(&hypermem_virtio_refused, dev, NULL);
	else if (event == BUS_NOTIFY_BOUND_DRIVER && hypermem_virtio_is_console(dev) &&
		 dev->driver != &hypermem_virtio_driver.driver) {
		WRITE_ONCE(hypermem_virtio_looks, 0);
		schedule_delayed_work(&hypermem_virtio_look, LOOK_DELAY);
	}
	return NOTIFY_DONE;
}

static struct notifier_block hypermem_virtio_notifier = {
	.notifier_call = hypermem_virtio_bus_event,
};

static int hypermem_virtio_is_served(struct device *dev, void *arg)
{
	struct hypermem_virtio *hv;
	bool served;

	device_lock(dev);
	hv = dev->driver == &hypermem_virtio_driver.driver ? dev_to_virtio(dev)->priv : NULL;
	served = hv && hv->port != NO_PORT;
	device_unlock(dev);
	return served;
}

int hypermem_virtio_register(void)
{
	int rc = register_virtio_driver(&hypermem_virtio_driver);

	if (rc)
		return rc;
	rc = bus_register_notifier(hypermem_virtio_driver.driver.bus, &hypermem_virtio_notifier);
	if (rc)
		goto unregister;
	rc = hypermem_virtio_settle();
	if (rc) {
		hypermem_virtio_unregister();
		return rc;
	}
	return 0;

unregister:
	unregister_virtio_driver(&hypermem_virtio_driver);
	return rc;
}

void hypermem_virtio_report(void)
{
	if (!hypermem_virtio_refused &&
	    !hypermem_virtio_each(hypermem_virtio_is_served, NULL))
		pr_info("there is no virtio-serial port named %s* yet\n", HYPERMEM_PORT_PREFIX);
}

static void hypermem_virtio_cancel(void)
{
	cancel_work_sync(&hypermem_virtio_renewal);
	cancel_delayed_work_sync(&hypermem_virtio_look);
}

void hypermem_virtio_unregister(void)
{
	/* No device is bound to a driver that goes; once it has gone nobody renews. */
	WRITE_ONCE(hypermem_virtio_leaving, true);
	bus_unregister_notifier(hypermem_virtio_driver.driver.bus, &hypermem_virtio_notifier);
	hypermem_virtio_cancel();
	unregister_virtio_driver(&hypermem_virtio_driver);
	hypermem_virtio_cancel();
	hypermem_virtio_each(hypermem_virtio_give, NULL);
}
