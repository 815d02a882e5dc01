/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * arena.c - making and destroying an arena: its memory is made, then registered with the fault
 * handler, until both are taken down.
 */
#include <errno.h>

#include "life/life.h"

/* Register the arena with the fault handler; if that fails, free it. */
static int serve(ldfs_arena *a, ldfs_arena **out)
{
	int rc = ldfs_fault_register(a);

	if (rc) {
		ldfs_memory_free(a);
		return rc;
	}
	*out = a;
	return 0;
}

int ldfs_arena_create(uint64_t size, ldfs_arena **out)
{
	return ldfs_arena_create_of(size, LDFS_PAGES_SMALL, out);
}

int ldfs_arena_create_of(uint64_t size, uint32_t pages, ldfs_arena **out)
{
	ldfs_arena *a;
	int rc = ldfs_memory_make(size, pages, &a);

	return rc ? rc : serve(a, out);
}

int ldfs_arena_adopt(void *live, uint64_t size, int memfd, ldfs_arena **out)
{
	ldfs_arena *a;
	int rc = ldfs_memory_adopt(live, size, memfd, &a);

	return rc ? rc : serve(a, out);
}

int ldfs_arena_destroy(ldfs_arena *a)
{
	if (ldfs_arena_foreign(a))
		return 0;
	if (load_seq(&a->owner))
		return -EBUSY;
	ldfs_afterwards_stop(a);
	ldfs_fault_unregister(a);
	ldfs_monitor_stop(a);
	ldfs_track_forget(a);
	ldfs_memory_free(a);
	return 0;
}
