// SPDX-License-Identifier: MIT
/*
 * fuzz_wire: a guest that sends anything at all.
 *
 * The input goes to each decoder of bridge/wire.c, and then through a socket to a
 * client whose HELLO has been answered properly: each request of its gets the next
 * piece of the input, with or without a header that fits the request.  Nothing is
 * checked but that the host survives, and that what it hands out is within bounds.
 *
 * With libFuzzer it is a fuzz target (fuzz_main.c is left out); otherwise fuzz_main.c
 * feeds it inputs of its own.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bridge/client.h"
#include "bridge/hook_client.h"
#include "bridge/hooks.h"
#include "bridge/trace.h"
#include "tests/fuzz/fuzz_wire.h"

#define TIMEOUT_MS 5000		/* of HELLO, on a busy machine */
#define SILENCE_MS 3		/* then the host waits for what will not come */
#define PIECE_MAX 600

/* Whom the client connects to, as long as the process lives. */
struct fuzz_guest {
	char *dir, *path;
	int listener;
};

/* Input, taken from the front. */
struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t input_byte(struct input *input)
{
	if (!input->size)
		return 0;
	input->size--;
	return *input->data++;
}

static const uint8_t *input_take(struct input *input, size_t size, size_t *ret)
{
	const uint8_t *data = input->data;

	*ret = MIN(size, input->size);
	input->data += *ret;
	input->size -= *ret;
	return data;
}

/* -- decoders ------------------------------------------------------------------------ */

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void fuzz_text(const char *text, size_t size)
{
	check(strnlen(text, size) < size);
	for (; *text; text++)
		check(g_ascii_isprint(*text));
}

static void fuzz_hold(const uint8_t *data, size_t size)
{
	g_autofree struct hm_hold *hold = g_new(struct hm_hold, 1);
	uint64_t sum = 0;

	if (hm_hold_decode(data, size, 4096, hold) != 0)
		return;
	check(hold->n_runs >= 1 && hold->n_runs <= HYPERMEM_TRANSLATE_PAGES);
	check(hold->generation && hold->mm_size <= sizeof(hold->mm));
	for (uint32_t i = 0; i < hold->n_runs; i++) {
		check(hold->runs[i].addr + (hold->runs[i].size - 1) >= hold->runs[i].addr);
		sum += hold->runs[i].size;
	}
	check(sum == hold->size && sum <= HYPERMEM_TRANSLATE_PAGES * 4096ULL);
}

/* A register's name, and a call's, are words of a shell without quotes. */
static void check_word(const char *word, size_t size)
{
	check(*word && strnlen(word, size) < size);
	for (; *word; word++)
		check(g_ascii_isalnum(*word) || *word == '_');
}

static void fuzz_events(const uint8_t *data, size_t size)
{
	struct hm_hook_counts counts;
	struct hm_event *event;
	size_t used;

	hm_hook_counts_decode(data, size, &counts);
	for (; hm_event_decode(data, size, &event, &used) == 0; data += used, size -= used) {
		check(used && used <= size && event->id && event->n_regs <= HYPER_REGS_MAX);
		check(event->pid > 0 && event->pid < HYPERMEM_PID_MAX);
		check(strnlen(event->comm, sizeof(event->comm)) < sizeof(event->comm));
		check_word(event->call, sizeof(event->call));
		for (uint16_t i = 0; i < event->n_regs; i++) {
			check_word(event->regs[i].name, sizeof(event->regs[i].name));
			check(g_ascii_islower(event->regs[i].name[0]));
		}
		g_free(event);
	}
}

