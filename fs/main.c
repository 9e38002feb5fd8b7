// SPDX-License-Identifier: MIT
/*
 * hypermemfs: show the processes of a QEMU guest as files.
 *
 *	options.c	the command line
 *	fuse_ops.c	FUSE request to node or file
 *	node.c		which names exist: the table of the tree
 *	hooks.c		which hooks do
 *	file_*.c	what they contain
 *	procs.c		the guest's processes, for at most a second
 *
 * and below that the library in bridge/.  This file connects, mounts, serves until
 * it is told to stop, and says in one line why not if it cannot.
 */
#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <syslog.h>
#include <unistd.h>

#include "bridge/chardev.h"
#include "bridge/client.h"
#include "fs/daemon.h"
#include "fs/exit_codes.h"
#include "fs/fuse_ops.h"
#include "fs/node.h"
#include "fs/options.h"
#include "fs/said.h"

#define FUSE_SUPER_MAGIC 0x65735546	/* Linux's */
/* Readers that may wait for the guest at a time, and one for each hook's events. */
#define THREADS_MAX (256 + HYPER_HOOKS_MAX)

static int fail(enum hmfs_exit status, const char *format, ...) G_GNUC_PRINTF(2, 3);

static int fail(enum hmfs_exit status, const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	fprintf(stderr, "hypermemfs: %s\n", text);
	return (int)status;
}

/* In the foreground to stderr, where debug lines only come if asked for; else to syslog. */
static void log_line(const char *domain, GLogLevelFlags level, const char *message, void *arg)
{
	const struct hmfs_options *options = arg;

	if ((level & G_LOG_LEVEL_DEBUG) && !options->debug)
		return;
	if (options->foreground)
		fprintf(stderr, "hypermemfs: %s\n", message);
	else
		syslog(level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL) ? LOG_ERR : LOG_WARNING,
		       "%s", message);
}

/* libfuse's own complaint, which comes in pieces, for the one line that says why. */
static char *fuse_said;

static void keep_fuse_log(enum fuse_log_level level, const char *format, va_list args)
{
	g_autofree char *piece = g_strdup_vprintf(format, args);
	char *all = g_strconcat(fuse_said ? fuse_said : "", piece, NULL);

	g_free(fuse_said);
	fuse_said = g_strdelimit(all, "\n", ' ');
}

/* While it is mounted.  What ends that is the loop's result, too, and said by who calls it. */
static void log_fuse(enum fuse_log_level level, const char *format, va_list args)
{
	g_autofree char *text = g_strdup_vprintf(format, args);

	if (!g_str_has_prefix(text, "fuse: reading device"))
		g_warning("%s", g_strchomp(text));
}

