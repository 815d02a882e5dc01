/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * child.c - what a forked child has of its parent's arenas: a private view at the live address.
 *
 * The views themselves stay with the parent (MADV_DONTFORK): a child's store would be one that
 * nobody saves. In their place the child maps the memory privately: it reads what its parent has
 * there now, also what that stores later to pages that the child has not stored to, and its own
 * stores are its own. So no store of a child gets into a snapshot.
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
	/* Where memory may not be promised (vm.overcommit_memory 2), it can at least be read. */
	map_private(a, PROT_READ);
	return false;
}
