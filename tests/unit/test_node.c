// SPDX-License-Identifier: MIT
/*
 * node: which paths name something, by their form alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "fs/node.h"

static void a_path_names_a_row_and_its_numbers(void **state)
{
	static const struct {
		const char *path, *name;	/* NULL: the row of a number */
		uint32_t pid, fd;
		mode_t type;
		uint64_t addr;
	} rows[] = {
		{ "/", "/", 0, 0, S_IFDIR },
		{ "", "/", 0, 0, S_IFDIR },
		{ "/info", "info", 0, 0, S_IFREG },
		{ "/pid", "pid", 0, 0, S_IFDIR },
		{ "/pid/", "pid", 0, 0, S_IFDIR },
		{ "//pid//1", NULL, 1, 0, S_IFDIR },
		{ "/pid/1", NULL, 1, 0, S_IFDIR },
		{ "/pid/4194303", NULL, 4194303, 0, S_IFDIR },
		{ "/pid/42/mem", "mem", 42, 0, S_IFREG },
		{ "/pid/42/cmdline", "cmdline", 42, 0, S_IFREG },
		{ "/pid/42/environ", "environ", 42, 0, S_IFREG },
		{ "/pid/42/maps", "maps", 42, 0, S_IFREG },
		{ "/pid/42/exe", "exe", 42, 0, S_IFLNK },
		{ "/pid/42/fd", "fd", 42, 0, S_IFDIR },
		{ "/pid/42/fd/0", NULL, 42, 0, S_IFLNK },
		{ "/pid/42/fd/10", NULL, 42, 10, S_IFLNK },
		{ "/pid/42/fd/2147483647", NULL, 42, INT32_MAX, S_IFLNK },
		{ "/pid/42/int", "int", 42, 0, S_IFDIR },
		{ "/pid/42/int/0", NULL, 42, 0, S_IFREG, 0 },
		{ "/pid/42/int/10", NULL, 42, 0, S_IFREG, 10 },
		{ "/pid/42/uint/0x10", NULL, 42, 0, S_IFREG, 0x10 },
		{ "/pid/42/long/0X00ff", NULL, 42, 0, S_IFREG, 0xff },
		{ "/pid/42/ptr/0xffffffffFFFFFFFF", NULL, 42, 0, S_IFREG, UINT64_MAX },
		{ "/pid/42/str/18446744073709551615", NULL, 42, 0, S_IFREG, UINT64_MAX },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hmfs_node node = {};

		if (hmfs_node_lookup(rows[i].path, &node) != 0)
			fail_msg("%s: not found", rows[i].path);
		if (g_strcmp0(node.row->name, rows[i].name) != 0 || node.pid != rows[i].pid ||
		    node.fd != rows[i].fd || node.addr != rows[i].addr || (node.row->mode & S_IFMT) != rows[i].type)
			fail_msg("%s: %s, %u, %u", rows[i].path, node.row->name, node.pid,
				 node.fd);
	}
}

static void what_is_not_in_the_tree_is_enoent(void **state)
{
	static const struct {
		const char *path;
		int rc;
	} rows[] = {
		{ "/nothing", -ENOENT },
		{ "/inf", -ENOENT },
		{ "/infos", -ENOENT },
		{ "/Info", -ENOENT },
		{ "/.", -ENOENT },
		{ "/..", -ENOENT },
		{ "/1", -ENOENT },
		/* Numbers have one form. */
		{ "/pid/0", -ENOENT },
		{ "/pid/00", -ENOENT },
		{ "/pid/01", -ENOENT },
		{ "/pid/+1", -ENOENT },
		{ "/pid/-1", -ENOENT },
		{ "/pid/ 1", -ENOENT },
		{ "/pid/1 ", -ENOENT },
		{ "/pid/1x", -ENOENT },
		{ "/pid/0x1", -ENOENT },
		{ "/pid/1e3", -ENOENT },
		{ "/pid/self", -ENOENT },
		{ "/pid/\xd9\xa1", -ENOENT },	/* a digit, to some */
		{ "/pid/2147483648", -ENOENT },
		{ "/pid/4294967297", -ENOENT },
		{ "/pid/9999999999", -ENOENT },
		{ "/pid/18446744073709551617", -ENOENT },
		{ "/pid/11111111111111111111111111111111111111111111", -ENOENT },
		{ "/pid/42/nothing", -ENOENT },
		{ "/pid/42/0", -ENOENT },
		{ "/pid/42/fd/00", -ENOENT },
		{ "/pid/42/fd/01", -ENOENT },
		{ "/pid/42/fd/-1", -ENOENT },
		{ "/pid/42/fd/2147483648", -ENOENT },
		{ "/pid/42/fd/mem", -ENOENT },
		{ "/pid/42/fd/0x1", -ENOENT },
		/* Those of addresses are as in C, but none is octal. */
		{ "/pid/42/int/010", -ENOENT },
		{ "/pid/42/int/-1", -ENOENT },
		{ "/pid/42/int/0x", -ENOENT },
		{ "/pid/42/int/0x0x1", -ENOENT },
		{ "/pid/42/int/ff", -ENOENT },
		{ "/pid/42/int/18446744073709551616", -ENOENT },
		{ "/pid/42/int/0x10000000000000000", -ENOENT },
		{ "/pid/42/int/36893488147419103232", -ENOENT },	/* 2^65 */
		{ "/pid/42/str/..", -ENOENT },
		{ "/pid/42/int/0/0", -ENOTDIR },
		/* Below what is no directory. */
		{ "/info/x", -ENOTDIR },
		{ "/pid/42/mem/x", -ENOTDIR },
		{ "/pid/42/mem/x/y", -ENOTDIR },
		{ "/pid/42/exe/x", -ENOTDIR },
		{ "/pid/42/fd/1/x", -ENOTDIR },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		struct hmfs_node node = { .pid = 7 };
		int rc = hmfs_node_lookup(rows[i].path, &node);

		if (rc != rows[i].rc)
			fail_msg("%s: %d", rows[i].path, rc);
		/* Written only on success. */
		assert_int_equal(node.pid, 7);
		assert_null(node.row);
	}
}

