/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Readers of images, as libfuse's threads are, beside stores, RELEASE and the freeing of the dump:
 * each read gives bytes of its own dump or ENODATA, and none meets freed memory. "same", when some
 * reads gave bytes and some ENODATA. Arguments: rounds, backend.
 *
 * The file of round n: n at each byte of a head, then the arena, which is full of n, then zeros.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ldfs.h"
#include "serving/serving.h"

#define SIZE (1ull << 20)
#define HEAD 100ull
#define TAIL 5000ull
#define READERS 2
#define ROUNDS_MOST 250 /* each has a byte of its own */
#define PIECE 20000u

struct file {
	uint8_t head[HEAD];
	ldfs_piece pieces[3];
	ldfs_image image;
	ldfs_open_file opened;
};

static struct file files[ROUNDS_MOST + 1];
static _Atomic uint64_t now; /* the newest round that can be read */
static _Atomic uint64_t given, refused;
static _Atomic int wrong, quit;

static int others(const char *path, char *buf, size_t size, int64_t offset, void *info)
{
	(void)path, (void)buf, (void)size, (void)offset, (void)info;
	return -EBADF;
}

static void make_file(uint64_t round, ldfs_gate *gate)
{
	struct file *f = &files[round];

	memset(f->head, (int)round, HEAD);
	f->pieces[0] = (ldfs_piece){ HEAD, LDFS_PIECE_BYTES, f->head, 0 };
	f->pieces[1] = (ldfs_piece){ HEAD + SIZE, LDFS_PIECE_ARENA, NULL, 0 };
	f->pieces[2] = (ldfs_piece){ HEAD + SIZE + TAIL, LDFS_PIECE_ZEROS, NULL, 0 };
	f->image = (ldfs_image){ gate, f->pieces, 3 };
	f->opened = (ldfs_open_file){ &f->image, others };
}

static bool right(uint64_t round, uint64_t offset, const uint8_t *bytes, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (bytes[i] != (offset + i < HEAD + SIZE ? round : 0))
			return false;
	return true;
}

static void *read_on(void *seed)
{
	unsigned int random = (unsigned int)(uintptr_t)seed;
	static _Thread_local uint8_t bytes[PIECE];

	while (!atomic_load(&quit)) {
		uint64_t round = atomic_load(&now), end = HEAD + SIZE + TAIL;
		uint64_t offset = (uint64_t)rand_r(&random) % (end + 10);
		uint64_t length = (uint64_t)rand_r(&random) % PIECE;
		uint64_t left = offset < end ? end - offset : 0;
		ldfs_fuse_file file = { .handle = (uintptr_t)&files[round].opened };
		int got;

		if (!round)
			continue;
		got = ldfs_fuse_read("", (char *)bytes, length, (int64_t)offset, &file);
		if (got == -ENODATA)
			atomic_fetch_add(&refused, 1);
		else if (got == (int)(length < left ? length : left) &&
			 right(round, offset, bytes, (uint64_t)got))
			atomic_fetch_add(&given, 1);
		else
			atomic_store(&wrong, 1);
	}
	return NULL;
}

/* Wait until readers had one more answer of that kind. */
static void await(_Atomic uint64_t *count)
{
	uint64_t before = atomic_load(count);

	while (atomic_load(count) == before && !atomic_load(&wrong))
		sched_yield();
}

static int round_of(ldfs_arena *arena, uint64_t round, uint32_t backend, ldfs_gate **gate)
{
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
	ldfs_dump_config config = { .granule_size = page > 16384 ? page : 16384,
				    .pool_size = 2 * SIZE,
				    .policy = LDFS_POLICY_BLOCK,
				    .backend = backend,
				    .target_fd = -1,
				    .table_fd = -1,
				    .uffd_fd = -1,
				    .stall_deadline_ns = 1000000000 };
	unsigned char *live = ldfs_arena_live(arena);
	ldfs_dump *dump;

	memset(live, (int)round, SIZE);
	if (ldfs_dump_init(arena, &config, &dump))
		return -1;
	*gate = ldfs_gate_new(dump);
	if (!*gate || ldfs_dump_start(dump, NULL, 0))
		return -2;
	make_file(round, *gate);
	atomic_store(&now, round);
	await(&given);
	memset(live, 0xee, SIZE);
	await(&given);
	ldfs_dump_release(dump);
	while (ldfs_gate_close(*gate))
		sched_yield();
	if (ldfs_dump_free(dump))
		return -3;
	await(&refused);
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 20;
	uint32_t backend = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : LDFS_BACKEND_SIGSEGV;
	static ldfs_gate *gates[ROUNDS_MOST + 1];
	pthread_t readers[READERS];
	ldfs_arena *arena;
	int rc = ldfs_arena_create(SIZE, &arena);

	if (rounds > ROUNDS_MOST || rc)
		return 1;
	for (uintptr_t i = 0; i < READERS; i++)
		pthread_create(&readers[i], NULL, read_on, (void *)(i + 1));
	for (uint64_t round = 1; round <= rounds && !rc; round++)
		rc = round_of(arena, round, backend, &gates[round]);
	atomic_store(&quit, 1);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	/* Not before: a reader may have the file of an old round. */
	for (uint64_t round = 1; round <= rounds; round++)
		ldfs_gate_free(gates[round]);
	if (rc || atomic_load(&wrong))
		printf("wrong: %d, %d\n", rc, atomic_load(&wrong));
	else
		puts(given && refused ? "same" : "never both");
	return ldfs_arena_destroy(arena);
}
