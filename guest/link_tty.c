// SPDX-License-Identifier: GPL-2.0
/*
 * link_tty: a serial line as a link, for machines that have no virtio.
 *
 * The module parameter tty= names the line.  It is opened by the kernel, for itself
 * alone, and its line discipline is ours: nobody in user space is needed, and nothing
 * between the UART and here looks at a byte.
 *
 * A line may carry noise, and what a boot loader or console said; bytes may be lost.  So
 * frames are delimited, and checked by a CRC, as hypermem.h says at HYPER_SERIAL_FLAG.
 * What is not a whole frame is dropped.  Nobody tells when a host comes or goes: a HELLO
 * does.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/crc32.h>
#include <linux/device.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/tty.h>
#include <linux/tty_driver.h>
#include <linux/tty_ldisc.h>
#include <linux/wait.h>

#include "compat.h"
#include "link.h"
#include "ops.h"

/* A lost byte costs a frame: short ones. */
#define DATA_MAX	HYPERMEM_CHUNK_SIZE
#define FRAME_MAX	(HYPERMEM_HEADER_SIZE + DATA_MAX + HYPER_SERIAL_CRC_SIZE)
#define TX_SIZE		512

struct hypermem_tty {
	struct hypermem_link link;
	struct tty_struct *tty;
	bool stopping;

	struct mutex rx_lock;		/* protects what is received */
	bool rx_bad;			/* the frame is, up to the next flag */
	bool rx_escaped;
	u32 rx_n;
	u8 rx[FRAME_MAX];

	wait_queue_head_t tx_wait;
	u32 tx_n;			/* with tx under link.send_lock */
	u8 tx[TX_SIZE];
};

static char *line_name;
module_param_named(tty, line_name, charp, 0444);
MODULE_PARM_DESC(tty, "serial line that the host is connected to, e.g. ttyS1 (default: none)");

static struct hypermem_tty *the_tty;	/* NULL: there is no tty= */

static void crc_put(u32 crc, u8 bytes[HYPER_SERIAL_CRC_SIZE])
{
	int i;

	for (i = 0; i < HYPER_SERIAL_CRC_SIZE; i++, crc >>= 8)
		bytes[i] = crc;
}

/* -- from the host ------------------------------------------------------------ */

/* A whole frame, as the header says it is. */
static bool frame_is_whole(const u8 *bytes, u32 size)
{
	struct hypermem_header header;

	if (size < HYPERMEM_HEADER_SIZE)
		return false;
	hypermem_header_decode(bytes, &header);
	return size - HYPERMEM_HEADER_SIZE == (header.op & HYPER_DATA ? header.size : 0);
}

static void tty_frame_end(struct hypermem_tty *ht)
{
	u32 size = ht->rx_n - HYPER_SERIAL_CRC_SIZE;
	u8 crc[HYPER_SERIAL_CRC_SIZE];

	if (ht->rx_bad || ht->rx_escaped || ht->rx_n < HYPER_SERIAL_CRC_SIZE)
		return;
	crc_put(~crc32_le(~0, ht->rx, size), crc);
	if (memcmp(ht->rx + size, crc, sizeof(crc)))
		return;
	if (frame_is_whole(ht->rx, size))
		hypermem_link_receive(&ht->link, ht->rx, size);
}

static void tty_byte(struct hypermem_tty *ht, u8 byte)
{
	if (byte == HYPER_SERIAL_FLAG) {
		tty_frame_end(ht);
		ht->rx_n = 0;
		ht->rx_bad = false;
		ht->rx_escaped = false;
	} else if (byte == HYPER_SERIAL_ESCAPE) {
		ht->rx_escaped = true;
	} else if (ht->rx_n == sizeof(ht->rx)) {
		ht->rx_bad = true;
	} else {
		ht->rx[ht->rx_n++] = ht->rx_escaped ? byte ^ HYPER_SERIAL_XOR : byte;
		ht->rx_escaped = false;
	}
}

/* Takes everything at once; a reply that it sends may wait, and flow control does the rest. */
static void tty_receive(struct tty_struct *tty, const u8 *bytes, const u8 *flags, size_t n)
{
	struct hypermem_tty *ht = tty->disc_data;
	size_t i;

	mutex_lock(&ht->rx_lock);
	for (i = 0; i < n && !READ_ONCE(ht->stopping); i++) {
		tty_byte(ht, bytes[i]);
		if (flags && flags[i] != TTY_NORMAL)
			ht->rx_bad = true;
	}
	mutex_unlock(&ht->rx_lock);
}

/* -- to the host -------------------------------------------------------------- */

static void tty_write_wakeup(struct tty_struct *tty)
{
	struct hypermem_tty *ht = tty->disc_data;

	if (ht)
		wake_up(&ht->tx_wait);
}