static int check_mountpoint(const char *path)
{
	struct statfs sfs;
	struct stat st, parent;
	g_autofree char *up = g_build_filename(path, "..", NULL);

	/* statfs asks the daemon; stat may be answered from what it said before it died. */
	if ((stat(path, &st) < 0 || statfs(path, &sfs) < 0) &&
	    (errno == ENOTCONN || errno == ECONNABORTED))
		return fail(HMFS_EXIT_MOUNT,
			    "%s: a file system whose daemon has died is still mounted there; run: fusermount3 -u %s",
			    path, path);
	if (stat(path, &st) < 0 && errno == ENOENT)
		return fail(HMFS_EXIT_MOUNT, "mount point %s: no such directory; to make it run: mkdir -p %s",
			    path, path);
	if (stat(path, &st) < 0)
		return fail(HMFS_EXIT_MOUNT, "mount point %s: %s", path, g_strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return fail(HMFS_EXIT_MOUNT, "mount point %s: not a directory; give the path of one",
			    path);
	if (statfs(path, &sfs) == 0 && sfs.f_type == FUSE_SUPER_MAGIC && stat(up, &parent) == 0 &&
	    parent.st_dev != st.st_dev)
		return fail(HMFS_EXIT_MOUNT,
			    "mount point %s is in use: a FUSE file system is mounted there; to unmount it run: fusermount3 -u %s",
			    path, path);
	if (access(path, W_OK) < 0 && errno == EACCES)
		return fail(HMFS_EXIT_MOUNT,
			    "mount point %s: no permission; give a directory that you may write to",
			    path);
	return 0;
}

/* What libfuse does not say: what to do. */
static const char *mount_remedy(void)
{
	g_autofree char *fusermount = g_find_program_in_path("fusermount3");

	if (access("/dev/fuse", F_OK) < 0)
		return "; there is no /dev/fuse: load the kernel's module fuse (in a container: give it that device)";
	if (access("/dev/fuse", R_OK | W_OK) < 0)
		return "; there is no permission to use /dev/fuse: run hypermemfs as root";
	if (!fusermount && geteuid() != 0)
		return "; fusermount3 is missing: install fuse3, or run hypermemfs as root";
	return "";
}

static int mount_on(struct fuse *fuse, const char *path)
{
	struct hmfs_said said;
	g_autofree char *text = NULL;
	int rc;

	hmfs_said_begin(&said);
	rc = fuse_mount(fuse, path);
	text = hmfs_said_end(&said);
	if (rc == 0 && text)
		fprintf(stderr, "%s\n", text);		/* a warning, or another thread's */
	if (rc == 0)
		return 0;
	return fail(HMFS_EXIT_MOUNT, "cannot mount on %s: %s%s", path,
		    text ? text : fuse_said ? g_strstrip(fuse_said) : "libfuse gave up",
		    mount_remedy());
}

static int explain_chardev(const char *chardev, int rc)
{
	const char *path = strchr(chardev, '/');
	const char *why = g_strerror(-rc), *what = "";

	switch (rc) {
	case -ENOENT:
	case -ENOTDIR:
		return fail(HMFS_EXIT_CHARDEV,
			    "%s: no such socket; is QEMU running, with -chardev socket,path=%s,server=on,wait=off ?",
			    chardev, path ? path : chardev);
	case -ECONNREFUSED:
		why = "nobody listens there";
		what = "; has QEMU exited?";
		break;
	case -ENOTSUP:
	case -EPROTOTYPE:
		why = "neither a Unix socket to connect to nor a character device";
		what = "; give the path= of QEMU's -chardev";
		break;
	case -EACCES:
	case -EPERM:
		why = "no permission";
		what = "; run hypermemfs as the user that QEMU runs as, or as root";
		break;
	case -EHOSTUNREACH:
		why = "no such host, or no way to it";
		what = "; check the name, and that this machine can reach it";
		break;
	}
	return fail(HMFS_EXIT_CHARDEV, "%s: %s%s", chardev, why, what);
}

static int explain_connect(const char *chardev, int timeout_ms, const struct hm_refusal *refusal,
			   int rc)
{
	bool serial = hm_chardev_is_serial(chardev);

	switch (rc) {
	case -ETIMEDOUT:
		return fail(HMFS_EXIT_GUEST,
			    "%s: nobody answers within %g s; is hypermem.ko loaded in the guest%s, and nobody else connected to this chardev?",
			    chardev, timeout_ms / 1000.0,
			    serial ? " with tty=" : " (with tty=, say serial: before the chardev)");
	case -EBADMSG:
		return fail(HMFS_EXIT_GUEST,
			    "%s: what talks there is not hypermem.ko, it says \"%s\"; %s",
			    chardev, refusal->heard,
			    serial ? "is hypermem.ko loaded in the guest with tty=, and this line nobody else's?" :
				     "give the chardev of the port org.hypermem.*, not a monitor's, console's or agent's");
	case -ECONNRESET:
	case -ENOTCONN:
		return fail(HMFS_EXIT_GUEST,
			    "%s: the other end hangs up before it answers; is this a chardev of QEMU's, and nobody else connected to it?",
			    chardev);
	case -EPROTONOSUPPORT:
		return fail(HMFS_EXIT_GUEST,
			    "%s: the guest's module speaks version %u of the protocol, this hypermemfs version %u; use module and hypermemfs of one release",
			    chardev, refusal->version, HYPERMEM_VERSION);
	case -EPROTO:
		return fail(HMFS_EXIT_GUEST,
			    "%s: the answer makes no sense; is it hypermem.ko that is at the other end?",
			    chardev);
	}
	return explain_chardev(chardev, rc);
}

/* What a signal ends; set before the handler is there. */
static struct fuse *signal_fuse;
static struct hm_client *signal_client;

/* Nobody need wait for a guest that does not answer: what is under way fails. */
static void on_signal(int signal)
{
	hm_client_stop(signal_client);
	fuse_exit(signal_fuse);
}

static int handle_signals(struct fuse *fuse, struct hm_client *client)
{
	const struct sigaction action = { .sa_handler = on_signal };
	const struct sigaction ignore = { .sa_handler = SIG_IGN };

	signal_fuse = fuse;
	signal_client = client;
	if (sigaction(SIGTERM, &action, NULL) < 0 || sigaction(SIGINT, &action, NULL) < 0 ||
	    sigaction(SIGHUP, &action, NULL) < 0 || sigaction(SIGPIPE, &ignore, NULL) < 0)
		return -errno;
	return 0;
}

/*
 * Threads start on demand, and stay: those that libfuse ends it does not wait for, not even
 * when it goes.  One that waits for the guest holds up nobody else.
 */
static int serve(struct fuse *fuse)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rc;

	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, THREADS_MAX);
	rc = fuse_loop_mt(fuse, config);
	fuse_loop_cfg_destroy(config);
	/* It has been unmounted just when a request was being read. */
	return rc == -ECONNABORTED ? 0 : rc;
}

