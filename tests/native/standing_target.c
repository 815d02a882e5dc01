/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A target that stands still for a while, under policy block.
 *
 *     standing_target stores
 *         as many scattered stores as the pool has slots: none waits, none is lost
 *     standing_target user
 *         a thread that waits for a slot keeps no other from changing the process's user
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ldfs.h"

#define SECOND 1000000000ull
#define GRANULE 65536ull
#define SIZE (64ull << 20)
#define GRANULES (SIZE / GRANULE)
#define BLOCK 16 /* granules of a MiB, as far as a fault looks around */
#define PER_BLOCK 4
#define SLOTS (GRANULES / BLOCK * PER_BLOCK)
#define LATE_S \
	20 /* of a process that was started for this alone: far beyond any turn of a scheduler */

static _Atomic int hung, done;
static unsigned char *live;
static ldfs_dump *dump;
static pthread_t watch;

/* The core's, in this program. */
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
	while (atomic_load(&hung))
		usleep(1000);
	return syscall(SYS_pwrite64, fd, bytes, length, at);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	ssize_t sum = 0;

	for (int i = 0; i < count; i++) {
		ssize_t n = pwrite(fd, iov[i].iov_base, iov[i].iov_len, at + sum);

		if (n < 0)
			return n;
		sum += n;
	}
	return sum;
}

static void *not_for_ever(void *nothing)
{
	for (int i = 0; i < LATE_S * 100 && atomic_load(&hung); i++)
		usleep(10000);
	atomic_store(&hung, 0);
	return nothing;
}

static int begin(ldfs_arena *arena, unsigned long slots)
{
	ldfs_extent extent = { 0, SIZE, 0 };
	ldfs_dump_config config = { .granule_size = GRANULE,
				    .pool_size = slots * GRANULE,
				    .policy = LDFS_POLICY_BLOCK,
				    .extents = &extent,
				    .extent_count = 1,
				    .target_fd = memfd_create("target", MFD_CLOEXEC),
				    .table_fd = -1,
				    .uffd_fd = -1,
				    .stall_deadline_ns = 600 * SECOND };

	live = ldfs_arena_live(arena);
	memset(live, 1, SIZE);
	if (ftruncate(config.target_fd, SIZE) || ldfs_dump_init(arena, &config, &dump))
		return -1;
	atomic_store(&hung, 1);
	if (pthread_create(&watch, NULL, not_for_ever, NULL))
		return -1;
	return ldfs_dump_start(dump, NULL, 0);
}

static int end(ldfs_counters *c)
{
	int rc;

	atomic_store(&hung, 0);
	pthread_join(watch, NULL);
	rc = ldfs_dump_sweep(dump) || ldfs_dump_wait(dump, 600 * SECOND);
	ldfs_dump_counters(dump, c);
	return rc || ldfs_dump_release(dump) || ldfs_dump_free(dump);
}

static int scattered_stores(ldfs_arena *arena)
{
	ldfs_counters c;

	if (begin(arena, SLOTS))
		return 1;
	for (unsigned long i = 0; i < PER_BLOCK; i++)
		for (unsigned long block = 0; block < GRANULES / BLOCK; block++)
			live[(block * BLOCK + i * (BLOCK / PER_BLOCK) +
			      block % (BLOCK / PER_BLOCK)) *
			     GRANULE]++;
	if (end(&c))
		return 2;
	printf("%s\n", c.slot_waits ? "waited" : c.lost ? "lost" : "none waits");
	return 0;
}

static void *one_store_too_many(void *nothing)
{
	live[0]++;
	live[GRANULES / 2 * GRANULE]++;
	atomic_store(&done, 1);
	return nothing;
}

static int change_of_user(ldfs_arena *arena)
{
	pthread_t writer;
	ldfs_counters c;
	int early;

	if (begin(arena, 1))
		return 1;
	pthread_create(&writer, NULL, one_store_too_many, NULL);
	do
		ldfs_dump_counters(dump, &c);
	while (!c.slot_waits);
	if (setresuid(-1, -1, -1))
		return 2;
	early = !atomic_load(&done) && atomic_load(&hung);
	if (end(&c))
		return 3;
	pthread_join(writer, NULL);
	puts(early ? "changed" : "only after the wait");
	return 0;
}

int main(int argc, char **argv)
{
	ldfs_arena *arena;
	int rc = argc != 2 || ldfs_arena_create(SIZE, &arena);

	if (!rc)
		rc = strcmp(argv[1], "user") ? scattered_stores(arena) : change_of_user(arena);
	return rc ? rc : ldfs_arena_destroy(arena);
}
