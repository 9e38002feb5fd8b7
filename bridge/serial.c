// SPDX-License-Identifier: MIT
/*
 * serial: frames on a serial line.  See serial.h.
 */
#include "bridge/serial.h"

#include <string.h>
#include <zlib.h>

void hm_serial_init(struct hm_serial *serial)
{
	serial->bad = true;	/* up to the first flag */
	serial->escaped = false;
	serial->n = 0;
}

static void put(GByteArray *line, uint8_t byte)
{
	uint8_t escaped[] = { HYPER_SERIAL_ESCAPE, byte ^ HYPER_SERIAL_XOR };

	if (HYPER_SERIAL_IS_SPECIAL(byte))
		g_byte_array_append(line, escaped, sizeof(escaped));
	else
		g_byte_array_append(line, &byte, 1);
}

static void crc_put(uint32_t crc, uint8_t bytes[HYPER_SERIAL_CRC_SIZE])
{
	for (size_t i = 0; i < HYPER_SERIAL_CRC_SIZE; i++, crc >>= 8)
		bytes[i] = (uint8_t)crc;
}

void hm_serial_encode(const struct iovec *iov, size_t n_iov, GByteArray *ret)
{
	const uint8_t flag = HYPER_SERIAL_FLAG;
	uint8_t bytes[HYPER_SERIAL_CRC_SIZE];
	uLong crc = crc32(0, NULL, 0);

	g_byte_array_append(ret, &flag, 1);
	for (size_t i = 0; i < n_iov; i++) {
		const uint8_t *part = iov[i].iov_base;

		for (size_t at = 0; at < iov[i].iov_len; at++)
			put(ret, part[at]);
		crc = crc32(crc, part, (uInt)iov[i].iov_len);
	}
	crc_put((uint32_t)crc, bytes);
	for (size_t at = 0; at < sizeof(bytes); at++)
		put(ret, bytes[at]);
	g_byte_array_append(ret, &flag, 1);
}

/* Bytes of the frame that a flag has just ended; 0: it is none. */
static size_t frame_end(const struct hm_serial *serial)
{
	uint8_t crc[HYPER_SERIAL_CRC_SIZE];
	struct hm_header header;
	size_t size;

	if (serial->bad || serial->escaped || serial->n < HYPERMEM_HEADER_SIZE + sizeof(crc))
		return 0;
	size = serial->n - sizeof(crc);
	crc_put((uint32_t)crc32(crc32(0, NULL, 0), serial->bytes, (uInt)size), crc);
	if (memcmp(serial->bytes + size, crc, sizeof(crc)) != 0)
		return 0;
	hm_header_decode(serial->bytes, &header);
	return size == HYPERMEM_HEADER_SIZE + (size_t)hm_header_data_size(&header) ? size : 0;
}

static void take(struct hm_serial *serial, uint8_t byte)
{
	if (byte == HYPER_SERIAL_ESCAPE) {
		serial->escaped = true;
	} else if (serial->n == sizeof(serial->bytes)) {
		serial->bad = true;
	} else {
		serial->bytes[serial->n++] = serial->escaped ? byte ^ HYPER_SERIAL_XOR : byte;
		serial->escaped = false;
	}
}

size_t hm_serial_decode(struct hm_serial *serial, const uint8_t *bytes, size_t n,
			size_t *ret_size)
{
	size_t done = 0;

	*ret_size = 0;
	while (done < n && !*ret_size) {
		uint8_t byte = bytes[done++];

		if (byte != HYPER_SERIAL_FLAG) {
			take(serial, byte);
			continue;
		}
		*ret_size = frame_end(serial);
		hm_serial_init(serial);
		serial->bad = false;
	}
	return done;
}
