/* SPDX-License-Identifier: MIT */
/*
 * serial: frames on a serial line, where bytes are lost and noise comes in: between
 * flags, with a CRC.  See HYPER_SERIAL_FLAG in guest/uapi/hypermem.h.
 *
 * What is not a whole frame is dropped here, so whoever reads gets whole frames only.
 */
#ifndef HM_SERIAL_H
#define HM_SERIAL_H

#include <glib.h>
#include <sys/uio.h>

#include "bridge/wire.h"

/* Of a frame that a serial link sends. */
#define HM_SERIAL_FRAME_MAX (HYPERMEM_HEADER_SIZE + HYPERMEM_CHUNK_SIZE)

struct hm_serial {
	bool bad;		/* what has come of the frame: it is none */
	bool escaped;
	uint32_t n;
	uint8_t bytes[HM_SERIAL_FRAME_MAX + HYPER_SERIAL_CRC_SIZE];
};

/* As on a line that has just been connected. */
void hm_serial_init(struct hm_serial *serial);

/* The frame that iov holds, as it goes over the line. */
void hm_serial_encode(const struct iovec *iov, size_t n_iov, GByteArray *ret);

/*
 * Take bytes as they came, up to the end of a frame.  Returns how many were taken; *ret_size:
 * the size of the frame that is complete with them, in serial->bytes until the next call,
 * or 0.
 */
size_t hm_serial_decode(struct hm_serial *serial, const uint8_t *bytes, size_t n,
			size_t *ret_size);

#endif
