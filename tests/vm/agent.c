/* SPDX-License-Identifier: MIT */
/*
 * agent: runs commands in the lab guest for lab.py, over a virtio-serial port
 * (its name is the argument) that has nothing to do with hypermem's.
 *
 * Both directions carry frames, struct frame and `len` bytes, integers in host
 * order.  The host starts with HELLO, which ends what a host before it ran; the
 * reply ends in the same payload, so that the host knows what is for it.  RUN
 * starts a command, whose OUT and ERR frames and final EXIT have RUN's id; any
 * number may be running.  SPAWN starts a process that outlives the connection,
 * its output in /run/lab/PID.out.  Files are the business of cat.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum type {
	HELLO = 1,	/* both: any payload; the guest puts its boot id, 36 bytes, in front */
	RUN,		/* to guest: struct command, its strings, stdin */
	SPAWN,		/* to guest: the same, without stdin */
	KILL,		/* to guest: SIGKILL to the process group of command `id` */
	OUT,		/* to host: bytes of stdout */
	ERR,		/* to host: bytes of stderr */
	EXIT,		/* to host: int32, wait status */
	PID,		/* to host: int32, pid of what SPAWN started */
	FAIL,		/* to host: int32, errno of execve or fork */
};

struct frame {
	uint32_t len, id, type;
};

/* Followed by the NUL-terminated strings: cwd, file, argv..., env... */
struct command {
	uint32_t argc;
	uint32_t envc;	/* NO_ENV: the agent's own */
};
#define NO_ENV UINT32_MAX

#define MAX_RUNS 64
#define MAX_FRAME (256u << 20)
#define BLOCK 32768	/* virtio_console moves no more at once */

struct run {
	pid_t pid;	/* 0: free */
	uint32_t id;
	int in, out, err;	/* our ends; -1: closed */
	char *input;
	size_t input_size, input_done;
};

static struct run runs[MAX_RUNS];
static int port;

/* The host always reads, so waiting for it cannot deadlock; while it is away, output is lost. */
static void port_write(const void *data, size_t size)
{
	struct pollfd p = {.fd = port, .events = POLLOUT};

	while (size) {
		ssize_t n = write(port, data, size);

		if (n > 0) {
			data = (const char *)data + n;
			size -= n;
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			return;
		} else if (poll(&p, 1, -1) > 0 && (p.revents & POLLHUP)) {
			return;
		}
	}
}

static void reply(uint32_t id, enum type type, const void *data, size_t size)
{
	static char buf[sizeof(struct frame) + BLOCK];
	struct frame f = {size, id, type};

	memcpy(buf, &f, sizeof(f));
	memcpy(buf + sizeof(f), data, size);
	port_write(buf, sizeof(f) + size);
}

static void reply_int(uint32_t id, enum type type, int32_t value)
{
	reply(id, type, &value, sizeof(value));
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Send what is there; false when there is nothing more for now. */
static int forward(struct run *r, int *fd, enum type type)
{
	char buf[BLOCK - sizeof(struct frame)];
	ssize_t n = read(*fd, buf, sizeof(buf));

	if (n > 0)
		reply(r->id, type, buf, n);
	else if (n == 0 || errno != EAGAIN)
		close_fd(fd);
	return n > 0;
}

static void feed(struct run *r)
{
	ssize_t n = write(r->in, r->input + r->input_done, r->input_size - r->input_done);

	if (n > 0)
		r->input_done += n;
	if (r->input_done == r->input_size || (n < 0 && errno != EAGAIN))
		close_fd(&r->in);
}

/* A command is over when its process is, even if a grandchild still has its stdout. */
static void finish(struct run *r, int status)
{
	while (r->out >= 0 && forward(r, &r->out, OUT))
		;
	while (r->err >= 0 && forward(r, &r->err, ERR))
		;
	reply_int(r->id, EXIT, status);
	close_fd(&r->in);
	close_fd(&r->out);
	close_fd(&r->err);
	free(r->input);
	r->pid = 0;
}

static void reap(void)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (struct run *r = runs; r < runs + MAX_RUNS; r++)
			if (r->pid == pid)
				finish(r, status);
}

