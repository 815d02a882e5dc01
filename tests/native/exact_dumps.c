/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * exact_dumps.c - dumps under stores and reads: what lies on the target, what the table says, and
 * what readers got, against a copy that was taken at the snapshot instant.
 *
 *     exact_dumps CODEC|plain THREADS GRANULE POOL_KIB POLICY [pipe|uffd|sigbus|huge|2M|thp]
 *
 * With `huge` the memory is of 16 huge pages, which the pool must have (vm.nr_hugepages), and armed
 * in place by userfaultfd; with `2M` it is made of them, and armed by mprotect. With `thp` the
 * kernel must give transparent huge pages (shmem_enabled).
 *
 * With a codec the target is packed. With `plain` helpers are called and sent away at any time,
 * whatever they gain, and THREADS does not matter.
 *
 * Prints "same" when every page was right, and at least one was compared.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ldfs.h"
#include "life/reference.h"
#include "state/state.h"

#define PAGE 4096u
#define PAGES 4096u
#define HUGE (2u << 20)
#define HUGE_PAGES 16u
#define SIZE ((uint64_t)pages * PAGE)
#define CUT ((uint64_t)PAGE * (pages / 3 + 1)) /* two ranges, and a granule that lies in both */
#define WRITERS 2
#define DUMPS 3 /* if the environment has no other number of DUMPS */
#define SECOND 1000000000ull

static uint64_t pages;
static bool huge;
static uint8_t *live, *reference;
static atomic_int stop_asked, parked, over, reads_over;
static atomic_ulong reads, bad_reads;

static void *write_memory(void *seed)
{
	uint64_t x = 88172645463325252u + (uintptr_t)seed * 977;

	while (!over) {
		if (stop_asked) {
			parked++;
			while (stop_asked)
				usleep(5);
			parked--;
		}
		for (int i = 0; i < 64; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			/* Two may store to one word: that is the program's own business. */
			atomic_fetch_add_explicit((_Atomic uint64_t *)(live + x % (SIZE / 8) * 8),
						  x, memory_order_relaxed);
		}
	}
	return NULL;
}

static int quiesce(void *ctx, uint64_t deadline_ns)
{
	(void)ctx, (void)deadline_ns;
	stop_asked = 1;
	while (parked < WRITERS)
		;
	return 0;
}

static void resume(void *ctx)
{
	(void)ctx;
	stop_asked = 0;
	while (parked)
		;
}

static void call_helpers(ldfs_dump *d, uint32_t any)
{
	if (!d->effort.helpers)
		return;
	store_relaxed(&d->effort.due_ns, UINT64_MAX);
	store_seq(&d->effort.called, any % (d->effort.helpers + 1));
	ldfs_event_notify(&d->effort.change);
}

/* Lost pages and what left by a pipe answer EIO. */
static void *read_snapshot(void *dump)
{
	static uint8_t got[200000];
	uint64_t x = 777;

	while (!reads_over) {
		uint64_t at, length;
		int rc;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		at = x % SIZE;
		length = (x >> 20) % sizeof(got);
		length = length < SIZE - at ? length : SIZE - at;
		call_helpers(dump, (uint32_t)(x >> 40));
		rc = ldfs_dump_read(dump, at, got, length);
		reads += rc == 0;
		bad_reads += rc ? rc != -EIO : memcmp(got, reference + at, length) != 0;
	}
	return NULL;
}

/* ---------------------------------------------------------------- a pipe's other end */

struct reassembly {
	int from, to;
	bool ended;
};

static bool read_whole(int fd, void *buf, uint64_t length)
{
	uint8_t *to = buf;

	while (length > 0) {
		ssize_t n = read(fd, to, length);

		if (n <= 0)
			return false;
		to += n;
		length -= (uint64_t)n;
	}
	return true;
}

/* makedumpfile -R */
static void *reassemble(void *arg)
{
	struct reassembly *r = arg;
	static uint8_t bytes[2u << 20];
	uint64_t head[2];

	if (!read_whole(r->from, bytes, 4096) || memcmp(bytes, "makedumpfile", 13))
		return NULL;
	while (read_whole(r->from, head, sizeof(head))) {
		uint64_t at = __builtin_bswap64(head[0]), length = __builtin_bswap64(head[1]);

		r->ended = at == UINT64_MAX && length == UINT64_MAX;
		if (r->ended || length > sizeof(bytes) || !read_whole(r->from, bytes, length) ||
		    pwrite(r->to, bytes, length, (off_t)at) != (ssize_t)length)
			break;
	}
	return NULL;
}