static void tty_flush(struct hypermem_tty *ht)
{
	struct tty_struct *tty = ht->tty;
	u32 done = 0;

	while (done < ht->tx_n && !READ_ONCE(ht->stopping)) {
		ssize_t n;

		set_bit(TTY_DO_WRITE_WAKEUP, &tty->flags);
		n = tty->ops->write(tty, ht->tx + done, ht->tx_n - done);
		if (n < 0)
			break;
		done += n;
		if (done < ht->tx_n)
			wait_event_idle(ht->tx_wait,
					tty_write_room(tty) > 0 || READ_ONCE(ht->stopping));
	}
	ht->tx_n = 0;
}

static void tty_put_raw(struct hypermem_tty *ht, u8 byte)
{
	if (ht->tx_n == sizeof(ht->tx))
		tty_flush(ht);
	ht->tx[ht->tx_n++] = byte;
}

static void tty_put(struct hypermem_tty *ht, u8 byte)
{
	if (HYPER_SERIAL_IS_SPECIAL(byte)) {
		tty_put_raw(ht, HYPER_SERIAL_ESCAPE);
		byte ^= HYPER_SERIAL_XOR;
	}
	tty_put_raw(ht, byte);
}

static void hypermem_tty_send(struct hypermem_link *link, struct hypermem_frame *frame)
{
	struct hypermem_tty *ht = container_of(link, struct hypermem_tty, link);
	u8 crc[HYPER_SERIAL_CRC_SIZE];
	size_t i;

	crc_put(~crc32_le(~0, frame->bytes, frame->size), crc);
	tty_put_raw(ht, HYPER_SERIAL_FLAG);
	for (i = 0; i < frame->size; i++)
		tty_put(ht, frame->bytes[i]);
	for (i = 0; i < sizeof(crc); i++)
		tty_put(ht, crc[i]);
	tty_put_raw(ht, HYPER_SERIAL_FLAG);
	tty_flush(ht);
	hypermem_frame_free(frame);
}

static const struct hypermem_link_ops hypermem_tty_ops = {
	.send = hypermem_tty_send,
};

/* -- the line ------------------------------------------------------------------ */

static void tty_stop(struct hypermem_tty *ht)
{
	WRITE_ONCE(ht->stopping, true);
	wake_up(&ht->tx_wait);
}

static int tty_ldisc_open(struct tty_struct *tty)
{
	/* Anybody may ask for a line discipline by its number; this one is ours alone. */
	if (!the_tty || the_tty->tty != tty)
		return -EPERM;
	tty->disc_data = the_tty;
	tty->receive_room = 65536;
	return 0;
}

static void tty_ldisc_close(struct tty_struct *tty)
{
	tty_stop(tty->disc_data);
}

static void tty_ldisc_hangup(struct tty_struct *tty)
{
	pr_warn("%s: the line was hung up; plug it in again and load the module anew\n", line_name);
	tty_stop(tty->disc_data);
}

HYPERMEM_LDISC(hypermem_ldisc, tty_ldisc_open, tty_ldisc_close, tty_ldisc_hangup, tty_receive,
	       tty_write_wakeup);

/* Eight bits, no parity, no flow control in the line, and nothing changed on the way. */
static void tty_set_raw(struct tty_struct *tty)
{
	struct ktermios termios = tty->termios;

	termios.c_iflag = IGNBRK;
	termios.c_oflag = 0;
	termios.c_lflag = 0;
	termios.c_cflag = (termios.c_cflag & ~(CSIZE | CSTOPB | PARENB | CRTSCTS | HUPCL | CBAUD)) |
			  CS8 | CREAD | CLOCAL | B115200;
	tty_termios_encode_baud_rate(&termios, 115200, 115200);
	tty_set_termios(tty, &termios);
}

static void tty_line_close(struct tty_struct *tty)
{
	/* What nobody reads would be waited for. */
	tty_driver_flush_buffer(tty);
	tty_lock(tty);
	/* A hangup has closed the driver's side. */
	if (tty->ops->close && !test_bit(TTY_HUPPED, &tty->flags))
		tty->ops->close(tty, NULL);
	tty_ldisc_flush(tty);
	tty_unlock(tty);
	tty_kclose(tty);
}

/*
 * A driver has numbers for more lines than there are, and opening one that is not there
 * makes the kernel warn.
 */
static bool line_exists(const char *name)
{
	char path[64], text[16];

	if (strchr(name, '/'))
		return false;
	snprintf(path, sizeof(path), "class/tty/%s/dev", name);
	return hypermem_sysfs_read(path, text, sizeof(text)) != -ENOENT;
}

