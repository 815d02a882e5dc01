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

static bool map(const ldfs_arena *a, int prot, int flags)
{
	return mmap(a->live, a->size, prot, flags | MAP_FIXED_NOREPLACE, a->memfd, 0) == a->live;
}

/*
 * A store to a hugetlb page needs another one for its copy, and where there is none the child would
 * end by SIGBUS in the middle of its work. So pages for all of it are set aside, or the child can
 * only read: the parent's own pages, which are there. What is set aside is the child's alone, so
 * its own children have nothing there: they would end by SIGBUS.
 */
static bool map_hugetlb(const ldfs_arena *a)
{
	if (map(a, PROT_READ | PROT_WRITE, MAP_PRIVATE)) {
		madvise(a->live, a->size, MADV_DONTFORK);
		return true;
	}
	map(a, PROT_READ, MAP_SHARED);
	return false;
}

bool ldfs_child_map(const ldfs_arena *a)
{
	const int flags = MAP_PRIVATE | MAP_NORESERVE;

	if (a->adopted)
		return true;
	if (ldfs_arena_huge(a))
		return map_hugetlb(a);
	if (map(a, PROT_READ | PROT_WRITE, flags))
		return true;
	/*
	 * With vm.overcommit_memory 2 the kernel may refuse a writable private mapping; reading
	 * still works.
	 */
	map(a, PROT_READ, flags);
	return false;
}
