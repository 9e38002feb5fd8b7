// SPDX-License-Identifier: GPL-2.0
/*
 * hook_symbol: which functions of this kernel are system calls, and where.  See hook.h.
 *
 * A probe can be put on a symbol, but to look for one takes a walk through all of them on many
 * kernels, and there are some thousand names to look for.  So its own list is walked
 * once, the first time that it is needed.
 */
#include <linux/kallsyms.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "hook.h"
#include "hook_arch.h"
#include "hook_names.h"

static const char *const hook_prefixes[] = { HOOK_PREFIXES };

static struct {
	struct hook_symbol *symbols;	/* NULL: not looked for yet */
	u32 n, max;
	unsigned long unimplemented;	/* where all of those are */
} found;

static bool name_is_listed(const char *name)
{
	unsigned int low = 0, high = ARRAY_SIZE(hook_names);

	while (low < high) {
		unsigned int middle = (low + high) / 2;
		int order = strcmp(name, hook_names[middle]);

		if (!order)
			return true;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}

static bool name_is_alias(const char *name)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(hook_aliases); i++)
		if (!strcmp(hook_aliases[i].kernel, name))
			return true;
	return false;
}

static void symbol_add(const char *symbol, const char *call, unsigned long addr)
{
	struct hook_symbol *entry;

	if (found.n == found.max)
		return;
	entry = &found.symbols[found.n++];
	strscpy(entry->name, symbol, sizeof(entry->name));
	entry->call = call - symbol;
	entry->addr = addr;
}

/* A line of /proc/kallsyms: address, type, name, and perhaps a module's name. */
static void symbol_look(const char *line, void *data)
{
	unsigned long addr;
	char type, name[HOOK_SYMBOL_SIZE];
	unsigned int i;

	if (sscanf(line, "%lx %c %63s", &addr, &type, name) != 3 || strchr(line, '['))
		return;
	if (!strcmp(name, "sys_ni_syscall"))
		found.unimplemented = addr;
	if (type != 'T' && type != 't')
		return;		/* weak: it is not implemented, either */
	for (i = 0; i < ARRAY_SIZE(hook_prefixes); i++) {
		size_t n = strlen(hook_prefixes[i]);

		if (!strncmp(name, hook_prefixes[i], n) &&
		    (name_is_listed(name + n) || name_is_alias(name + n)))
			symbol_add(name, name + n, addr);
	}
}

int hook_symbols_find(void)
{
	int rc;

	if (found.symbols)
		return 0;
	found.max = ARRAY_SIZE(hook_prefixes) * (ARRAY_SIZE(hook_names) + ARRAY_SIZE(hook_aliases));
	found.symbols = kvcalloc(found.max, sizeof(*found.symbols), GFP_KERNEL);
	if (!found.symbols)
		return -ENOMEM;
	rc = hypermem_procfs_records("kallsyms", symbol_look, NULL);
	if (rc)
		hook_symbols_forget();
	return rc;
}

void hook_symbols_forget(void)
{
	kvfree(found.symbols);
	memset(&found, 0, sizeof(found));
}

static bool symbol_is_call(const struct hook_symbol *symbol)
{
	return !symbol->addr || symbol->addr != found.unimplemented;
}

const struct hook_symbol *hook_symbol_next(const struct hook_symbol *symbol)
{
	for (symbol = symbol ? symbol + 1 : found.symbols; symbol < found.symbols + found.n;
	     symbol++)
		if (symbol_is_call(symbol))
			return symbol;
	return NULL;
}

bool hook_symbol_is(const struct hook_symbol *symbol, const char *name)
{
	const char *call = symbol->name + symbol->call;
	unsigned int i;

	if (!strcmp(name, "*") || !strcmp(name, call))
		return true;
	for (i = 0; i < ARRAY_SIZE(hook_aliases); i++)
		if (!strcmp(hook_aliases[i].abi, name) && !strcmp(hook_aliases[i].kernel, call))
			return true;
	return false;
}

u32 hook_symbols_max(void)
{
	return found.n;
}
