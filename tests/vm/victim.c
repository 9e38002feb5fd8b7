/* SPDX-License-Identifier: MIT */
/*
 * victim: a process to look into, in the guest or on the host.  The first
 * argument says which kind; each prints one line of `key=value` words, numbers
 * in hexadecimal with 0x or in decimal, and then stays until it is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIP 77

static size_t page;

static void die(const char *what)
{
	fprintf(stderr, "victim: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void stay(void)
{
	fflush(stdout);
	for (;;)
		pause();
}

static void *map(size_t pages, int prot, int flags, int fd)
{
	void *p = mmap(NULL, pages * page, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

/* A name for mkstemp(): in `dir`, or in /tmp. */
static char *template(const char *dir)
{
	char *path;

	if (asprintf(&path, "%s/victim.XXXXXX", dir ? dir : "/tmp") < 0)
		die("asprintf");
	return path;
}

/* Every 8 bytes hold their own address: any byte read tells where it is from. */
static void fill(void *start, size_t size)
{
	for (uint64_t *p = start; (char *)p < (char *)start + size; p++)
		*p = (uintptr_t)p;
}

/*
 * region: 8 pages that hold their addresses, of which the page at `hole` is not
 * mapped and the one at `none` has no access.  noend: a string without NUL that
 * ends with its page, before nothing.
 */