static void fuzz_records(const uint8_t *data, size_t size)
{
	struct hm_guest guest;
	struct hm_proc proc;
	struct hm_map map;
	struct hm_ram ram;
	struct hm_fd fd;

	if (hm_hello_reply_decode(data, size, &guest) == 0) {
		check(guest.max_data >= HYPERMEM_CHUNK_SIZE &&
		      guest.max_data <= HYPERMEM_DATA_MAX);
		check(guest.max_inflight && guest.epoch && !(guest.allowed & ~guest.ops));
		fuzz_text(guest.release, sizeof(guest.release));
		fuzz_text(guest.machine, sizeof(guest.machine));
		fuzz_text(guest.module, sizeof(guest.module));
	}
	if (hm_proc_decode(data, MIN(size, sizeof(struct hypermem_proc)), &proc) == 0) {
		check(proc.pid > 0 && proc.pid < HYPERMEM_PID_MAX && proc.stamp);
		check(strnlen(proc.comm, sizeof(proc.comm)) < sizeof(proc.comm));
	}
	if (hm_fd_decode(data, MIN(size, sizeof(struct hypermem_fd)), &fd) == 0)
		check(fd.fd <= INT32_MAX);
	if (hm_map_decode(data, MIN(size, sizeof(struct hypermem_map)), &map) == 0)
		check(map.start < map.end);
	if (hm_ram_decode(data, MIN(size, sizeof(struct hypermem_ram)), &ram) == 0)
		check(ram.start <= ram.proof && ram.proof < ram.end);
	fuzz_hold(data, size);
	fuzz_events(data, size);
}

static void fuzz_headers(const uint8_t *data, size_t size)
{
	struct hm_header reply, request = { .op = HYPER_OP_READ, .size = 100 };

	for (; size >= HYPERMEM_HEADER_SIZE; data++, size--) {
		uint8_t again[HYPERMEM_HEADER_SIZE];
		g_autofree char *line = NULL;

		hm_header_decode(data, &reply);
		hm_header_encode(&reply, again);
		check(memcmp(again, data, sizeof(again)) == 0);
		line = hm_header_to_string(&reply, false);
		fuzz_text(line, strlen(line) + 1);
		request.op = reply.pid % (2 * HYPER_OP_MAX);
		request.pid = reply.pid;
		request.stamp = reply.stamp;
		if (!hm_header_check(&reply, HYPERMEM_DATA_MAX) &&
		    !hm_reply_check(&request, request.size, &reply))
			check(reply.size <= request.size);
		check(hm_errno_decode(reply.addr) < 0);
	}
}

/* -- the guest's end ---------------------------------------------------------------------- */

static bool wait_for_request(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, SILENCE_MS) > 0;
}

static bool receive_all(int fd, void *buf, size_t size)
{
	/* Of a stream, recv() of nothing waits all the same. */
	return size == 0 || recv(fd, buf, size, MSG_WAITALL) == (ssize_t)size;
}