static char **strings(uint32_t count, char **cursor, char *end)
{
	char **list = calloc(count + 1, sizeof(*list));

	for (uint32_t i = 0; list && i < count; i++) {
		char *nul = memchr(*cursor, 0, end - *cursor);

		if (!nul)
			exit(3);
		list[i] = *cursor;
		*cursor = nul + 1;
	}
	return list;
}

/* The child's side of start(); reports its errno and exits, or never returns. */
static void child(char **paths, char **argv, char **env, const int fds[3], int report)
{
	sigset_t none;
	int rc;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	for (int i = 0; i < 3; i++)
		dup2(fds[i], i);
	if (!*paths[0] || chdir(paths[0]) == 0)
		execvpe(paths[1], argv, env);
	rc = errno;
	if (write(report, &rc, sizeof(rc)) < 0)
		_exit(126);
	_exit(127);
}

/* Open what a spawned process has as stdin and stdout; its own pid names the file. */
static void spawn_fds(int fds[3])
{
	char path[64];

	snprintf(path, sizeof(path), "/run/lab/%d.out", getpid());
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	fds[1] = fds[2] = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
}

/* Start what a RUN or SPAWN frame says: the pid or -errno; ends[] are our ends of the pipes. */
static int start(char *data, size_t size, int spawn, int ends[3], char **ret_input)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1}, report[2], rc = 0;
	struct command c;
	char *cursor = data + sizeof(c), *end = data + size;
	char **paths, **argv, **env;
	pid_t pid;

	if (size < sizeof(c))
		exit(3);
	memcpy(&c, data, sizeof(c));
	paths = strings(2, &cursor, end);
	argv = strings(c.argc, &cursor, end);
	env = c.envc == NO_ENV ? environ : strings(c.envc, &cursor, end);
	*ret_input = cursor;

	if (pipe2(report, O_CLOEXEC) ||
	    (!spawn && (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))))
		exit(4);
	pid = fork();
	if (pid == 0) {
		int fds[3] = {in[0], out[1], err[1]};

		if (spawn)
			spawn_fds(fds);
		child(paths, argv, env, fds, report[1]);
	}
	close(report[1]);
	if (pid < 0)
		rc = -errno;
	else if (read(report[0], &rc, sizeof(rc)) == sizeof(rc))	/* EOF: execve closed it */
		rc = -rc;
	close(report[0]);
	close_fd(&in[0]);
	close_fd(&out[1]);
	close_fd(&err[1]);
	ends[0] = in[1];
	ends[1] = out[0];
	ends[2] = err[0];
	for (int i = 0; i < 3; i++)
		if (rc)
			close_fd(&ends[i]);
		else if (ends[i] >= 0)
			fcntl(ends[i], F_SETFL, O_NONBLOCK);
	free(paths);
	free(argv);
	if (env != environ)
		free(env);
	return rc ? rc : pid;
}

/* Takes `data`, which is the run's input from now on. */
static void run(uint32_t id, char *data, size_t size)
{
	struct run *r = runs;
	int ends[3], pid;
	char *input;

	while (r < runs + MAX_RUNS && r->pid)
		r++;
	pid = r < runs + MAX_RUNS ? start(data, size, 0, ends, &input) : -EAGAIN;
	if (pid < 0) {
		reply_int(id, FAIL, -pid);
		free(data);
		return;
	}
	*r = (struct run){.pid = pid, .id = id, .in = ends[0], .out = ends[1], .err = ends[2],
			  .input = data, .input_size = size, .input_done = input - data};
	feed(r);
}

static void spawn(uint32_t id, char *data, size_t size)
{
	int ends[3], pid;
	char *input;

	pid = start(data, size, 1, ends, &input);
	reply_int(id, pid < 0 ? FAIL : PID, pid < 0 ? -pid : pid);
	free(data);
}

