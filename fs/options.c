// SPDX-License-Identifier: MIT
/*
 * options: the command line.  See options.h.
 *
 * Options of our own are taken out of -o; the rest goes to libfuse as it is, less
 * what mount(8) and fstab use for themselves.
 */
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "bridge/chardev.h"
#include "fs/exit_codes.h"
#include "fs/options.h"

#define TIMEOUT_DEFAULT_S 5
#define TIMEOUT_MAX_S 3600

static const char usage[] =
	"Usage: hypermemfs [options] CHARDEV MOUNTPOINT\n"
	"       mount -t fuse.hypermemfs [-o options] CHARDEV MOUNTPOINT\n"
	"\n"
	"Show the processes of a QEMU guest as files.\n"
	"\n"
	"CHARDEV is where QEMU's chardev is: the path of a Unix socket, pty or character\n"
	"device, or tcp:HOST:PORT; with serial: before it if the guest has a serial line\n"
	"there.  The guest has hypermem.ko loaded.\n"
	"\n"
	"  -f              stay in the foreground\n"
	"  -d              the same, and print a line for each frame to and from the guest\n"
	"  -o ro           read-only; the guest refuses writes too\n"
	"  -o timeout=SEC  how long to wait for the guest to answer (default 5)\n"
	"  -o ram=HOW      auto: copy large reads from the guest's RAM in QEMU's memory if that\n"
	"                  can be done (default); off: never; require: fail if it cannot\n"
	"  -o allow_other  let other users in, as far as modes and owners let them\n"
	"  -o OPTION,...   more options, for FUSE: see mount.fuse3(8)\n"
	"  -h, --help      this text\n"
	"  -V, --version   the version\n"
	"\n"
	"Unmount with: fusermount3 -u MOUNTPOINT\n";

static int quit(enum hmfs_exit status)
{
	return -(int)status - 1;
}

static int bad_usage(const char *format, ...) G_GNUC_PRINTF(1, 2);

static int bad_usage(const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	fprintf(stderr, "hypermemfs: %s (see hypermemfs --help)\n", text);
	return quit(HMFS_EXIT_USAGE);
}

static int parse_timeout(const char *text, int *ret_ms)
{
	char *end;
	double seconds = g_ascii_strtod(text, &end);

	if (end == text || *end || !(seconds >= 0.001 && seconds <= TIMEOUT_MAX_S))
		return bad_usage("timeout=%s: not a number of seconds from 0.001 to %d", text,
				 TIMEOUT_MAX_S);
	*ret_ms = (int)(seconds * 1000);
	return 0;
}

static int parse_ram(const char *text, enum hm_ram_use *ret)
{
	static const char *const words[] = {
		[HM_RAM_AUTO] = "auto", [HM_RAM_OFF] = "off", [HM_RAM_REQUIRE] = "require",
	};

	for (gsize i = 0; i < G_N_ELEMENTS(words); i++)
		if (strcmp(text, words[i]) == 0) {
			*ret = (enum hm_ram_use)i;
			return 0;
		}
	return bad_usage("ram=%s: not one of auto, off, require", text);
}

/* Words of fstab that are for whoever runs mount, and mean nothing to a mounted file system. */
static bool is_for_mount(const char *option)
{
	static const char *const words[] = { "defaults", "auto", "noauto", "user", "nouser",
					     "users", "nofail", "_netdev", "rw" };

	if (g_str_has_prefix(option, "x-") || g_str_has_prefix(option, "comment="))
		return true;
	for (gsize i = 0; i < G_N_ELEMENTS(words); i++)
		if (strcmp(option, words[i]) == 0)
			return true;
	return false;
}