static void a_hook_has_any_name_that_is_one_line(void **state)
{
	static const struct {
		const char *path;
		int lookup, make;	/* what mkdir says, without a guest */
	} rows[] = {
		{ "/hooks/x/y", -ENOENT, -EPERM },
		{ "/hooks/x/filter/y", -ENOTDIR, -EPERM },
		{ "/hooks/\n", -ENOENT, -EINVAL },
		{ "/hooks/a\177b", -ENOENT, -EINVAL },
		{ "/hooks/0123456789012345678901234567890123456789012345678901234567890123",
		  -ENOENT, -ENAMETOOLONG },
		{ "/pid/42/x", -ENOENT, -EPERM },
		{ "/pid/42/mem", 0, -EPERM },
		{ "/x", -ENOENT, -EPERM },
	};
	static const char *const names[] = {
		"raeth", "1", "a b", "it's", "\303\244", "\377", "-", ".x", "*",
		"012345678901234567890123456789012345678901234567890123456789012",
	};
	struct hmfs_node node;

	for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
		g_autofree char *path = g_strdup_printf("/hooks/%s/filter", names[i]);

		if (hmfs_node_lookup(path, &node) != 0)
			fail_msg("%s: not found", path);
		assert_string_equal(node.hook, names[i]);
		assert_string_equal(node.row->name, "filter");
	}
	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		if (hmfs_node_lookup(rows[i].path, &node) != rows[i].lookup)
			fail_msg("%s", rows[i].path);
		if (hmfs_node_make(NULL, rows[i].path) != rows[i].make)
			fail_msg("mkdir %s", rows[i].path);
	}
}

static void a_name_that_cannot_be_made_says_why(void **state)
{
	assert_int_equal(hmfs_node_create("/pid/42/int/x"), -EINVAL);
	assert_int_equal(hmfs_node_create("/pid/42/str/0x10000000000000000"), -EINVAL);
	assert_int_equal(hmfs_node_create("/pid/42/x"), -EPERM);
	assert_int_equal(hmfs_node_create("/pid/42/fd/x"), -EPERM);
	assert_int_equal(hmfs_node_create("/x"), -EPERM);
}

/* Every file of the tree says how it is read, and every directory what is in it. */
static void check_rows(const struct hmfs_row *rows)
{
	for (; rows->name || rows->number != HMFS_NAME; rows++) {
		const char *name = rows->name ?: "(number)";

		if (S_ISDIR(rows->mode) ? !rows->rows :
					  S_ISLNK(rows->mode) ? !rows->readlink :
								!rows->read && !rows->write)
			fail_msg("%s: nothing does it", name);
		if (S_ISREG(rows->mode) && !!rows->read != !!(rows->mode & 0444))
			fail_msg("%s: mode %o", name, rows->mode);
		if (!!rows->write != (S_ISREG(rows->mode) && (rows->mode & 0222)))
			fail_msg("%s: mode %o", name, rows->mode);
		if (rows->rows)
			check_rows(rows->rows);
	}
}

static void every_row_can_do_what_its_mode_says(void **state)
{
	struct hmfs_node root;

	assert_int_equal(hmfs_node_lookup("/", &root), 0);
	check_rows(root.row->rows);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_names_a_row_and_its_numbers),
		cmocka_unit_test(what_is_not_in_the_tree_is_enoent),
		cmocka_unit_test(a_hook_has_any_name_that_is_one_line),
		cmocka_unit_test(a_name_that_cannot_be_made_says_why),
		cmocka_unit_test(every_row_can_do_what_its_mode_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
