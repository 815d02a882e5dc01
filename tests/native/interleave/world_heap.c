/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * world_heap.c - memory that the core takes for itself. What was freed stays as it is to the end of
 * the run, so that an actor which touches it is found.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "world_parts.h"

#define FREED_MOST 64
#define POOLS 2

static void *freed[FREED_MOST];
static size_t freed_length[FREED_MOST];
static unsigned freed_count;
/* The pool of a dump: the system calls for it would take most of a run's time. Whole
 * pages, because pool.c sets their rights. */
static _Alignas(PAGE) uint8_t pools[POOLS][GRANULES_MOST * PAGE];
static bool pool_taken[POOLS];

void heap_end(void)
{
	while (freed_count)
		free(freed[--freed_count]);
}

uint64_t heap_state(uint64_t h)
{
	return mix(h, freed_count);
}

void check_not_freed(const volatile void *at)
{
	for (unsigned i = 0; i < freed_count; i++)
		if ((uintptr_t)at - (uintptr_t)freed[i] < freed_length[i])
			violated("memory of a freed dump is touched");
}

void hook_free(void *p)
{
	if (!scheduled() || !p) {
		free(p);
		return;
	}
	if (p == world_dump)
		world_dump = NULL;
	if (freed_count == FREED_MOST)
		violated("too much freed");
	freed[freed_count] = p;
	freed_length[freed_count++] = malloc_usable_size(p);
}

static int pool_of(const void *at)
{
	for (int i = 0; i < POOLS; i++)
		if ((uintptr_t)at - (uintptr_t)pools[i] < sizeof(pools[i]))
			return i;
	return -1;
}

void *hook_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	int i = pool_taken[0];

	if (!world_arena || fd >= 0 || length > sizeof(pools[0]) || pool_taken[i])
		return mmap(at, length, prot, flags, fd, offset);
	memset(pools[i], 0, sizeof(pools[i]));
	pool_taken[i] = true;
	return pools[i];
}

int hook_munmap(void *at, size_t length)
{
	if (pool_of(at) < 0)
		return munmap(at, length);
	pool_taken[pool_of(at)] = false;
	return 0;
}

/* The page tables of the views need not be filled. Memory that was given back reads as zeros. */
int hook_madvise(void *at, size_t length, int advice)
{
	if (!world_arena)
		return madvise(at, length, advice);
	if (advice == MADV_DONTNEED && pool_of(at) >= 0) {
		STEP("give back");
		memset(at, 0, length);
		actor_wrote();
	}
	return 0;
}
