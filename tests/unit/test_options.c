// SPDX-License-Identifier: MIT
/*
 * options: command lines that are taken, and those that are not.
 *
 * What parsing has to say goes to /dev/null here; tests/mount looks at the words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/exit_codes.h"
#include "fs/options.h"

#define ARGS_MAX 8

/* With stdout and stderr silenced: the test's own protocol is on stdout. */
static int parse(const char *const *words, struct hmfs_options *ret)
{
	int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
	int null = open("/dev/null", O_WRONLY);
	char *argv[ARGS_MAX + 2] = { (char *)"hypermemfs" };
	int argc = 1, rc;

	for (; *words; words++)
		argv[argc++] = (char *)*words;
	fflush(stdout);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	rc = hmfs_options_parse(argc, argv, ret);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	close(null);
	close(out);
	close(err);
	return rc;
}

static void a_command_line_is_taken(void **state)
{
#define FUSE "subtype=hypermemfs,fsname=/run/vm.sock"
	static const struct {
		const char *words[ARGS_MAX];
		bool foreground, debug, readonly;
		int timeout_ms;
		const char *fuse;
	} rows[] = {
		{ { "/run/vm.sock", "/mnt" }, .timeout_ms = 5000, .fuse = FUSE },
		{ { "-f", "/run/vm.sock", "/mnt" }, true, .timeout_ms = 5000, .fuse = FUSE },
		{ { "-d", "/run/vm.sock", "/mnt" }, true, true, .timeout_ms = 5000, .fuse = FUSE },
		{ { "/run/vm.sock", "/mnt", "-o", "debug" }, true, true, .timeout_ms = 5000,
		  .fuse = FUSE },
		{ { "/run/vm.sock", "/mnt", "-o", "ro" }, .readonly = true, .timeout_ms = 5000,
		  .fuse = FUSE ",ro" },
		{ { "/run/vm.sock", "/mnt", "-o", "ro,timeout=1.5" }, .readonly = true,
		  .timeout_ms = 1500, .fuse = FUSE ",ro" },
		{ { "-o", "timeout=0.001", "-o", "timeout=3600", "/run/vm.sock", "/mnt" },
		  .timeout_ms = 3600000, .fuse = FUSE },
		{ { "/run/vm.sock", "/mnt", "-o", "allow_other" }, .timeout_ms = 5000,
		  .fuse = FUSE ",allow_other,default_permissions" },
		{ { "/run/vm.sock", "/mnt", "-o", "rw,defaults,nofail,x-systemd.automount,,auto" },
		  .timeout_ms = 5000, .fuse = FUSE },
		{ { "--", "/run/vm.sock", "/mnt" }, .timeout_ms = 5000, .fuse = FUSE },
		{ { "/run/../run/a,b\\c", "/mnt" }, .timeout_ms = 5000,
		  .fuse = "subtype=hypermemfs,fsname=/run/a\\,b\\\\c" },
		{ { "tcp:localhost:4444", "/mnt" }, .timeout_ms = 5000,
		  .fuse = "subtype=hypermemfs,fsname=tcp:localhost:4444" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hmfs_options options;

		if (parse(rows[i].words, &options) != 0)
			fail_msg("row %zu: refused", i);
		assert_int_equal(options.foreground, rows[i].foreground);
		assert_int_equal(options.debug, rows[i].debug);
		assert_int_equal(options.readonly, rows[i].readonly);
		assert_int_equal(options.timeout_ms, rows[i].timeout_ms);
		assert_string_equal(options.fuse_options, rows[i].fuse);
		assert_string_equal(options.mountpoint, "/mnt");
		hmfs_options_clear(&options);
	}
#undef FUSE
}

static void a_wrong_command_line_is_bad_usage(void **state)
{
	static const char *const rows[][ARGS_MAX] = {
		{ NULL },
		{ "/run/vm.sock" },
		{ "/run/vm.sock", "/mnt", "more" },
		{ "--nonsense", "/run/vm.sock", "/mnt" },
		{ "-x", "/run/vm.sock", "/mnt" },
		{ "/run/vm.sock", "/mnt", "-o" },
		{ "", "/mnt" },
		{ "tcp:localhost", "/mnt" },
		{ "udp:localhost:1", "/mnt" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=x" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=5s" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=0" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=-1" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=0.0009" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=3600.1" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=nan" },
		{ "/run/vm.sock", "/mnt", "-o", "timeout=inf" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hmfs_options options;
		int rc = parse(rows[i], &options);

		if (rc != -HMFS_EXIT_USAGE - 1)
			fail_msg("row %zu: %d", i, rc);
	}
}

static void help_and_version_are_no_errors(void **state)
{
	static const char *const rows[][ARGS_MAX] = {
		{ "-h" }, { "--help" }, { "-V" }, { "--version" }, { "--help", "/run/vm.sock" },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hmfs_options options;

		assert_int_equal(parse(rows[i], &options), -HMFS_EXIT_OK - 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command_line_is_taken),
		cmocka_unit_test(a_wrong_command_line_is_bad_usage),
		cmocka_unit_test(help_and_version_are_no_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
