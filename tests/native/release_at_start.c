/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RELEASE from another thread at any moment of a START, beside a thread that is not stopped: its
 * stores go on, before, between and after, and the next dump is there. "lives", when some STARTs
 * were cut off and some were not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/relax.h"
#include "ldfs.h"

#define SIZE (128ull << 20) /* START's own disarming takes a while */
#define PAGE 4096ull
#define ROUNDS 33
#define ROUNDS_MOST 600
#define STEPS 97 /* the moments of RELEASE are spread over so many, closer at the beginning */
#define STRIDE 3 /* from one to the next: few rounds reach all of them */

static unsigned char *live;
static ldfs_dump *dump;
static _Atomic unsigned long stores;
static _Atomic int asked, quit;
static _Atomic unsigned long delay;

static void *store(void *nothing)
{
	for (unsigned long i = 0; !atomic_load(&quit); i++) {
		*(volatile unsigned char *)(live + i * 7 * PAGE % SIZE) = 1;
		atomic_store_explicit(&stores, i, memory_order_relaxed);
	}
	return nothing;
}

static void *release(void *nothing)
{
	while (!atomic_load(&quit)) {
		if (atomic_load(&asked) != 1) {
			sched_yield(); /* the owner may wait for this processor */
			continue;
		}
		for (unsigned long i = atomic_load(&delay); i; i--)
			relax();
		ldfs_dump_release(dump);
		atomic_store(&asked, 0);
	}
	return nothing;
}

/* 0: START was through first, 1: it was cut off, -1: neither. */
static int round_of(ldfs_arena *arena, unsigned long pauses)
{
	ldfs_dump_config config = { .granule_size = 16 * PAGE,
				    .pool_size = 1 << 20,
				    .policy = LDFS_POLICY_FAIL,
				    .target_fd = -1,
				    .table_fd = -1,
				    .uffd_fd = -1,
				    .stall_deadline_ns = 1000000000 };
	unsigned long before;
	int rc;

	if (ldfs_dump_init(arena, &config, &dump))
		return -1;
	atomic_store(&delay, pauses);
	atomic_store(&asked, 1);
	rc = ldfs_dump_start(dump, NULL, 0);
	while (atomic_load(&asked))
		sched_yield();
	ldfs_dump_release(dump);
	if (ldfs_dump_free(dump) || (rc && rc != -ECANCELED && rc != -EINVAL))
		return -1;
	before = atomic_load(&stores);
	while (atomic_load(&stores) == before)
		sched_yield();
	return rc != 0;
}

int main(void)
{
	ldfs_arena *arena;
	pthread_t writer, other;
	int ended[2] = { 0, 0 };

	if (ldfs_arena_create(SIZE, &arena))
		return 1;
	live = ldfs_arena_live(arena);
	memset(live, 1, SIZE);
	pthread_create(&writer, NULL, store, NULL);
	pthread_create(&other, NULL, release, NULL);
	/* More of them where a thread did not get its processor in time. */
	for (unsigned long i = 0; i < ROUNDS || (i < ROUNDS_MOST && !(ended[0] && ended[1])); i++) {
		unsigned long step = i * STRIDE % STEPS;
		int how = round_of(arena, step * step * 20);

		if (how < 0)
			return 2;
		ended[how]++;
	}
	atomic_store(&quit, 1);
	pthread_join(writer, NULL);
	pthread_join(other, NULL);
	puts(ended[0] && ended[1] ? "lives" : "never at the same time");
	return ldfs_arena_destroy(arena);
}
