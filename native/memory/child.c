/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * child.c - what a forked child has of its parent's arenas: a private mapping at the live address.
 *
 * The views themselves are not inherited (MADV_DONTFORK): no fault handler would save what a store
 * of the child overwrites. In their place the child maps the memory privately (copy-on-write). It
 * reads what the parent has there now, also later stores of the parent to pages that the child has
 * not written; its own stores go to pages of its own. So no store of a child gets into a snapshot.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "memory/memory.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000 /* Linux 4.17 */
#endif

static bool map_private(const ldfs_arena *a, int prot)
{
	const int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

	return mmap(a->live, a->size, prot, flags, a->memfd, 0) == a->live;
}

bool ldfs_child_map(const ldfs_arena *a)
{
	if (a->adopted || map_private(a, PROT_READ | PROT_WRITE))
		return true;
	/*
	 * With vm.overcommit_memory 2 the kernel may refuse a writable private mapping; reading
	 * still works.
	 */
	map_private(a, PROT_READ);
	return false;
}