static bool send_all(int fd, const void *buf, size_t size)
{
	return send(fd, buf, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool answer_hello(int fd, const struct hm_header *request, const uint8_t *data)
{
	struct hypermem_hello_reply hello = {
		.version = GUINT32_TO_LE(HYPERMEM_VERSION),
		.epoch = GUINT64_TO_LE(1),
		.ops = GUINT64_TO_LE(UINT64_MAX),
		.allowed = GUINT64_TO_LE(UINT64_MAX),
		.max_data = GUINT32_TO_LE(HYPERMEM_CHUNK_SIZE),
		.max_inflight = GUINT32_TO_LE(4),
		.page_size = GUINT32_TO_LE(4096),
		.word_bits = GUINT32_TO_LE(32),
	};
	struct hm_header reply = *request;
	uint8_t header[HYPERMEM_HEADER_SIZE];
	uint64_t nonce;

	memcpy(&nonce, data + G_STRUCT_OFFSET(struct hypermem_hello, nonce), sizeof(nonce));
	reply.op = HYPER_RESP_READ_OK;
	reply.addr = GUINT64_FROM_LE(nonce);
	reply.size = sizeof(hello);
	hm_header_encode(&reply, header);
	return send_all(fd, header, sizeof(header)) && send_all(fd, &hello, sizeof(hello));
}

/* How much of the request a piece's header is made to fit: bits of its first byte. */
enum {
	FIT_HEADER = 0x1,	/* there is one: tag, pid, stamp */
	FIT_ADDR = 0x2,
	FIT_SIZE = 0x4,
	FIT_RESP = 0x8,		/* READ_OK; otherwise the piece says which */
	SILENT = 0xf0,		/* all of them: no answer */
};

static bool answer_piece(int fd, const struct hm_header *request, struct input *input)
{
	uint8_t fit = input_byte(input), resp = input_byte(input), low = input_byte(input);
	size_t want = (size_t)(input_byte(input) << 8 | low) % PIECE_MAX, size;
	const uint8_t *data = input_take(input, want, &size);
	struct hm_header reply = *request;
	uint8_t header[HYPERMEM_HEADER_SIZE];

	if ((fit & SILENT) == SILENT)
		return true;
	if (!(fit & FIT_HEADER))
		return send_all(fd, data, size);
	reply.op = fit & FIT_RESP ? HYPER_RESP_READ_OK :
				    0xf0000000 | (resp & 0x7) | (resp & 0x8 ? HYPER_DATA : 0);
	if (!(fit & FIT_ADDR))
		reply.addr = resp;
	reply.size = fit & FIT_SIZE ? (uint32_t)size : low;
	hm_header_encode(&reply, header);
	return send_all(fd, header, sizeof(header)) && send_all(fd, data, size);
}

struct guest_run {
	int listener;
	struct input input;
	gint stop;	/* atomic */
};

static void guest_serve(struct guest_run *run, int fd)
{
	uint8_t header[HYPERMEM_HEADER_SIZE], data[HYPERMEM_CHUNK_SIZE];
	struct hm_header request;
	bool ok = true;

	while (ok && receive_all(fd, header, sizeof(header))) {
		hm_header_decode(header, &request);
		/* What the host sends is in order whatever the guest does. */
		check(hm_header_data_size(&request) <= sizeof(data) && hm_op_name(request.op));
		if (!receive_all(fd, data, hm_header_data_size(&request)))
			break;
		if (request.op == HYPER_OP_HELLO)
			ok = answer_hello(fd, &request, data);
		else
			ok = run->input.size && answer_piece(fd, &request, &run->input) &&
			     wait_for_request(fd);
	}
}

static gpointer guest_thread(gpointer arg)
{
	struct guest_run *run = arg;

	while (!g_atomic_int_get(&run->stop)) {
		int fd = accept(run->listener, NULL, NULL);

		if (fd < 0)
			break;
		if (!g_atomic_int_get(&run->stop))
			guest_serve(run, fd);
		close(fd);
	}
	return NULL;
}

/* -- the host's end -------------------------------------------------------------------------- */

/* A hook that is set, asked about, and gone; its thread waits for events all the while. */
static void fuzz_hook(struct hm_hooks *hooks)
{
	struct hm_filter filter = { .flags = HYPER_HOOK_ENTER, .names_size = 2, .names = "x" };
	const struct hm_verdict verdict = { .flags = HYPER_VERDICT_SKIP };
	struct hm_event *event = NULL;
	struct hm_hook_counts stats;
	struct hm_hook *hook;

	if (hm_hook_new(hooks, &hook) != 0)
		return;
	if (hm_hook_attend(hook, NULL, NULL) == 0) {
		hm_hook_set_filter(hook, &filter);
		if (hm_hook_next(hook, &event) == 0)
			hm_hook_reply(hook, event->id, &verdict, event->flags & HYPER_EVENT_RETURN);
		g_free(event);
		hm_hook_stats(hook, &stats);
		hm_hook_leave(hook);
	}
	hm_hook_remove(hook);
	hm_hook_free(hook);
}

static void fuzz_call(struct hm_client *client, uint8_t which)
{
	struct hm_who who = { .pid = 42, .stamp = 7 };
	g_autoptr(GByteArray) text = g_byte_array_new();
	g_autoptr(GArray) array = NULL;
	char buf[3 * HYPERMEM_CHUNK_SIZE];
	size_t size = which & 0x80 ? sizeof(buf) : 64;
	uint64_t cursor = 0, epoch;
	struct hm_proc proc;
	struct hm_fd fd;
	ssize_t n = 0;
	bool ended;

	switch (which % 13) {
	case 0:
		n = hm_client_read(client, who, 0x1000, buf, size);
		break;
	case 1:
		n = hm_client_write(client, who, 0x1000, memset(buf, 0, size), size);
		break;
	case 2:
		n = hm_client_read_str(client, who, 0x1000, buf, size);
		check(n < 0 || strnlen(buf, size) == (size_t)n);
		break;
	case 3:
		n = hm_client_read_procargs(client, who, 0, buf, size, &ended);
		break;
	case 4:
		n = hm_client_read_procenv(client, who, 0, buf, size, &ended);
		break;
	case 5:
		n = hm_client_read_fd_name(client, who, 3, buf, size);
		check(n < 0 || strnlen(buf, size) == (size_t)n);
		break;
	case 6:
		n = hm_client_read_link(client, who, HYPER_LINK_EXE, buf, size);
		check(n < 0 || strnlen(buf, size) == (size_t)n);
		break;
	case 7:
		hm_client_read_proc_file(client, who, "maps", &cursor, text);
		break;
	case 8:
		hm_client_read_proc(client, 42, &proc, &epoch);
		break;
	case 9:
		hm_client_list_procs(client, &array, &epoch);
		break;
	case 10:
		hm_client_list_fds(client, who, &array);
		hm_client_read_fd(client, who, 3, &fd);
		break;
	case 11:
		hm_client_list_maps(client, who, 0, &array);
		break;
	case 12:
		check(hm_client_read_number(client, who, 0x1000, which & 0x80 ? 8 : 4, &cursor) <= 0);
		check(hm_client_write_number(client, who, 0x1000, 4, cursor) <= 0);
		break;
	}
	check(n <= (ssize_t)size);
	if (array)
		g_array_unref(g_steal_pointer(&array));
}

static struct fuzz_guest *fuzz_guest_get(void)
{
	static struct fuzz_guest guest = { .listener = -1 };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (guest.listener >= 0)
		return &guest;
	guest.dir = g_dir_make_tmp("hypermem-fuzz-XXXXXX", NULL);
	guest.path = g_build_filename(guest.dir, "chardev", NULL);
	g_strlcpy(addr.sun_path, guest.path, sizeof(addr.sun_path));
	guest.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(bind(guest.listener, (const struct sockaddr *)&addr, sizeof(addr)) == 0);
	check(listen(guest.listener, 8) == 0);
	return &guest;
}

/* The listener outlives the run: a connection wakes a thread that waits for one. */
static void guest_wake(const struct fuzz_guest *guest)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	g_strlcpy(addr.sun_path, guest->path, sizeof(addr.sun_path));
	check(connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0);
	close(fd);
}

static void fuzz_client(const uint8_t *data, size_t size)
{
	struct fuzz_guest *guest = fuzz_guest_get();
	struct hm_client_config config = { .address = guest->path, .timeout_ms = TIMEOUT_MS };
	struct guest_run run = { .listener = guest->listener, .input = { data, size } };
	uint8_t calls[3] = { input_byte(&run.input), input_byte(&run.input),
			     input_byte(&run.input) };
	GThread *thread = g_thread_new("guest", guest_thread, &run);
	struct hm_client *client;
	struct hm_refusal refusal;
	struct hm_hooks *hooks;

	if (hm_client_open(&config, &refusal, &client) == 0) {
		check(hm_client_start(client) == 0);
		hooks = hm_hooks_new(client);
		for (size_t i = 0; i < sizeof(calls); i++)
			if (calls[i] % 13 == 12)
				fuzz_hook(hooks);
			else
				fuzz_call(client, calls[i]);
		hm_client_stop(client);
		hm_hooks_free(hooks);
		hm_client_close(client);
	}
	g_atomic_int_set(&run.stop, 1);
	guest_wake(guest);
	g_thread_join(thread);
}

static void ignore(const char *domain, GLogLevelFlags level, const char *message, gpointer data)
{
}

void fuzz_wire_deinit(void)
{
	struct fuzz_guest *guest = fuzz_guest_get();

	close(guest->listener);
	g_unlink(guest->path);
	g_rmdir(guest->dir);
	g_free(guest->path);
	g_free(guest->dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	g_log_set_default_handler(ignore, NULL);
	fuzz_headers(data, size);
	fuzz_records(data, size);
	fuzz_words(data, size);
	fuzz_client(data, size);
	return 0;
}
