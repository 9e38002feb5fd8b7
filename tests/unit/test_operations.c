// SPDX-License-Identifier: MIT
/*
 * operations: each against the host's own /proc, which the fake guest answers from.
 *
 * The process that is looked at sleeps and so does not change.  What is expected is
 * read from the kernel in the test itself; no files with expected output.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bridge/client.h"
#include "tests/fake_guest.h"

#define TIMEOUT_MS 20000
#define PAGES 600	/* of the sleeper's memory: more than one frame holds, either size */
#define FDS 1200	/* that it has open: as many */
#define TEXT "a string of the sleeper"

struct world {
	struct fake_guest *fake;
	char *dir, *path;
	int listener;
	GThread *thread;
	struct hm_client *client;

	pid_t sleeper;
	size_t page;
	uint8_t *memory;	/* PAGES pages, then one that is not mapped; the same in both */
	struct hm_who who;
};

/* -- the process ---------------------------------------------------- */

/* Sleeps until it is killed, with FDS descriptors open. */
static void sleeper_run(int ready)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "a (sl) eeper");
	for (int fd = 100; fd < 100 + FDS; fd++)
		if (dup2(STDERR_FILENO, fd) < 0)
			_exit(1);
	if (write(ready, "x", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void sleeper_start(struct world *world)
{
	int ready[2];
	char byte;

	world->page = (size_t)sysconf(_SC_PAGESIZE);
	world->memory = mmap(NULL, (PAGES + 1) * world->page, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < PAGES * world->page; i++)
		world->memory[i] = (uint8_t)(i * 7 + i / world->page);
	strcpy((char *)world->memory, TEXT);
	memset(world->memory + 100, 'x', 3 * world->page);
	munmap(world->memory + PAGES * world->page, world->page);
	if (pipe2(ready, O_CLOEXEC))
		g_error("pipe");
	world->sleeper = fork();
	if (world->sleeper == 0)
		sleeper_run(ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		g_error("no sleeper");
	close(ready[0]);
}

static gpointer guest_thread(gpointer arg)
{
	struct world *world = arg;
	int fd;

	while ((fd = accept4(world->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		fake_guest_serve(world->fake, fd);
	return NULL;
}

static void guest_start(struct world *world, uint32_t max_data)
{
	struct fake_guest_config config = { .max_data = max_data };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	world->fake = fake_guest_new(&config);
	world->dir = g_dir_make_tmp("hypermem-XXXXXX", NULL);
	world->path = g_build_filename(world->dir, "chardev", NULL);
	g_strlcpy(addr.sun_path, world->path, sizeof(addr.sun_path));
	world->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(world->listener, (const struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(world->listener, 1))
		g_error("%s", world->path);
	world->thread = g_thread_new("guest", guest_thread, world);
}

/* The fork comes before there is any thread. */
static int start(void **state, uint32_t max_data)
{
	struct world *world = g_new0(struct world, 1);
	struct hm_client_config config = { .timeout_ms = TIMEOUT_MS };
	struct hm_proc proc;
	struct hm_refusal refusal;

	*state = world;
	sleeper_start(world);
	guest_start(world, max_data);
	config.address = world->path;
	if (hm_client_open(&config, &refusal, &world->client) || hm_client_start(world->client))
		return -1;
	if (hm_client_read_proc(world->client, (uint32_t)world->sleeper, &proc, &world->who.epoch))
		return -1;
	world->who.pid = (uint32_t)world->sleeper;
	world->who.stamp = proc.stamp;
	return 0;
}

/* Of the smallest frames, so that everything takes many, and of the largest. */
static int start_small(void **state)
{
	return start(state, HYPERMEM_CHUNK_SIZE);
}

static int start_large(void **state)
{
	return start(state, HYPERMEM_DATA_MAX);
}

static int stop(void **state)
{
	struct world *world = *state;

	hm_client_close(world->client);
	shutdown(world->listener, SHUT_RDWR);
	g_thread_join(world->thread);
	close(world->listener);
	fake_guest_free(world->fake);
	g_unlink(world->path);
	g_rmdir(world->dir);
	kill(world->sleeper, SIGKILL);
	waitpid(world->sleeper, NULL, 0);
	munmap(world->memory, PAGES * world->page);
	g_free(world->path);
	g_free(world->dir);
	g_free(world);
	return 0;
}

/* -- what the kernel says ---------------------------------------------------- */

static char *proc_path(const struct world *world, const char *name)
{
	return g_strdup_printf("/proc/%d/%s", world->sleeper, name);
}

static GByteArray *proc_read(const struct world *world, const char *name)
{
	g_autofree char *path = proc_path(world, name);
	char *text;
	gsize n;

	if (!g_file_get_contents(path, &text, &n, NULL))
		g_error("%s", path);
	return g_byte_array_new_take((guint8 *)text, n);
}

static char *proc_readlink(const struct world *world, const char *name)
{
	g_autofree char *path = proc_path(world, name);

	return g_file_read_link(path, NULL);
}

static uint64_t addr_of(const struct world *world, size_t offset)
{
	return (uint64_t)(uintptr_t)world->memory + offset;
}

/* -- memory ---------------------------------------------------- */

static void memory_is_what_the_process_has(void **state)
{
	struct world *world = *state;
	size_t size = PAGES * world->page;
	g_autofree uint8_t *buf = g_malloc(size + world->page);

	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, 0), buf, size),
			 size);
	assert_memory_equal(buf, world->memory, size);
	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, 4071), buf, 2),
			 2);
	assert_memory_equal(buf, world->memory + 4071, 2);
}

static void a_read_across_an_unmapped_page_is_short(void **state)
{
	struct world *world = *state;
	size_t size = PAGES * world->page;
	g_autofree uint8_t *buf = g_malloc(size);

	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, size - 100), buf,
					200), 100);
	assert_memory_equal(buf, world->memory + size - 100, 100);
	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, 50000), buf,
					size), size - 50000);
	assert_memory_equal(buf, world->memory + 50000, size - 50000);
	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, size), buf, 1),
			 -EIO);
	assert_int_equal(hm_client_read(world->client, world->who, 0, buf, size), -EIO);
	/* The kernel's half, and where no address is. */
	assert_int_equal(hm_client_read(world->client, world->who, 0xffff800000000000, buf, 100),
			 -EIO);
}