static void hello(uint32_t id, const char *data, size_t size)
{
	char buf[36 + 256] = "";
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	for (struct run *r = runs; r < runs + MAX_RUNS; r++)
		if (r->pid)
			kill(-r->pid, SIGKILL);
	if (size > 256 || read(fd, buf, 36) != 36)
		exit(3);
	close(fd);
	memcpy(buf + 36, data, size);
	reply(id, HELLO, buf, 36 + size);
}

static void handle(const struct frame *f, char *data)
{
	switch (f->type) {
	case RUN:
		run(f->id, data, f->len);
		return;
	case SPAWN:
		spawn(f->id, data, f->len);
		return;
	case HELLO:
		hello(f->id, data, f->len);
		break;
	case KILL:
		for (struct run *r = runs; r < runs + MAX_RUNS; r++)
			if (r->pid && r->id == f->id)
				kill(-r->pid, SIGKILL);
		break;
	}
	free(data);
}

/* Read some of the current frame.  False if the host is away. */
static int receive(void)
{
	static struct frame f;
	static size_t done;	/* of the frame, its header included */
	static char *data;
	ssize_t n;

	if (done < sizeof(f))
		n = read(port, (char *)&f + done, sizeof(f) - done);
	else
		n = read(port, data + done - sizeof(f), f.len + sizeof(f) - done);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {	/* disconnected: the next host starts with a new frame */
		free(data);
		data = NULL;
		done = 0;
		return 0;
	}
	done += n;
	if (done == sizeof(f) && (f.len > MAX_FRAME || !(data = malloc(f.len + 1))))
		exit(3);
	if (done == f.len + sizeof(f)) {
		done = 0;
		handle(&f, data);
		data = NULL;
	}
	return 1;
}

/* The port's device node, or -1 until virtio_console has made it. */
static int port_open(const char *name)
{
	static const char class[] = "/sys/class/virtio-ports";
	char path[300], text[100];
	struct dirent *d;
	DIR *dir = opendir(class);
	int fd = -1;

	while (dir && fd < 0 && (d = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s/name", class, d->d_name);
		f = fopen(path, "re");
		if (f && fgets(text, sizeof(text), f)) {
			text[strcspn(text, "\n")] = 0;
			snprintf(path, sizeof(path), "/dev/%s", d->d_name);
			if (!strcmp(text, name))
				fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		}
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return fd;
}

int main(int argc, char **argv)
{
	struct signalfd_siginfo info;
	sigset_t chld;
	int sigfd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	sigfd = signalfd(-1, &chld, SFD_NONBLOCK | SFD_CLOEXEC);

	while ((port = port_open(argc > 1 ? argv[1] : "lab.0")) < 0)
		usleep(10000);

	for (;;) {
		struct pollfd p[2 + 3 * MAX_RUNS] = {{port, POLLIN, 0}, {sigfd, POLLIN, 0}};

		/* poll() skips an fd of -1. */
		for (int i = 0; i < MAX_RUNS; i++) {
			struct run *r = &runs[i];
			struct pollfd *q = &p[2 + 3 * i];

			q[0] = (struct pollfd){r->pid ? r->in : -1, POLLOUT, 0};
			q[1] = (struct pollfd){r->pid ? r->out : -1, POLLIN, 0};
			q[2] = (struct pollfd){r->pid ? r->err : -1, POLLIN, 0};
		}
		poll(p, 2 + 3 * MAX_RUNS, -1);
		for (int i = 0; i < MAX_RUNS; i++) {
			if (p[2 + 3 * i].revents)
				feed(&runs[i]);
			if (p[3 + 3 * i].revents)
				forward(&runs[i], &runs[i].out, OUT);
			if (p[4 + 3 * i].revents)
				forward(&runs[i], &runs[i].err, ERR);
		}
		while (read(sigfd, &info, sizeof(info)) > 0)
			;
		reap();
		/* Last: it may start runs that p[] does not know.  A port without a host polls ready. */
		if (p[0].revents && !receive())
			usleep(10000);
	}
}
