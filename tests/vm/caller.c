/* SPDX-License-Identifier: MIT */
/*
 * caller: makes system calls to order, for tests of hooks.  The first argument says which;
 * what comes of them is printed in lines of `key=value` words.  `result` is what the kernel has
 * returned: an error is its negative number.  Descriptors that calls are made on are FD and
 * above, so that a filter can tell them from a libc's.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FD 77
#define SPARE 4096

static char spare[SPARE];	/* for whoever changes pointers */

static void die(const char *what)
{
	fprintf(stderr, "caller: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long made(long result)
{
	return result == -1 ? -errno : result;
}

static void say(long result)
{
	printf("result=%ld\n", result);
}

static unsigned long number(const char *text)
{
	return text ? strtoull(text, NULL, 0) : 0;
}

/* A pipe with its ends at FD and FD + 1. */
static void pipe_open(void)
{
	int fds[2];

	if (pipe(fds) || dup2(fds[0], FD) < 0 || dup2(fds[1], FD + 1) < 0)
		die("pipe");
	close(fds[0]);
	close(fds[1]);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* raw NAME ARG...: a call as it is. */
static void do_raw(char **args)
{
	static const struct {
		const char *name;
		long nr;
	} calls[] = {
		{ "getppid", SYS_getppid }, { "ioctl", SYS_ioctl }, { "close", SYS_close },
		{ "setpgid", SYS_setpgid }, { "exit", SYS_exit }, { "exit_group", SYS_exit_group },
	};
	unsigned long a[6] = { 0 };

	for (unsigned int i = 0; i < 6 && args[1 + i]; i++)
		a[i] = number(args[1 + i]);
	for (unsigned int i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (!strcmp(calls[i].name, args[0]))
			say(made(syscall(calls[i].nr, a[0], a[1], a[2], a[3], a[4], a[5])));
}

/* getppid N: so many times, a line each. */
static void do_getppid(char **args)
{
	for (unsigned long n = number(args[0]); n; n--)
		say(made(syscall(SYS_getppid)));
}

/* burst N: the same, and a line at the end. */
static void do_burst(char **args)
{
	unsigned long n = number(args[0]), wrong = 0;
	long parent = getppid();

	for (unsigned long i = 0; i < n; i++)
		wrong += syscall(SYS_getppid) != parent;
	printf("done=%lu wrong=%lu\n", n, wrong);
}

static unsigned long stack_start(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[stack]"))
			start = strtoul(line, NULL, 16);
	if (!start)
		die("maps");
	fclose(maps);
	return start;
}

/* below: getppid() with an argument, which it has none, some pages below the stack. */
static void do_below(char **args)
{
	unsigned long start = stack_start();

	syscall(SYS_getppid, start - 8192);
	printf("grown=%lu\n", start - stack_start());
}

static volatile sig_atomic_t stopped;

static void stop(int sig)
{
	stopped = 1;
}

/* load: calls of many kinds until SIGTERM; each result must be right. */
static void do_load(char **args)
{
	unsigned long calls = 0, wrong = 0;
	long parent = getppid(), own = getpid();
	char bytes[8];

	signal(SIGTERM, stop);
	pipe_open();
	puts("ready=1");
	for (; !stopped; calls++) {
		wrong += syscall(SYS_getppid) != parent;
		wrong += syscall(SYS_getpid) != own;
		wrong += write(FD + 1, "12345678", 8) != 8;
		wrong += read(FD, bytes, 8) != 8 || memcmp(bytes, "12345678", 8);
		wrong += made(syscall(SYS_ioctl, -1, 0x89f1, 0)) != -EBADF;
		wrong += made(syscall(SYS_openat, AT_FDCWD, "/nowhere", O_RDONLY, 0)) != -ENOENT;
		if (calls % 64 == 0) {
			pid_t pid = fork();

			if (!pid)
				_exit(3);
			int status = 0;
			wrong += pid < 0 || waitpid(pid, &status, 0) != pid ||
				 WEXITSTATUS(status) != 3;
		}
	}
	printf("calls=%lu wrong=%lu\n", calls, wrong);
}

/* uid UID: as that user. */
static void do_uid(char **args)
{
	if (setuid(number(args[0])))
		die("setuid");
	say(made(syscall(SYS_getppid)));
}

/* vector: process_vm_readv of oneself, six arguments that all matter. */
static void do_vector(char **args)
{
	static char from[] = "from here", other[] = "elsewhere", to[16], there[16];
	static struct iovec local[2] = { { to, 9 }, { there, 9 } };
	static struct iovec remote[2] = { { from, 9 }, { other, 9 } };

	printf("local=%p remote=%p\n", (void *)&local[1], (void *)&remote[1]);
	say(made(syscall(SYS_process_vm_readv, getpid(), &local[0], 1UL, &remote[0], 1UL, 0UL)));
	printf("to=[%s] there=[%s]\n", to, there);
}

static long open_path(const char *path)
{
	return made(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0));
}

/* cat PATH: opened from a buffer with room behind it. */
static void do_cat(char **args)
{
	static char path[SPARE];
	char text[64] = "";
	long fd;

	strncpy(path, args[0], sizeof(path) - 1);
	printf("path=%p spare=%p\n", (void *)path, (void *)spare);
	fd = open_path(path);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		die("read");
	text[strcspn(text, "\n")] = 0;
	printf("result=%ld text=[%s]\n", fd < 0 ? fd : 0, text);
}

/* openat KIND TEXT: a path that is at an odd place. */
static void do_openat(char **args)
{
	size_t page = sysconf(_SC_PAGESIZE), n;
	char *area, file[] = "/tmp/caller.XXXXXX";
	const char *kind = args[0], *text = args[1] ?: "";
	int fd;

	if (!strcmp(kind, "unreadable")) {
		say(open_path((char *)8));
	} else if (!strcmp(kind, "long")) {
		n = number(text);
		area = malloc(n + 1);
		memset(area, 'a', n);
		area[n - 1] = 'z';
		area[n] = 0;
		say(open_path(area));
	} else if (!strcmp(kind, "endless")) {	/* no NUL before the end of what is mapped */
		area = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(area, 'a', page);
		munmap(area + page, page);
		say(open_path(area + page - 16));
	} else {	/* absent: across two pages of a file that are not in the page table */
		n = page - strlen(text) / 2;
		fd = mkstemp(file);
		if (fd < 0 || ftruncate(fd, 2 * page) ||
		    pwrite(fd, text, strlen(text), n) != (ssize_t)strlen(text))
			die(file);
		area = mmap(NULL, 2 * page, PROT_READ, MAP_PRIVATE, fd, 0);
		madvise(area, 2 * page, MADV_DONTNEED);
		madvise(area, 2 * page, MADV_RANDOM);
		unlink(file);
		say(open_path(area + n));
	}
}

/* read TEXT: out of a pipe that it is in. */
static void do_read(char **args)
{
	static char buffer[64];
	long n;

	pipe_open();
	if (write(FD + 1, args[0], strlen(args[0])) < 0)
		die("write");
	n = made(syscall(SYS_read, FD, buffer, sizeof(buffer) - 1));
	printf("result=%ld text=[%s]\n", n, buffer);
}

/* write TEXT: into a pipe, and what is in it then. */
static void do_write(char **args)
{
	static char text[64];
	char buffer[64] = "";
	long n;

	pipe_open();
	strncpy(text, args[0], sizeof(text) - 1);
	n = made(syscall(SYS_write, FD + 1, text, strlen(text)));
	close(FD + 1);
	if (read(FD, buffer, sizeof(buffer) - 1) < 0)
		die("read");
	printf("result=%ld text=[%s]\n", n, buffer);
}

static long sleep_read(void)
{
	char byte;

	return syscall(SYS_read, FD, &byte, 1);
}

static long sleep_nanosleep(void)
{
	/* Not the libc's: that is another call. */
	struct { long sec, nsec; } t = { 4, 0 };

	return syscall(SYS_nanosleep, &t, NULL);
}

static long sleep_poll(void)
{
	struct pollfd p = { .fd = FD, .events = POLLIN };

	return poll(&p, 1, 4000);
}

static long sleep_futex(void)
{
	static int word;

	return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static long sleep_wait(void)
{
	pid_t pid = fork();

	if (!pid)
		for (;;)
			pause();
	return waitpid(pid, NULL, 0) == pid ? 0 : -1;
}

static long sleep_epoll(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd = epoll_create1(0);

	epoll_ctl(fd, EPOLL_CTL_ADD, FD, &event);
	return epoll_wait(fd, &event, 1, 4000);
}

static long sleep_sigwait(void)
{
	struct timespec t = { 4, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return sigtimedwait(&set, NULL, &t);
}

static long sleep_send(void)
{
	struct timeval t = { 4, 0 };
	int fds[2];

	socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
	while (send(fds[0], "0123456789abcdef", 16, MSG_DONTWAIT) > 0)
		;
	return syscall(SYS_sendto, fds[0], "", 1, 0, NULL, 0);
}

static long sleep_vfork(void)
{
	pid_t pid = vfork();

	if (!pid) {
		struct { long sec, nsec; } t = { 2, 0 };

		syscall(SYS_nanosleep, &t, NULL);
		_exit(0);
	}
	return pid > 0 ? 0 : -1;
}

static volatile sig_atomic_t handled;

/* The first only interrupts; the second brings what a read() waits for. */
static void handle(int sig)
{
	if (++handled == 2 && write(FD + 1, "x", 1) != 1)
		handled = -1;
}

/* sleep KIND [restart|interrupt]: sleeps in the kernel; how SIGUSR1 is taken. */
static void do_sleep(char **args)
{
	static const struct {
		const char *name;
		long (*call)(void);
	} kinds[] = {
		{ "read", sleep_read }, { "nanosleep", sleep_nanosleep }, { "poll", sleep_poll },
		{ "futex", sleep_futex }, { "wait", sleep_wait }, { "epoll", sleep_epoll },
		{ "sigwait", sleep_sigwait }, { "send", sleep_send }, { "vfork", sleep_vfork },
	};
	struct sigaction action = {
		.sa_handler = handle,
		.sa_flags = args[1] && !strcmp(args[1], "restart") ? SA_RESTART : 0,
	};

	sigaction(SIGUSR1, &action, NULL);
	pipe_open();
	puts("ready=1");
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		double start = now();

		if (strcmp(kinds[i].name, args[0]))
			continue;
		long result = made(kinds[i].call());
		printf("result=%ld handled=%d ms=%.0f\n", result, (int)handled,
		       1000 * (now() - start));
	}
}

static pthread_barrier_t barrier;
static atomic_ulong right;
static long the_parent;

static void *thread_call(void *unused)
{
	pthread_barrier_wait(&barrier);
	atomic_fetch_add(&right, syscall(SYS_getppid) == the_parent);
	return NULL;
}

/* threads N: each makes a call, all at once. */
static void do_threads(char **args)
{
	unsigned long n = number(args[0]);
	pthread_t *threads = calloc(n, sizeof(*threads));
	pthread_attr_t attr;

	the_parent = getppid();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN + 16384);
	pthread_barrier_init(&barrier, NULL, n);
	for (unsigned long i = 0; i < n; i++)
		if (pthread_create(&threads[i], &attr, thread_call, NULL))
			die("pthread_create");
	for (unsigned long i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	printf("done=%lu right=%lu\n", n, atomic_load(&right));
}

static void report_child(pid_t pid)
{
	int status = 0;

	if (pid > 0 && waitpid(pid, &status, 0) != pid)
		die("waitpid");
	printf("result=%d pid=%d status=%d\n", pid < 0 ? -errno : 0, pid < 0 ? 0 : pid, status);
}

/* fork, vfork, clone: a child that exits with 5. */
static void do_fork(char **args)
{
	pid_t pid = fork();

	if (!pid) {
		printf("child=%d\n", syscall(SYS_getppid) > 0);
		_exit(5);
	}
	report_child(pid);
}

static void do_vfork(char **args)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(5);
	report_child(pid);
}

static int child_five(void *unused)
{
	return 5;
}

static void do_clone(char **args)
{
	static char stack[65536] __attribute__((aligned(16)));

	report_child(clone(child_five, stack + sizeof(stack), SIGCHLD, NULL));
}

/* exec PATH ARG...: becomes it. */
static void do_exec(char **args)
{
	execv(args[0], args + 1);
	say(-errno);
}

static void *thread_pause(void *unused)
{
	for (;;)
		pause();
	return NULL;
}

/* execthread PATH ARG...: a thread that is not the first one does it. */
static void *thread_exec(void *args)
{
	do_exec(args);
	return NULL;
}

static void do_execthread(char **args)
{
	pthread_t thread;

	pthread_create(&thread, NULL, thread_exec, args);
	thread_pause(NULL);
}

static void do_echo(char **args)
{
	printf("echo=[%s]\n", args[0]);
}

static void *thread_exit(void *unused)
{
	syscall(SYS_exit, 0);
	return NULL;
}

/* exits N: so many processes that exit with their number, each with a thread that does. */
static void do_exits(char **args)
{
	unsigned long n = number(args[0]), wrong = 0;

	for (unsigned long i = 0; i < n; i++) {
		pid_t pid = fork();
		int status = 0;

		if (!pid) {
			pthread_t thread;

			if (i % 16 == 0 && !pthread_create(&thread, NULL, thread_exit, NULL))
				pthread_join(thread, NULL);
			_exit(i & 127);
		}
		wrong += waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
			 WEXITSTATUS(status) != (int)(i & 127);
	}
	printf("done=%lu wrong=%lu\n", n, wrong);
}

static void count(int sig)
{
	handled++;
}

/* signals N: so many that are handled, and what a program has in hand is what it was. */
static void do_signals(char **args)
{
	unsigned long n = number(args[0]), wrong = 0;
	volatile double sum = 0;

	signal(SIGUSR1, count);
	for (unsigned long i = 0; i < n; i++) {
		sum += 0.5;
		wrong += syscall(SYS_kill, getpid(), SIGUSR1) != 0;
	}
	printf("done=%lu handled=%d wrong=%lu\n", n, (int)handled, wrong + (sum != n * 0.5));
}

/* ptrace: a child under a debugger that sees its calls. */
static void do_ptrace(char **args)
{
	unsigned int stops = 0, calls = number(args[0]);
	pid_t pid = fork();
	int status;

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		for (unsigned int i = 0; i < calls; i++)
			if (syscall(SYS_getppid) != getpid() - 1)
				stops++;
		_exit(7);
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
		if (!stops++)
			ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)PTRACE_O_TRACESYSGOOD);
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
	}
	printf("stops=%u status=%d\n", stops, status);
}