/* Does the kernel write its messages there? */
static bool line_is_console(const char *name)
{
	char text[256], *rest = text, *word;

	if (hypermem_sysfs_read("class/tty/console/active", text, sizeof(text)) < 0)
		return false;
	while ((word = strsep(&rest, " \n")))
		if (!strcmp(word, name))
			return true;
	return false;
}

/* Screens and the ends of pipes cannot be links, and would suffer. */
static bool tty_is_line(const struct tty_struct *tty)
{
	return tty->driver->type != TTY_DRIVER_TYPE_CONSOLE &&
	       tty->driver->type != TTY_DRIVER_TYPE_PTY;
}

/* Say why a line is not served; returns rc. */
static int line_refuse(const char *name, int rc)
{
	const char *why = "the line cannot be opened";

	if (rc == -ENODEV)
		why = "there is no such line; /proc/tty/driver/serial and dmesg name those that there are";
	else if (rc == -EBUSY && line_is_console(name))
		why = "the line is in use: the kernel's console is on it; give the guest another serial line, and its name here";
	else if (rc == -EBUSY)
		why = "the line is in use, perhaps by a getty: stop that, or name another line";
	else if (rc == -ENXIO)
		why = "there is no UART behind the line; /proc/tty/driver/serial names those that have one";
	else if (rc == -EINVAL)
		why = "it is not a serial line; name one, such as ttyS1";
	pr_err("tty=%s: %s (%d)\n", name, why, rc);
	return rc;
}

static int tty_line_open(const char *name, struct tty_struct **ret)
{
	struct tty_struct *tty;
	dev_t dev;
	int rc;

	rc = line_exists(name) ? tty_dev_name_to_number(name, &dev) : -ENODEV;
	if (rc)
		return line_refuse(name, rc);
	tty = hypermem_tty_kopen(dev);
	if (IS_ERR(tty))
		return line_refuse(name, PTR_ERR(tty));
	if (!tty_is_line(tty))
		rc = -EINVAL;
	else
		rc = tty->ops->open ? tty->ops->open(tty, NULL) : -ENODEV;
	if (rc) {
		tty_unlock(tty);
		tty_kclose(tty);
		return line_refuse(name, rc);
	}
	clear_bit(TTY_HUPPED, &tty->flags);
	tty_unlock(tty);
	if (test_bit(TTY_IO_ERROR, &tty->flags)) {
		tty_line_close(tty);
		return line_refuse(name, -ENXIO);
	}
	tty_set_raw(tty);
	*ret = tty;
	return 0;
}

int hypermem_tty_register(void)
{
	struct hypermem_tty *ht;
	int rc;

	if (!line_name || !*line_name)
		return 0;
#ifndef MODULE
	wait_for_device_probe();	/* the UART may be waiting for its clock, say */
#endif
	ht = kzalloc(sizeof(*ht), GFP_KERNEL);
	if (!ht)
		return -ENOMEM;
	mutex_init(&ht->rx_lock);
	init_waitqueue_head(&ht->tx_wait);
	rc = hypermem_link_init(&ht->link, line_name, DATA_MAX, &hypermem_tty_ops);
	if (rc)
		goto free;
	rc = hypermem_register_ldisc(&hypermem_ldisc);
	if (rc)
		goto deinit;
	rc = tty_line_open(line_name, &ht->tty);
	if (rc)
		goto unregister;
	the_tty = ht;
	rc = tty_set_ldisc(ht->tty, HYPERMEM_LDISC_NUMBER);
	if (rc) {
		pr_err("tty=%s: the line discipline cannot be set (%d)\n", line_name, rc);
		goto close;
	}
	pr_info("serving serial line %s\n", line_name);
	if (line_is_console(line_name))
		pr_warn("tty=%s: the kernel's console is on this line, too: each of its messages may cost a request; better give the guest another serial line\n",
			line_name);
	hypermem_link_invite(&ht->link);
	return 0;

close:
	the_tty = NULL;
	tty_line_close(ht->tty);
unregister:
	hypermem_unregister_ldisc(&hypermem_ldisc);
deinit:
	hypermem_link_deinit(&ht->link);
free:
	kfree(ht);
	return rc;
}

/* Nothing comes in any more, nothing goes out, then the line goes. */
void hypermem_tty_unregister(void)
{
	struct hypermem_tty *ht = the_tty;

	if (!ht)
		return;
	tty_stop(ht);
	mutex_lock(&ht->rx_lock);
	mutex_unlock(&ht->rx_lock);
	hypermem_link_deinit(&ht->link);
	tty_line_close(ht->tty);
	the_tty = NULL;
	hypermem_unregister_ldisc(&hypermem_ldisc);
	kfree(ht);
}
