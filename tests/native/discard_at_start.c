/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A discard that is under way when START begins, with userfaultfd, and a reader that has the
 * discarded pages mapped again: what is stored there after the instant must not show in the
 * snapshot.
 *
 *   discard_at_start MICROSECONDS ROUNDS    from the discard's begin to START; prints "same", or
 * the first that differs
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ldfs.h"

#define SIZE (192ULL << 20)
#define PUNCHED (128ULL << 20)
#define STEP (64ULL << 10)

static ldfs_arena *arena;
static uint8_t *live;
static atomic_int begun, over;

static void die(const char *what, int rc)
{
	printf("%s: %d\n", what, rc);
	exit(1);
}

static void *discard(void *unused)
{
	int rc;

	begun = 1;
	rc = ldfs_arena_discard(arena, 0, PUNCHED);
	if (rc)
		die("discard", rc);
	return unused;
}

/* Its page faults take away what the kernel still knows of the protection. */
static void *read_on(void *unused)
{
	volatile uint8_t sink;

	while (!over)
		for (uint64_t at = 0; at < PUNCHED; at += STEP)
			sink = live[at];
	(void)sink;
	return unused;
}

static void store_and_look(ldfs_dump *d)
{
	uint8_t before[PUNCHED / STEP], now;
	int rc = 0;

	for (uint64_t at = 0; !rc && at < PUNCHED; at += STEP)
		rc = ldfs_dump_read(d, at, &before[at / STEP], 1);
	for (uint64_t at = 0; at < PUNCHED; at += STEP)
		((volatile uint8_t *)live)[at] = 0x77;
	for (uint64_t at = 0; !rc && at < PUNCHED; at += STEP) {
		rc = ldfs_dump_read(d, at, &now, 1);
		if (!rc && now != before[at / STEP])
			die("changed", now);
	}
	if (rc)
		die("read", rc);
}

static void one_round(unsigned microseconds, uint32_t backend)
{
	ldfs_dump_config config = {
		.granule_size = STEP,
		.pool_size = SIZE,
		.stall_deadline_ns = 1000000000,
		.policy = LDFS_POLICY_BLOCK,
		.arming = LDFS_ARM_SWAP,
		.backend = backend,
		.uffd_fd = -1,
		.target_fd = -1,
		.table_fd = -1,
	};
	pthread_t thread;
	ldfs_dump *d;
	int rc;

	memset(live, 0x11, SIZE);
	rc = ldfs_dump_init(arena, &config, &d);
	if (rc)
		die("init", rc);
	begun = 0;
	if (pthread_create(&thread, NULL, discard, NULL))
		die("thread", 0);
	while (!begun)
		;
	usleep(microseconds);
	rc = ldfs_dump_start(d, NULL, 0);
	if (rc)
		die("start", rc);
	pthread_join(thread, NULL);
	store_and_look(d);
	rc = ldfs_dump_release(d);
	rc = rc ? rc : ldfs_dump_free(d);
	if (rc)
		die("release", rc);
}

int main(int argc, char **argv)
{
	pthread_t reader;

	if (argc != 3 || ldfs_arena_create(SIZE, &arena))
		return 2;
	live = ldfs_arena_live(arena);
	if (pthread_create(&reader, NULL, read_on, NULL))
		return 2;
	for (int i = 0; i < atoi(argv[2]); i++)
		one_round((unsigned)atoi(argv[1]), i % 2 ? LDFS_BACKEND_SIGBUS : LDFS_BACKEND_UFFD);
	over = 1;
	pthread_join(reader, NULL);
	puts("same");
	return 0;
}
