/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * world_computer.c - in place of memory/pagemap.c, memory/headroom.c, base/urgent.c and
 * saving/effort.c: what the core asks the computer that it runs on. No order of steps depends on
 * the answers but on those about memory for the pool and about helpers, and the system calls for
 * them would take half of a run's time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "memory/within.h"
#include "saving/within.h"
#include "world_parts.h"

void ldfs_pagemap_open(struct ldfs_pagemap *p, const ldfs_arena *a)
{
	(void)a;
	*p = (struct ldfs_pagemap){ 0 };
}

void ldfs_pagemap_close(const struct ldfs_pagemap *p)
{
	(void)p;
}

/* Every view maps all that is no hole of the file. */
bool ldfs_pagemap_next(const struct ldfs_pagemap *p, const uint8_t *view, uint64_t from,
		       uint64_t limit, enum ldfs_mapped what, uint64_t *start, uint64_t *end)
{
	off_t first = lseek(world_arena->memfd, (off_t)from, SEEK_DATA), last;

	(void)p, (void)view;
	if (what != LDFS_MAPPED || first < 0 || (uint64_t)first >= limit)
		return false;
	last = lseek(world_arena->memfd, first, SEEK_HOLE);
	*start = (uint64_t)first;
	*end = (uint64_t)last < limit ? (uint64_t)last : limit;
	return true;
}

int ldfs_headroom(uint64_t bytes)
{
	(void)bytes;
	return true;
}

int ldfs_headroom_ram(uint64_t bytes)
{
	(void)bytes;
	errno = ENOMEM;
	return !world.short_of || !turn_choose(2, "no memory for the pool");
}

bool ldfs_urgent_raise(pid_t thread)
{
	(void)thread;
	return false;
}

void ldfs_urgent_lower(pid_t thread)
{
	(void)thread;
}

uint32_t ldfs_effort_helpers(void)
{
	return world.helpers;
}

uint32_t ldfs_effort_called(const ldfs_dump *d)
{
	uint32_t called;

	if (!d->effort.helpers)
		return 0;
	hook_step(&d->effort.called, "load called", __func__, __LINE__);
	called = atomic_load(&d->effort.called);
	actor_saw(called);
	return called;
}

void ldfs_effort_begin(const ldfs_dump *d, struct ldfs_spent *spent)
{
	(void)d, (void)spent;
}

/* Whatever was measured. */
void ldfs_effort_end(ldfs_dump *d, const struct ldfs_spent *spent)
{
	uint32_t called;

	(void)spent;
	if (!d->effort.helpers)
		return;
	called = (uint32_t)turn_choose((int)d->effort.helpers + 1, "helpers");
	hook_step(&d->effort.called, "store called", __func__, __LINE__);
	atomic_store(&d->effort.called, called);
	actor_wrote();
	if (called)
		ldfs_event_notify(&d->effort.change);
}