/* ------------------------------------------------------------------------- one dump */

static uint64_t descriptor_of(uint64_t offset)
{
	return (offset < CUT ? SIZE - CUT + offset : offset - CUT) / PAGE;
}

static bool packed_page(int fd, uint64_t at, uint8_t *page, bool lost)
{
	ldfs_page_desc desc = { 0 };

	if (pread(fd, &desc, sizeof(desc), (off_t)(PAGE + 24 * descriptor_of(at))) < 0)
		return false;
	return lost ? desc.offset == 0 : !ldfs_pages_read(fd, &desc, 1, page);
}

static unsigned long compare(ldfs_dump *d, int fd, uint64_t granule, uint64_t table, bool piped)
{
	uint64_t granules = (SIZE + granule - 1) / granule;
	unsigned long bad = 0, same = 0;
	uint8_t page[PAGE];

	for (uint64_t at = 0; at < SIZE; at += PAGE) {
		uint8_t state;
		bool lost, good;

		ldfs_dump_states(d, (uint32_t)(at / granule), 1, &state);
		lost = state == LDFS_G_LOST;
		good = d->pack.on ? packed_page(fd, at, page, lost)
				  : ldfs_target_read(&d->target, at, page, PAGE) == 0;
		if (good && !lost)
			good = memcmp(page, reference + at, PAGE) == 0;
		bad += !good;
		same += good && !lost;
	}
	for (uint64_t g = 0; g < granules; g++) {
		uint64_t block = g / LDFS_TABLE_BLOCK_ENTRIES * LDFS_TABLE_BLOCK_SIZE;
		static ldfs_table_block found;
		uint8_t state;

		ldfs_dump_states(d, (uint32_t)g, 1, &state);
		bad += pread(fd, &found, sizeof(found), (off_t)(table + block)) != sizeof(found) ||
		       found.entries[g % LDFS_TABLE_BLOCK_ENTRIES].state != state;
	}
	if (bad || bad_reads || !same || (!reads && !piped))
		printf("%lu pages or marks differ, %lu the same, %lu of %lu reads wrong\n", bad,
		       same, (unsigned long)bad_reads, (unsigned long)reads);
	return bad + bad_reads + !same + (!reads && !piped);
}

static int run(ldfs_dump *d)
{
	ldfs_quiesce_ops ops = { .quiesce = quiesce, .resume = resume };
	unsigned long before = reads + bad_reads;
	pthread_t reader;
	int rc = ldfs_dump_start(d, &ops, 60 * SECOND);

	if (rc)
		return rc;
	reads_over = 0;
	pthread_create(&reader, NULL, read_snapshot, d);
	/* Some of the memory, before it is on the target; the harness has a deadline. */
	do
		usleep(20000);
	while (reads + bad_reads == before);
	rc = ldfs_dump_sweep(d);
	if (!rc)
		rc = ldfs_dump_wait(d, 60 * SECOND);
	usleep(5000);
	reads_over = 1;
	pthread_join(reader, NULL);
	return rc;
}

static uint32_t backend_of(const char *word)
{
	return !strcmp(word, "uffd") || !strcmp(word, "huge") ? LDFS_BACKEND_UFFD
	       : !strcmp(word, "sigbus")                      ? LDFS_BACKEND_SIGBUS
							      : LDFS_BACKEND_SIGSEGV;
}