/* int80 NR ARG...: a call of the other ABI, where there is one that a program can choose. */
static void do_int80(char **args)
{
#ifdef __x86_64__
	long result;

	__asm__ volatile("int $0x80" : "=a"(result)
			 : "a"(number(args[0])), "b"(number(args[1])), "c"(number(args[2])),
			   "d"(number(args[3]))
			 : "memory", "r8", "r9", "r10", "r11");
	say((int)result);
#else
	say(-ENOSYS);
#endif
}

static const struct {
	const char *name;
	void (*run)(char **args);
} modes[] = {
	{ "raw", do_raw }, { "getppid", do_getppid }, { "burst", do_burst }, { "load", do_load },
	{ "below", do_below },
	{ "uid", do_uid }, { "vector", do_vector }, { "cat", do_cat }, { "openat", do_openat },
	{ "read", do_read }, { "write", do_write }, { "sleep", do_sleep },
	{ "threads", do_threads }, { "fork", do_fork }, { "vfork", do_vfork },
	{ "clone", do_clone }, { "exec", do_exec }, { "execthread", do_execthread },
	{ "echo", do_echo }, { "exits", do_exits }, { "signals", do_signals },
	{ "ptrace", do_ptrace }, { "int80", do_int80 },
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned int i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++) {
		if (strcmp(modes[i].name, argv[1]))
			continue;
		modes[i].run(argv + 2);
		puts("end=1");
		return 0;
	}
	fprintf(stderr, "usage: caller MODE ARG...\n");
	return 2;
}