static int parse_mount_options(const char *text, struct hmfs_options *options, GString *fuse)
{
	g_auto(GStrv) words = g_strsplit(text, ",", -1);
	int rc = 0;

	for (char **word = words; *word && rc == 0; word++) {
		if (g_str_has_prefix(*word, "timeout="))
			rc = parse_timeout(*word + strlen("timeout="), &options->timeout_ms);
		else if (g_str_has_prefix(*word, "ram="))
			rc = parse_ram(*word + strlen("ram="), &options->ram);
		else if (strcmp(*word, "debug") == 0)
			options->debug = options->foreground = true;
		else if (**word && !is_for_mount(*word))
			g_string_append_printf(fuse, ",%s", *word);
		if (strcmp(*word, "ro") == 0)
			options->readonly = true;
		/* Whoever is let in is let in as far as the modes say, not everywhere. */
		if (strcmp(*word, "allow_other") == 0 || strcmp(*word, "allow_root") == 0) {
			g_string_append(fuse, ",default_permissions");
			options->others = true;
		}
	}
	return rc;
}

static int parse_chardev(const char *text, struct hmfs_options *options)
{
	if (hm_chardev_resolve(text, &options->chardev) < 0)
		return bad_usage("%s: neither a path nor tcp:HOST:PORT, nor serial: and one of these", text);
	return 0;
}

static int parse_operands(char **operands, struct hmfs_options *options)
{
	guint n = operands ? g_strv_length(operands) : 0;

	if (n < 2)
		return bad_usage("%s", n == 0 ? "CHARDEV and MOUNTPOINT are missing" :
						"MOUNTPOINT is missing");
	if (n > 2)
		return bad_usage("unexpected argument '%s'", operands[2]);
	options->mountpoint = g_canonicalize_filename(operands[1], NULL);
	return parse_chardev(operands[0], options);
}

/* libfuse's part: what the file system is called in mount tables, and what was asked for. */
static char *fuse_options(const struct hmfs_options *options, const GString *more)
{
	g_autoptr(GString) text = g_string_new("subtype=hypermemfs,fsname=");

	for (const char *c = options->chardev; *c; c++) {
		if (*c == ',' || *c == '\\')
			g_string_append_c(text, '\\');
		g_string_append_c(text, *c);
	}
	g_string_append(text, more->str);
	return g_string_free(g_steal_pointer(&text), FALSE);
}

int hmfs_options_parse(int argc, char **argv, struct hmfs_options *ret)
{
	struct hmfs_options options = { .timeout_ms = TIMEOUT_DEFAULT_S * 1000 };
	gboolean foreground = FALSE, debug = FALSE, help = FALSE, version = FALSE;
	g_auto(GStrv) mount_options = NULL, operands = NULL;
	g_autoptr(GString) fuse = g_string_new(NULL);
	g_autoptr(GError) error = NULL;
	const GOptionEntry entries[] = {
		{ "foreground", 'f', 0, G_OPTION_ARG_NONE, &foreground, NULL, NULL },
		{ "debug", 'd', 0, G_OPTION_ARG_NONE, &debug, NULL, NULL },
		{ "options", 'o', 0, G_OPTION_ARG_STRING_ARRAY, &mount_options, NULL, NULL },
		{ "help", 'h', 0, G_OPTION_ARG_NONE, &help, NULL, NULL },
		{ "version", 'V', 0, G_OPTION_ARG_NONE, &version, NULL, NULL },
		{ G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &operands, NULL, NULL },
		{},
	};
	g_autoptr(GOptionContext) context = g_option_context_new(NULL);
	int rc = 0;

	g_option_context_set_help_enabled(context, FALSE);
	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error))
		return bad_usage("%s", error->message);
	if (help) {
		fputs(usage, stdout);
		return quit(HMFS_EXIT_OK);
	}
	if (version) {
		printf("hypermemfs %s\n", HYPERMEMFS_VERSION);
		return quit(HMFS_EXIT_OK);
	}
	options.debug = debug;
	options.foreground = foreground || debug;
	for (char **text = mount_options; text && *text && rc == 0; text++)
		rc = parse_mount_options(*text, &options, fuse);
	if (rc == 0)
		rc = parse_operands(operands, &options);
	if (rc < 0) {
		hmfs_options_clear(&options);
		return rc;
	}
	options.fuse_options = fuse_options(&options, fuse);
	*ret = options;
	return 0;
}

void hmfs_options_clear(struct hmfs_options *options)
{
	g_free(options->chardev);
	g_free(options->mountpoint);
	g_free(options->fuse_options);
}