static unsigned long dump_once(ldfs_arena *a, char **argv, bool piped, uint32_t backend)
{
	uint64_t granule = strtoull(argv[3], NULL, 0);
	uint64_t granules = (SIZE + granule - 1) / granule;
	bool plain = !strcmp(argv[1], "plain");
	uint64_t table = plain ? SIZE : PAGE + (pages * 24 / PAGE + 1) * PAGE;
	uint64_t zeros = table + (granules / LDFS_TABLE_BLOCK_ENTRIES + 1) * LDFS_TABLE_BLOCK_SIZE;
	ldfs_extent extents[] = { { 0, CUT, SIZE - CUT }, { CUT, SIZE - CUT, 0 } };
	int fd = memfd_create("target", 0), copy = memfd_create("reference", 0),
	    ends[2] = { -1, -1 };
	struct reassembly other = { .to = fd };
	static const uint8_t zero[PAGE];
	ldfs_stream *stream = NULL;
	pthread_t reassembler;
	unsigned long bad;
	ldfs_dump *d;
	int rc;

	if (piped) {
		if (pipe(ends) || ldfs_stream_open(ends[1], 0, &stream))
			return 1;
		close(ends[1]);
		other.from = ends[0];
		pthread_create(&reassembler, NULL, reassemble, &other);
		ldfs_stream_write(stream, zero, PAGE, zeros);
	}
	if (ftruncate(copy, (off_t)SIZE) || pwrite(fd, zero, PAGE, (off_t)zeros) != PAGE)
		return 1;
	reference = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, copy, 0);
	ldfs_dump_config config = {
		.granule_size = granule,
		.pool_size = strtoull(argv[4], NULL, 0) << 10,
		.spill_limit = 64u << 20,
		.stall_deadline_ns = 20 * SECOND,
		.policy = (uint32_t)atoi(argv[5]),
		.target_fd = fd,
		.extents = extents,
		.extent_count = 2,
		.table_fd = fd,
		.table_offset = table,
		.backend = backend,
		.arming = huge ? LDFS_ARM_MPROTECT : LDFS_ARM_SWAP,
		.uffd_fd = -1,
		.packed = !plain,
		.codec = (uint32_t)atoi(argv[1]),
		.threads = (uint32_t)atoi(argv[2]),
		.descriptors_offset = PAGE,
		.zero_page_offset = zeros,
		.stream = stream,
	};
	rc = ldfs_dump_init(a, &config, &d);
	if (!rc)
		rc = ldfs_dump_set_reference(d, copy);
	if (rc) {
		printf("INIT: %d\n", rc);
		return 1;
	}
	rc = run(d);
	if (rc)
		printf("dump: %d\n", rc);
	if (piped) {
		rc |= ldfs_stream_end(stream);
		pthread_join(reassembler, NULL);
		rc |= !other.ended;
	}
	bad = rc ? 1 : compare(d, fd, granule, table, piped);
	rc = ldfs_dump_release(d);
	if (!rc)
		rc = ldfs_dump_free(d);
	ldfs_stream_close(stream);
	munmap(reference, SIZE);
	close(copy);
	close(fd);
	return bad + (rc != 0);
}

static int adopt_huge(ldfs_arena **a)
{
	int memory = memfd_create("memory", MFD_HUGETLB);

	if (memory < 0 || ftruncate(memory, (off_t)SIZE))
		return -errno;
	live = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	return live == MAP_FAILED ? -errno : ldfs_arena_adopt(live, SIZE, memory, a);
}

static int make_arena(const char *word, ldfs_arena **a)
{
	if (!strcmp(word, "thp"))
		return ldfs_arena_create_of(SIZE, LDFS_PAGES_THP, a);
	return !huge                 ? ldfs_arena_create(SIZE, a)
	       : !strcmp(word, "2M") ? ldfs_arena_create_of(SIZE, LDFS_PAGES_2M, a)
				     : adopt_huge(a);
}

int main(int argc, char **argv)
{
	const char *word = argc > 6 ? argv[6] : "";
	const char *dumps = getenv("DUMPS");
	int most = dumps ? atoi(dumps) : DUMPS, i = 0;
	pthread_t writers[WRITERS];
	unsigned long bad = 0;
	ldfs_arena *a;

	huge = !strcmp(word, "huge") || !strcmp(word, "2M");
	/* Small ones: the last granule is short. */
	pages = huge ? HUGE_PAGES * (HUGE / PAGE) : PAGES + 3 * (ldfs_page_size() / PAGE);
	if (argc < 6 || make_arena(word, &a))
		return 2;
	live = ldfs_arena_live(a);
	for (uint64_t i = 0; i < SIZE; i += 8)
		if (i / (huge ? HUGE : 16 * PAGE) % 5) /* holes */
			*(uint64_t *)(live + i) = i % 48271 * 2654435761u;
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&writers[i], NULL, write_memory, (void *)(i + 1));
	for (; i < most && !bad; i++)
		bad = dump_once(a, argv, !strcmp(word, "pipe"), backend_of(word));
	over = 1;
	for (int w = 0; w < WRITERS; w++)
		pthread_join(writers[w], NULL);
	if (!bad && i > 0 && !ldfs_arena_destroy(a))
		puts("same");
	return bad != 0;
}