static void victim_mem(char **args)
{
	static char text[] = "hypermemfs was here";
	static volatile int counter = 12345;
	char *path = template(args[0]), *region, *tail, *file, *shared, *code;
	int fd = mkstemp(path);

	region = map(8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(region, 8 * page);
	tail = map(2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	tail += page - 5;
	memcpy(tail, "noend", 5);

	if (fd < 0 || ftruncate(fd, 2 * page) || pwrite(fd, "file page 0", 11, 0) != 11 ||
	    pwrite(fd, "file page 1", 11, page) != 11)
		die(path);
	file = map(2, PROT_READ, MAP_PRIVATE, fd);
	close(fd);

	shared = map(2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(shared, 2 * page);
	code = map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fill(code, page);
	mprotect(code, page, PROT_READ | PROT_EXEC);

	/* Last: another mapping would take the room. */
	mprotect(region + 6 * page, page, PROT_NONE);
	munmap(region + 3 * page, page);
	munmap(tail + 5, page);

	printf("pid=%d page=%zu region=%p size=%zu hole=%p none=%p path=%s file=%p filesize=%zu "
	       "shared=%p sharedsize=%zu readonly=%p text=%p counter=%p noend=%p\n",
	       getpid(), page, region, 8 * page, region + 3 * page, region + 6 * page, path, file,
	       2 * page, shared, 2 * page, code, text, (void *)&counter, tail);
	stay();
}

/* Prints its message ten times a second: what a write changes is seen. */
static void victim_count(char **args)
{
	static volatile char message[64] = "nobody has been here";
	static volatile unsigned int counter;

	printf("pid=%d message=%p size=%zu counter=%p\n", getpid(), (void *)message,
	       sizeof(message), (void *)&counter);
	for (;; counter++) {
		printf("%u: %.63s\n", counter, (const char *)message);
		fflush(stdout);
		usleep(100000);
	}
}

static __attribute__((noinline)) int answer(void)
{
	return 42;
}

/* Prints what a function of its read-only text returns: a patch of the code is seen. */
static void victim_code(char **args)
{
	int (*volatile call)(void) = answer;	/* volatile: no call is thought superfluous */

	printf("pid=%d answer=%p exe=/proc/%d/exe\n", getpid(), (void *)(uintptr_t)answer, getpid());
	for (;;) {
		printf("answer is %d\n", call());
		fflush(stdout);
		usleep(100000);
	}
}

static void victim_fds(char **args)
{
	char *dir = template(args[0]);
	int file, gone, odd, null, ends[2], sock[2];

	if (!mkdtemp(dir) || chdir(dir))
		die(dir);
	file = open("plain", O_RDWR | O_CREAT, 0644);
	gone = open("gone", O_RDWR | O_CREAT, 0644);
	unlink("gone");
	odd = open("odd\n\"quote' \\back\xff\xfe", O_RDWR | O_CREAT, 0644);
	null = open("/dev/null", O_WRONLY);
	if (file < 0 || gone < 0 || odd < 0 || null < 0 || pipe(ends) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
		die("fds");
	printf("pid=%d dir=%s file=%d gone=%d odd=%d null=%d pipe=%d pipew=%d socket=%d\n", getpid(),
	       dir, file, gone, odd, null, ends[0], ends[1], sock[0]);
	stay();
}

/*
 * Writes a title over its arguments and into its environment, as setproctitle()
 * does: no NUL at the arguments' end, so /proc/PID/cmdline goes on beyond it.
 */
static char **title_argv;

static void victim_title(char **args)
{
	char *start = title_argv[0], *end = start;

	for (char **a = title_argv; *a; a++)
		end = *a + strlen(*a) + 1;
	if (!environ[0] || environ[0] != end) {
		fprintf(stderr, "victim: title needs an environment behind the arguments\n");
		exit(1);
	}
	end += strlen(environ[0]);
	printf("pid=%d start=%p size=%zu\n", getpid(), (void *)start, (size_t)(end - start));
	fflush(stdout);
	memset(start, 't', end - start);
	memcpy(start, "victim: ", end - start < 8 ? end - start : 8);
	stay();
}

/* Only its arguments and environment matter. */
static void victim_argv(char **args)
{
	printf("pid=%d\n", getpid());
	stay();
}

static void victim_comm(char **args)
{
	if (!args[0] || prctl(PR_SET_NAME, args[0]))
		die("comm BYTES");
	printf("pid=%d\n", getpid());
	stay();
}

static void victim_zombie(char **args)
{
	siginfo_t info;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
	printf("pid=%d zpid=%d\n", getpid(), pid);
	stay();
}

static void victim_many(char **args)
{
	int n = args[0] ? atoi(args[0]) : 0, ready[2];
	pid_t parent = getpid();
	char c;

	if (n < 1 || pipe(ready))
		die("many N");
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || write(ready[1], "", 1) != 1)
			_exit(1);
		stay();
	}
	for (int i = 0; i < n; i++)
		if (read(ready[0], &c, 1) != 1)
			die("read");
	printf("pid=%d children=%d\n", getpid(), n);
	stay();
}

static void *thread(void *arg)
{
	*(pid_t *)arg = syscall(SYS_gettid);
	prctl(PR_SET_NAME, "second");
	kill(getpid(), SIGUSR1);
	stay();
	return NULL;
}

static void victim_thread(char **args)
{
	pid_t tid = 0;
	pthread_t t;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if ((errno = pthread_create(&t, NULL, thread, &tid)))
		die("pthread_create");
	sigwait(&set, &sig);
	printf("pid=%d tid=%d\n", getpid(), tid);
	stay();
}

/* Executes itself for ever, with another last argument each time; prints once. */
static void victim_execer(char **args)
{
	unsigned long n = args[0] ? strtoul(args[0], NULL, 10) : 0;
	char number[24];

	if (n == 0) {
		printf("pid=%d\n", getpid());
		fflush(stdout);
	}
	snprintf(number, sizeof(number), "%lu", n + 1);
	execl("/proc/self/exe", "victim", "execer", number, NULL);
	die("exec");
}

/*
 * Executes itself for ever, in turns with arguments and an environment of nothing but a
 * and of nothing but b.  Both are of the same size, and at the same address.
 */
static void victim_twins(char **args)
{
	char letter = args[0] && args[0][0] == 'a' ? 'b' : 'a', text[2][9001], env[3001];
	char *argv[] = {"victim", "twins", text[0], text[1], NULL}, *envp[] = {env, NULL};

	if (!args[0]) {
		printf("pid=%d\n", getpid());
		fflush(stdout);
		if (personality(ADDR_NO_RANDOMIZE) < 0)
			die("personality");
	}
	memset(text, letter, sizeof(text));
	memset(env, letter, sizeof(env));
	text[0][9000] = text[1][9000] = env[3000] = 0;
	env[1] = '=';
	execve("/proc/self/exe", argv, envp);
	die("exec");
}

/* A region of its own, of that many bytes, which hold their addresses. */
static void victim_area(char **args)
{
	size_t size = args[0] ? strtoul(args[0], NULL, 0) : 0;
	char *region = map((size + page - 1) / page, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1);

	fill(region, size);
	printf("pid=%d region=%p size=%zu\n", getpid(), region, size);
	stay();
}

/* Its first thread ends, and another goes on. */
static void *heir(void *arg)
{
	printf("pid=%d tid=%ld region=%p size=%zu\n", getpid(), syscall(SYS_gettid), arg, page);
	stay();
	return NULL;
}

static void victim_leaderless(char **args)
{
	char *region = map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	pthread_t t;

	fill(region, page);
	if ((errno = pthread_create(&t, NULL, heir, region)))
		die("pthread_create");
	syscall(SYS_exit, 0);
}

/* A parent that waits in vfork() for its child, whose memory is the parent's. */
static void victim_vfork(char **args)
{
	char *region = map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	fill(region, page);
	if (vfork() == 0) {
		printf("pid=%d child=%d region=%p size=%zu\n", getppid(), getpid(), region, page);
		stay();
	}
	die("vfork");
}

/* Belongs to user 1000, and its files in /proc to root (0) or to that user (1). */
static void victim_dumpable(char **args)
{
	char *region = map(1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	fill(region, page);
	if (!args[0] || setgid(1000) || setuid(1000) || prctl(PR_SET_DUMPABLE, atoi(args[0])))
		die("dumpable 0|1");
	printf("pid=%d region=%p size=%zu\n", getpid(), region, page);
	stay();
}

/* A mapping that grows downwards when it is touched below, as a stack does. */
static void victim_grows(char **args)
{
	char *room = map(64, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1), *region;

	munmap(room, 64 * page);
	region = mmap(room + 62 * page, 2 * page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
	if (region == MAP_FAILED)
		die("mmap");
	fill(region, 2 * page);
	printf("pid=%d region=%p size=%zu\n", getpid(), region, 2 * page);
	stay();
}

/* Children come and go as fast as they can. */
static void victim_churn(char **args)
{
	printf("pid=%d\n", getpid());
	fflush(stdout);
	for (;;) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

/*
 * Children come and go, after 30 ms, or as many as the argument says, at the latest.
 * Each has a number of its own in `serial`, which never changes in it: the number
 * says whose memory has been read.
 */
static void victim_serial(char **args)
{
	static volatile uint64_t serial;
	int alive = 0, life = args[0] ? atoi(args[0]) : 30;

	printf("pid=%d serial=%p\n", getpid(), (void *)&serial);
	fflush(stdout);
	for (;;) {
		pid_t pid;

		serial++;
		pid = fork();
		if (pid == 0) {
			usleep(1000 * (1 + serial * 7 % life));
			_exit(0);
		}
		if (pid > 0)
			alive++;
		if (alive == 8 || pid < 0)
			alive -= waitpid(-1, NULL, 0) > 0;
	}
}

/* Of a call: its result, or minus its errno. */
static long result(long rc)
{
	return rc < 0 ? -errno : rc;
}

/*
 * Makes the same calls over and over, every 50 ms or as many as the argument says, and
 * prints what it gets.  path: of the file that it opens, which is not there.
 */
static void victim_caller(char **args)
{
	static char path[64] = "/tmp/not there";
	static char buf[16];
	int ms = args[0] ? atoi(args[0]) : 50;

	prctl(PR_SET_NAME, "caller");
	printf("pid=%d path=%p\n", getpid(), (void *)path);
	for (unsigned long i = 0;; i++) {
		long parent = result(syscall(SYS_getppid));
		long control = result(syscall(SYS_ioctl, 0, 0x89f1, buf));
		int fd = (int)result(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY));
		long n = fd < 0 ? fd : result(syscall(SYS_read, fd, buf, sizeof(buf)));

		if (fd >= 0)
			close(fd);
		printf("round=%lu getppid=%ld ioctl=%ld openat=%d read=%ld\n", i, parent, control, fd,
		       n);
		fflush(stdout);
		usleep(1000 * ms);
	}
}

/* Maps a file twice, shared and private, read-only, and does not touch it. */
static void victim_mapped(char **args)
{
	int fd = open(args[0] ? args[0] : "", O_RDONLY);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

	if (size <= 0)
		die("mapped FILE");
	printf("pid=%d region=%p private=%p size=%jd\n", getpid(),
	       map((size + page - 1) / page, PROT_READ, MAP_SHARED, fd),
	       map((size + page - 1) / page, PROT_READ, MAP_PRIVATE, fd), (intmax_t)size);
	stay();
}

/* Huge pages that hold their addresses: of hugetlbfs (0: there are none), and transparent ones. */
static void victim_huge(char **args)
{
	const size_t huge = 2 << 20;
	char *tlb = mmap(NULL, huge, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	char *thp = map(3 * huge / page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	thp = (char *)(((uintptr_t)thp + huge - 1) & ~(huge - 1));
	madvise(thp, 2 * huge, MADV_HUGEPAGE);
	fill(thp, 2 * huge);
	if (tlb == MAP_FAILED)
		tlb = NULL;
	else
		fill(tlb, huge);
	printf("pid=%d tlb=0x%lx thp=%p size=%zu\n", getpid(), (unsigned long)tlb, thp, huge);
	stay();
}

/* A page that nobody provides: whoever touches it sleeps until this is killed. */
static void victim_ufd(char **args)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	char *region = map(4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	memset(region, 'r', page);
	reg.range.start = (uintptr_t)region;
	reg.range.len = 4 * page;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg)) {
		fprintf(stderr, "victim: userfaultfd: %s\n", strerror(errno));
		exit(SKIP);
	}
	printf("pid=%d present=%p missing=%p size=%zu\n", getpid(), region, region + page, 3 * page);
	stay();
}

static const struct {
	const char *name;
	void (*run)(char **args);
} kinds[] = {
	{"area", victim_area},
	{"argv", victim_argv},
	{"caller", victim_caller},
	{"churn", victim_churn},
	{"code", victim_code},
	{"comm", victim_comm},
	{"count", victim_count},
	{"dumpable", victim_dumpable},
	{"execer", victim_execer},
	{"fds", victim_fds},
	{"grows", victim_grows},
	{"huge", victim_huge},
	{"leaderless", victim_leaderless},
	{"many", victim_many},
	{"mapped", victim_mapped},
	{"mem", victim_mem},
	{"serial", victim_serial},
	{"thread", victim_thread},
	{"title", victim_title},
	{"twins", victim_twins},
	{"ufd", victim_ufd},
	{"vfork", victim_vfork},
	{"zombie", victim_zombie},
};

int main(int argc, char **argv)
{
	page = sysconf(_SC_PAGESIZE);
	title_argv = argv;
	for (size_t i = 0; argc > 1 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(argv[1], kinds[i].name))
			kinds[i].run(argv + 2);
	fprintf(stderr, "usage: victim KIND [ARGUMENT]; see victim.c\n");
	return 2;
}