/* What the kernel, not the guest, says is in the process now. */
static void check_memory(const struct world *world, size_t offset, const void *expected,
			 size_t size)
{
	g_autofree char *path = proc_path(world, "mem");
	g_autofree uint8_t *buf = g_malloc(size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(pread(fd, buf, size, (off_t)addr_of(world, offset)), size);
	close(fd);
	assert_memory_equal(buf, expected, size);
}

static void a_write_is_in_the_process(void **state)
{
	struct world *world = *state;
	size_t size = 100 * world->page, end = PAGES * world->page;
	g_autofree uint8_t *buf = g_malloc(size);

	for (size_t i = 0; i < size; i++)
		buf[i] = (uint8_t)(i * 13);
	assert_int_equal(hm_client_write(world->client, world->who,
					 addr_of(world, 200 * world->page + 3), buf, size), size);
	check_memory(world, 200 * world->page + 3, buf, size);
	/* Up to where the memory ends. */
	assert_int_equal(hm_client_write(world->client, world->who, addr_of(world, end - 9), buf,
					 100), 9);
	check_memory(world, end - 9, buf, 9);
	assert_int_equal(hm_client_write(world->client, world->who, addr_of(world, end), buf, 1),
			 -EIO);
}

static void a_string_is_what_stands_before_its_nul(void **state)
{
	struct world *world = *state;
	size_t last = PAGES * world->page - 1;
	char buf[256];

	assert_int_equal(hm_client_read_str(world->client, world->who, addr_of(world, 0), buf,
					    sizeof(buf)), strlen(TEXT));
	assert_string_equal(buf, TEXT);
	/* Just room enough, and not. */
	assert_int_equal(hm_client_read_str(world->client, world->who, addr_of(world, 0), buf,
					    sizeof(TEXT)), strlen(TEXT));
	assert_int_equal(hm_client_read_str(world->client, world->who, addr_of(world, 0), buf,
					    strlen(TEXT)), -E2BIG);
	/* It meets the unmapped page. */
	assert_int_equal(hm_client_write(world->client, world->who, addr_of(world, last), "y", 1),
			 1);
	assert_int_equal(hm_client_read_str(world->client, world->who, addr_of(world, last), buf,
					    sizeof(buf)), -EIO);
	assert_int_equal(hm_client_read_str(world->client, world->who, 0, buf, sizeof(buf)), -EIO);
}

static void a_string_longer_than_a_frame_is_whole(void **state)
{
	struct world *world = *state;
	size_t size = 4 * world->page;
	g_autofree char *buf = g_malloc(size);

	assert_int_equal(hm_client_write(world->client, world->who,
					 addr_of(world, 100 + 3 * world->page), "", 1), 1);
	assert_int_equal(hm_client_read_str(world->client, world->who, addr_of(world, 100), buf,
					    size), 3 * world->page);
	assert_memory_equal(buf, world->memory + 100, 3 * world->page);
}

/* -- arguments, links, texts ---------------------------------------------------- */

typedef ssize_t (*read_fn)(struct hm_client *client, struct hm_who who, uint64_t offset, void *buf,
			   size_t size, bool *ret_ended);

static void check_area(struct world *world, const char *name, read_fn read_area)
{
	g_autoptr(GByteArray) expected = proc_read(world, name);
	g_autofree uint8_t *buf = g_malloc(expected->len + 1000);
	guint half = expected->len / 2;
	bool ended;

	assert_true(expected->len > 0);
	assert_int_equal(read_area(world->client, world->who, 0, buf, half, &ended), half);
	assert_false(ended);
	assert_int_equal(read_area(world->client, world->who, 0, buf, expected->len + 1000,
				   &ended), expected->len);
	assert_true(ended);
	assert_memory_equal(buf, expected->data, expected->len);
	assert_int_equal(read_area(world->client, world->who, half, buf, 1000000, &ended),
			 expected->len - half);
	assert_memory_equal(buf, expected->data + half, expected->len - half);
	assert_int_equal(read_area(world->client, world->who, expected->len, buf, 10, &ended), 0);
	assert_int_equal(read_area(world->client, world->who, UINT32_MAX, buf, 10, &ended), 0);
}

static void arguments_and_environment_are_those_of_proc(void **state)
{
	check_area(*state, "cmdline", hm_client_read_procargs);
	check_area(*state, "environ", hm_client_read_procenv);
}

static void links_are_those_of_proc(void **state)
{
	static const char *const names[] = { "exe", "cwd", "root" };
	struct world *world = *state;
	char buf[4096];

	for (int i = 0; i < HYPER_LINK_MAX; i++) {
		g_autofree char *expected = proc_readlink(world, names[i]);

		assert_int_equal(hm_client_read_link(world->client, world->who, i, buf,
						     sizeof(buf)), strlen(expected));
		assert_string_equal(buf, expected);
	}
	/* "/" fits two bytes, not one. */
	assert_int_equal(hm_client_read_link(world->client, world->who, HYPER_LINK_EXE, buf, 2),
			 -ENAMETOOLONG);
	assert_int_equal(hm_client_read_link(world->client, world->who, HYPER_LINK_EXE, buf, 0),
			 -ENAMETOOLONG);
}

static void a_descriptor_has_its_name(void **state)
{
	struct world *world = *state;
	g_autofree char *expected = proc_readlink(world, "fd/100");
	char buf[4096];

	assert_int_equal(hm_client_read_fd_name(world->client, world->who, 100, buf, sizeof(buf)),
			 strlen(expected));
	assert_string_equal(buf, expected);
	assert_int_equal(hm_client_read_fd_name(world->client, world->who, 99999, buf,
						sizeof(buf)), -ENOENT);
}

static void check_text(struct world *world, const char *name)
{
	g_autoptr(GByteArray) expected = proc_read(world, name);
	g_autoptr(GByteArray) text = g_byte_array_new();
	uint64_t cursor = 0;

	do {
		assert_int_equal(hm_client_read_proc_file(world->client, world->who, name, &cursor,
							  text), 0);
	} while (cursor);
	assert_int_equal(text->len, expected->len);
	assert_memory_equal(text->data, expected->data, expected->len);
}

static void texts_are_those_of_proc(void **state)
{
	check_text(*state, "maps");
	check_text(*state, "comm");
	check_text(*state, "limits");
	check_text(*state, "statm");
}

static void a_text_that_is_not_there_is_enoent(void **state)
{
	struct world *world = *state;
	g_autoptr(GByteArray) text = g_byte_array_new();
	uint64_t cursor = 0;

	assert_int_equal(hm_client_read_proc_file(world->client, world->who, "nonsense", &cursor,
						  text), -ENOENT);
	assert_int_equal(text->len, 0);
}

/* -- lists ---------------------------------------------------- */

static void check_process(const struct world *world, const struct hm_proc *proc)
{
	assert_int_equal(proc->pid, world->sleeper);
	assert_int_equal(proc->ppid, getpid());
	assert_int_equal(proc->uid, geteuid());
	assert_int_equal(proc->gid, getegid());
	assert_int_equal(proc->stamp, world->who.stamp);
	assert_int_equal(proc->state, 'S');
	assert_int_equal(proc->flags & (HYPER_PROC_KTHREAD | HYPER_PROC_MM), HYPER_PROC_MM);
	assert_int_equal(proc->threads, 1);
	assert_string_equal(proc->comm, "a (sl) eeper");
}

static void a_process_is_the_one_of_proc(void **state)
{
	struct world *world = *state;
	struct hm_guest guest;
	struct hm_proc proc;
	uint64_t epoch;

	assert_int_equal(hm_client_read_proc(world->client, world->who.pid, &proc, &epoch), 0);
	check_process(world, &proc);
	assert_int_equal(hm_client_guest(world->client, &guest), 0);
	assert_int_equal(epoch, guest.epoch);
	assert_int_equal(hm_client_read_proc(world->client, HYPERMEM_PID_MAX - 1, &proc, &epoch),
			 -ESRCH);
}

static void all_processes_are_listed_once_each(void **state)
{
	struct world *world = *state;
	g_autoptr(GArray) procs = NULL;
	uint64_t epoch;
	int found = 0;

	assert_int_equal(hm_client_list_procs(world->client, &procs, &epoch), 0);
	assert_int_equal(epoch, world->who.epoch);
	for (guint i = 0; i < procs->len; i++) {
		const struct hm_proc *proc = &g_array_index(procs, struct hm_proc, i);

		assert_true(i == 0 || proc[-1].pid < proc->pid);
		if (proc->pid == world->who.pid) {
			check_process(world, proc);
			found++;
		}
	}
	assert_int_equal(found, 1);
}

static void some_processes_are_listed_from_one_on(void **state)
{
	struct world *world = *state;
	g_autoptr(GArray) procs = NULL;
	const struct hm_proc *first;
	uint64_t epoch;

	assert_int_equal(hm_client_list_procs_at(world->client, world->who.pid, &procs, &epoch), 0);
	assert_int_equal(epoch, world->who.epoch);
	assert_in_range(procs->len, 1, 1000);
	first = &g_array_index(procs, struct hm_proc, 0);
	assert_int_equal(first->pid, world->who.pid);
	check_process(world, first);
	for (guint i = 1; i < procs->len; i++)
		assert_true(first[i - 1].pid < first[i].pid);
}

static void all_descriptors_are_listed(void **state)
{
	struct world *world = *state;
	g_autofree char *path = proc_path(world, "fd");
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	g_autoptr(GArray) fds = NULL;
	guint expected = 0;
	struct hm_fd one;

	while (g_dir_read_name(dir))
		expected++;
	assert_true(expected >= FDS);
	assert_int_equal(hm_client_list_fds(world->client, world->who, &fds), 0);
	assert_int_equal(fds->len, expected);
	for (guint i = 0; i < fds->len; i++) {
		const struct hm_fd *fd = &g_array_index(fds, struct hm_fd, i);
		g_autofree char *name = g_strdup_printf("%s/%u", path, fd->fd);
		struct stat st;

		assert_return_code(lstat(name, &st), errno);
		assert_int_equal(fd->mode, st.st_mode);
	}
	assert_int_equal(hm_client_read_fd(world->client, world->who, 100, &one), 0);
	assert_int_equal(one.fd, 100);
	assert_int_equal(hm_client_read_fd(world->client, world->who, 99, &one), -ENOENT);
	assert_int_equal(hm_client_read_fd(world->client, world->who, 100 + FDS, &one), -ENOENT);
}

static void all_mappings_are_listed(void **state)
{
	struct world *world = *state;
	g_autoptr(GByteArray) text = proc_read(world, "maps");
	g_autofree char *string = g_strndup((const char *)text->data, text->len);
	g_auto(GStrv) lines = g_strsplit(string, "\n", -1);
	uint64_t addr = 0;
	guint line = 0;

	for (;;) {
		g_autoptr(GArray) maps = NULL;

		assert_int_equal(hm_client_list_maps(world->client, world->who, addr, &maps), 0);
		if (maps->len == 0)
			break;
		for (guint i = 0; i < maps->len; i++, line++) {
			const struct hm_map *map = &g_array_index(maps, struct hm_map, i);
			g_autofree char *range = g_strdup_printf(
				"%08" PRIx64 "-%08" PRIx64 " %c%c%c%c %08" PRIx64
				" %02x:%02x %" PRIu64 " ",
				map->start, map->end, map->flags & HYPER_MAP_READ ? 'r' : '-',
				map->flags & HYPER_MAP_WRITE ? 'w' : '-',
				map->flags & HYPER_MAP_EXEC ? 'x' : '-',
				map->flags & HYPER_MAP_SHARED ? 's' : 'p', map->offset,
				map->dev_major, map->dev_minor, map->inode);

			assert_non_null(lines[line]);
			assert_true(g_str_has_prefix(lines[line], range));
			addr = map->end;
		}
	}
	/* [vsyscall], which is no mapping of the process, and what is behind the last newline. */
	while (lines[line] && (!*lines[line] || strstr(lines[line], "[vsyscall]")))
		line++;
	assert_null(lines[line]);
}

/* -- who ---------------------------------------------------- */

static void another_process_of_that_pid_is_esrch(void **state)
{
	struct world *world = *state;
	struct hm_who other = world->who;
	uint8_t buf[8];

	other.stamp = other.stamp == 1 ? 2 : other.stamp - 1;
	assert_int_equal(hm_client_read(world->client, other, addr_of(world, 0), buf, 8), -ESRCH);
	assert_int_equal(hm_client_write(world->client, other, addr_of(world, 0), buf, 8),
			 -ESRCH);
	other.stamp = 0;	/* whoever has it */
	assert_int_equal(hm_client_read(world->client, other, addr_of(world, 0), buf, 8), 8);
}

static void a_process_of_another_boot_is_estale(void **state)
{
	struct world *world = *state;
	struct hm_who old = world->who;
	uint8_t buf[8];

	old.epoch ^= 1;
	assert_int_equal(hm_client_read(world->client, old, addr_of(world, 0), buf, 8), -ESTALE);
	assert_int_equal(hm_client_write(world->client, old, addr_of(world, 0), buf, 8), -ESTALE);
}

static void a_zombie_has_no_memory_and_then_is_gone(void **state)
{
	struct world *world = *state;
	siginfo_t info;
	uint8_t buf[8];
	bool ended;

	kill(world->sleeper, SIGKILL);
	assert_return_code(waitid(P_PID, (id_t)world->sleeper, &info, WEXITED | WNOWAIT), errno);
	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, 0), buf, 8), 0);
	assert_int_equal(hm_client_read_procargs(world->client, world->who, 0, buf, 8, &ended), 0);
	waitpid(world->sleeper, NULL, 0);
	assert_int_equal(hm_client_read(world->client, world->who, addr_of(world, 0), buf, 8),
			 -ESRCH);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(memory_is_what_the_process_has),
	cmocka_unit_test(a_read_across_an_unmapped_page_is_short),
	cmocka_unit_test(a_write_is_in_the_process),
	cmocka_unit_test(a_string_is_what_stands_before_its_nul),
	cmocka_unit_test(a_string_longer_than_a_frame_is_whole),
	cmocka_unit_test(arguments_and_environment_are_those_of_proc),
	cmocka_unit_test(links_are_those_of_proc),
	cmocka_unit_test(a_descriptor_has_its_name),
	cmocka_unit_test(texts_are_those_of_proc),
	cmocka_unit_test(a_text_that_is_not_there_is_enoent),
	cmocka_unit_test(a_process_is_the_one_of_proc),
	cmocka_unit_test(all_processes_are_listed_once_each),
	cmocka_unit_test(some_processes_are_listed_from_one_on),
	cmocka_unit_test(all_descriptors_are_listed),
	cmocka_unit_test(all_mappings_are_listed),
	cmocka_unit_test(another_process_of_that_pid_is_esrch),
	cmocka_unit_test(a_process_of_another_boot_is_estale),
	/* The last one: it ends the process. */
	cmocka_unit_test(a_zombie_has_no_memory_and_then_is_gone),
};

int main(void)
{
	int failed = cmocka_run_group_tests_name("smallest frames", tests, start_small, stop);

	return failed + cmocka_run_group_tests_name("largest frames", tests, start_large, stop);
}
