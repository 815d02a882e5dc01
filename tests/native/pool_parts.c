/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool_parts.c - the pool by itself: several keepers, and a process whose memory is locked. Prints
 * what is wrong, then "right" when nothing was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "state/state.h"

#define SLOTS 6u
#define CHECK(what)                                                       \
	do {                                                              \
		if (!(what)) {                                            \
			printf("line %d: not so: %s\n", __LINE__, #what); \
			fflush(stdout);                                   \
			_exit(1);                                         \
		}                                                         \
	} while (0)

/* ------------------------------------------------------------------- keepers */

/* What a keeper finds is the end is not the end of what another one is making. */
static void check_two_keepers(void)
{
	struct ldfs_ring r = { 0 };
	uint32_t mine, others, count;

	CHECK(ldfs_ring_init(&r, LDFS_PAGE_SIZE, 1, SLOTS) == 0);
	CHECK(ldfs_ring_can_grow(&r));
	store_seq(&r.ahead, SLOTS);
	CHECK((others = ldfs_pool_plan(&r, 2, &count)) && count == 2);
	CHECK((mine = ldfs_pool_plan(&r, 3, &count)) && count == 3);
	CHECK(ldfs_pool_growing(&r) == 2 + 3);
	CHECK(ldfs_pool_grow(&r, mine, 3, false) == -ENOMEM);
	CHECK(!ldfs_pool_settle(&r) && load_seq(&r.limit) == SLOTS);
	CHECK(ldfs_ring_can_grow(&r)); /* a thread that finds no slot waits */
	CHECK(ldfs_pool_grow(&r, others, 2, true) == 0);
	CHECK(ldfs_pool_settle(&r) && load_seq(&r.limit) == 1 + 2);
	CHECK(!ldfs_ring_can_grow(&r) && load_seq(&r.made) == 1 + 2);
	ldfs_ring_destroy(&r);
}

/* ------------------------------------------------------------- locked memory */

#define LOCKED_MOST 1024
#define LOCKED_SLOT 65536u

static uint64_t resident(void)
{
	FILE *statm = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	CHECK(statm && fscanf(statm, "%*u %lu", &pages) == 1);
	fclose(statm);
	return pages * LDFS_PAGE_SIZE;
}

static void use_locked_pool(bool may_lock_all)
{
	uint64_t before = resident();
	struct ldfs_ring r = { 0 };
	uint32_t slot;

	CHECK(ldfs_ring_init(&r, LOCKED_SLOT, 2, LOCKED_MOST) == 0);
	CHECK(r.reserved == (may_lock_all ? LOCKED_MOST : 2) && r.grows == may_lock_all);
	CHECK(resident() - before < LOCKED_MOST / 2 * LOCKED_SLOT);
	slot = ldfs_ring_take(&r);
	ldfs_slot_bytes(&r, slot)[0] = 1;
	ldfs_ring_give(&r, slot);
	CHECK(ldfs_pool_shrink(&r, 2) == 2);
	CHECK(ldfs_slot_bytes(&r, slot)[0] == 0); /* really given back */
	ldfs_ring_destroy(&r);
}

static void in_child(bool may_lock_all)
{
	struct rlimit little = { 8u << 20, 8u << 20 };
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		if (!may_lock_all)
			CHECK(!setrlimit(RLIMIT_MEMLOCK, &little) &&
			      (geteuid() || !setresuid(65534, 65534, 65534)));
		CHECK(mlockall(MCL_FUTURE) == 0);
		use_locked_pool(may_lock_all);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A program that has all of its memory locked, as QEMU with mem-lock=on. */
static void check_locked_memory(void)
{
	in_child(false);
	if (geteuid() == 0)
		in_child(true);
}

int main(void)
{
	check_two_keepers();
	check_locked_memory();
	puts("right");
	return 0;
}