static int mount_and_serve(struct hmfs *fs, const struct hmfs_options *options,
			   struct hmfs_daemon *daemon)
{
	g_autofree char *fuse_options = g_strdup_printf("%s,max_read=%d", options->fuse_options,
							HMFS_READ_MAX);
	char *argv[] = { "hypermemfs", "-o", fuse_options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	struct fuse *fuse;
	int rc, status;

	fuse_set_log_func(keep_fuse_log);
	fuse = fuse_new(&args, &hmfs_fuse_operations, sizeof(hmfs_fuse_operations), fs);
	fuse_opt_free_args(&args);
	if (!fuse)
		return fail(HMFS_EXIT_USAGE, "%s", fuse_said ? g_strstrip(fuse_said) : "libfuse gave up");
	/* Before it is mounted: whoever is killed leaves nothing behind. */
	rc = handle_signals(fuse, fs->client);
	if (rc < 0) {
		status = fail(HMFS_EXIT_FAILED, "cannot handle signals: %s", g_strerror(-rc));
		goto destroy;
	}
	status = mount_on(fuse, options->mountpoint);
	if (status)
		goto destroy;
	fuse_set_log_func(log_fuse);
	rc = hmfs_daemon_ready(daemon);
	if (rc < 0) {
		status = fail(HMFS_EXIT_FAILED, "cannot go to the background: %s", g_strerror(-rc));
		goto unmount;
	}
	rc = serve(fuse);
	status = HMFS_EXIT_OK;
	if (rc < 0) {
		g_warning("cannot read from /dev/fuse: %s", g_strerror(-rc));
		status = HMFS_EXIT_FAILED;
	}
unmount:
	fuse_unmount(fuse);
destroy:
	/* Until then a hook's thread may tell, by way of libfuse's session, whoever polls. */
	hmfs_close(fs);
	fuse_destroy(fuse);
	return status;
}

/* Threads must not be made before the daemon is a process of its own. */
static int connect_and_serve(const struct hmfs_options *options, struct hmfs_daemon *daemon)
{
	const struct hm_client_config config = {
		.address = options->chardev,
		.timeout_ms = options->timeout_ms,
		.readonly = options->readonly,
		.trace = options->debug,
		.ram = options->ram,
		.interrupted = hmfs_fuse_interrupted,
	};
	g_autofree char *ram = NULL;
	struct hm_client *client;
	struct hm_refusal refusal;
	struct hmfs fs;
	int rc;

	rc = hm_client_open(&config, &refusal, &client);
	if (rc < 0)
		return explain_connect(options->chardev, options->timeout_ms, &refusal, rc);
	rc = hm_client_start(client);
	if (rc < 0)
		rc = fail(HMFS_EXIT_FAILED, "cannot start a thread: %s", g_strerror(-rc));
	else if (options->ram == HM_RAM_REQUIRE && hm_client_ram(client, &ram) < 0)
		rc = fail(HMFS_EXIT_GUEST, "%s: ram=require, but guest RAM is out of reach: %s",
			  options->chardev, ram);
	if (rc == 0) {
		hmfs_init(&fs, client, options->chardev);
		fs.others = options->others;
		rc = mount_and_serve(&fs, options, daemon);
		hmfs_deinit(&fs);
	}
	hm_client_close(client);
	return rc;
}

int main(int argc, char **argv)
{
	struct hmfs_daemon daemon = { .ready = -1 };
	struct hmfs_options options;
	int rc;

	rc = hmfs_daemon_init();
	if (rc < 0)
		return fail(HMFS_EXIT_FAILED, "cannot open /dev/null: %s", g_strerror(-rc));
	rc = hmfs_options_parse(argc, argv, &options);
	if (rc < 0)
		return -rc - 1;
	openlog("hypermemfs", LOG_PID, LOG_DAEMON);
	g_log_set_default_handler(log_line, &options);
	rc = check_mountpoint(options.mountpoint);
	if (rc == 0 && !options.foreground)
		rc = hmfs_daemon_begin(&daemon);
	if (rc < 0)
		rc = fail(HMFS_EXIT_FAILED, "cannot go to the background: %s", g_strerror(-rc));
	if (rc == 0)
		rc = connect_and_serve(&options, &daemon);
	g_free(fuse_said);
	hmfs_options_clear(&options);
	return rc;
}
