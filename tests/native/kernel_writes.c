/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kernel_writes.c - what stores of the kernel do to an armed arena, by backend; and holes that are
 * punched between INIT and START. Memory that was there before the arena is adopted.
 *
 *     kernel_writes BACKEND ARMING [huge|small]   (numbers of enum ldfs_backend, enum ldfs_arming)
 *
 * With `huge` the memory is of huge pages, of which the pool must have 64 (vm.nr_hugepages). With
 * `small` there is half as much memory.
 *
 * Prints what read(2) into armed memory did ("EFAULT" or "read"), then "same" when the snapshot
 * was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ldfs.h"
#include "life/reference.h"

#define PARTS 64
#define DUMPS 3 /* if the environment has no other number of DUMPS */
#define HUGE (2ull << 20)
#define SECOND 1000000000ull
#define TEXT "written by the kernel"

static uint64_t part = 1ull << 20, page, granule = 16384;
static uint8_t *live;
static int memory;

static uint64_t size(void)
{
	return PARTS * part;
}

static uint64_t blocks(void)
{
	struct stat status;

	fstat(memory, &status);
	return (uint64_t)status.st_blocks;
}

/* False: EFAULT. */
static bool read_into(uint8_t *at)
{
	int ends[2];
	bool good = pipe(ends) == 0 && write(ends[1], TEXT, sizeof(TEXT)) == sizeof(TEXT);
	ssize_t n = good ? read(ends[0], at, sizeof(TEXT)) : -1;

	if (n < 0 && errno != EFAULT)
		perror("read");
	close(ends[0]);
	close(ends[1]);
	return n == sizeof(TEXT);
}

static void fill(void)
{
	for (uint64_t i = 0; i < size(); i += 8)
		if (i / part % 4) /* holes */
			*(uint64_t *)(live + i) = i + 1;
}

static bool punch(ldfs_arena *a, uint64_t at)
{
	return ldfs_arena_discard(a, at, granule) == 0;
}

/* One dump: holes punched while the view waits, stores of all kinds, then the comparison. */
static int dump_once(ldfs_arena *a, uint32_t backend, uint32_t arming, bool *read_worked)
{
	ldfs_extent extent = { 0, size(), 0 };
	int target = memfd_create("target", 0), reference = memfd_create("reference", 0);
	ldfs_dump_config config = {
		.granule_size = granule,
		.pool_size = 1u << 20,
		.stall_deadline_ns = 10 * SECOND,
		.backend = backend,
		.arming = arming,
		.uffd_fd = -1,
		.target_fd = target,
		.target_reads_zero = 1,
		.extents = &extent,
		.extent_count = 1,
		.table_fd = -1,
	};
	uint8_t *saved, *expected;
	ldfs_counters counters;
	ldfs_dump *d;
	uint64_t before, most;
	int rc;

	if (ftruncate(target, (off_t)size()) || ftruncate(reference, (off_t)size()))
		return 1;
	rc = ldfs_dump_init(a, &config, &d);
	if (!rc)
		rc = ldfs_dump_set_reference(d, reference);
	if (rc) {
		printf("INIT: %s\n", strerror(-rc));
		return 1;
	}
	if (!punch(a, 5 * part) || !punch(a, 9 * part))
		return 1;
	rc = ldfs_dump_start(d, NULL, SECOND);
	if (rc) {
		printf("START: %s\n", strerror(-rc));
		return 1;
	}
	before = blocks();
	most = before + 3 * page / 512;
	*read_worked = read_into(live + part + 100);
	read_into(live + 4 * part + 100); /* a hole */
	live[5 * part] = 77;              /* punched before START */
	live[6 * part] = 78;
	live[8 * part] = 79; /* a hole */
	if (!punch(a, 13 * part))
		return 1;
	rc = ldfs_dump_sweep(d);
	if (!rc)
		rc = ldfs_dump_wait(d, 60 * SECOND);
	ldfs_dump_counters(d, &counters);
	saved = mmap(NULL, size(), PROT_READ, MAP_SHARED, target, 0);
	expected = mmap(NULL, size(), PROT_READ, MAP_SHARED, reference, 0);
	rc |= memcmp(saved, expected, size()) != 0;
	if (rc || counters.lost || counters.faults < 3 || blocks() > most)
		printf("rc %d, lost %lu, faults %lu, blocks %lu -> %lu\n", rc, counters.lost,
		       counters.faults, before, blocks());
	rc |= counters.lost || counters.faults < 3 || blocks() > most;
	munmap(saved, size());
	munmap(expected, size());
	close(target);
	close(reference);
	live[7 * part] = 80; /* nothing is protected any more */
	return rc || ldfs_dump_release(d) || ldfs_dump_free(d);
}

/* Of the machine's memory, now. */
static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, found = 0;
	char line[4096];

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-", &start) == 1 && start >= (uintptr_t)live &&
		    start < (uintptr_t)live + size())
			found++;
	if (maps)
		fclose(maps);
	return (unsigned)found;
}

int main(int argc, char **argv)
{
	const char *dumps = getenv("DUMPS");
	bool read_worked = false;
	ldfs_arena *a;
	int bad = 0;

	page = ldfs_page_size();
	granule = granule > page ? granule : page;
	if (argc == 4 && !strcmp(argv[3], "huge"))
		part = page = granule = HUGE;
	else if (argc == 4 && !strcmp(argv[3], "small"))
		part /= 2; /* no less: the stores' faults are counted, and no block has two */
	memory = memfd_create("memory", page == HUGE ? MFD_HUGETLB : 0);
	if (argc < 3 || ftruncate(memory, (off_t)size()))
		return 2;
	live = mmap(NULL, size(), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (live == MAP_FAILED)
		return 2;
	fill();
	if (ldfs_arena_adopt(live, size(), memory, &a) || ldfs_arena_live(a) != live)
		return 2;
	for (int i = 0; i < (dumps ? atoi(dumps) : DUMPS) && !bad; i++)
		bad = dump_once(a, (uint32_t)atoi(argv[1]), (uint32_t)atoi(argv[2]), &read_worked);
	if (ldfs_arena_destroy(a))
		return 2;
	live[0] = 1; /* ours as before */
	/* mprotect splits mappings of huge pages, and these are not ours to join. */
	if (atoi(argv[1]) != LDFS_BACKEND_SIGSEGV && mappings() != 1) {
		printf("%u mappings\n", mappings());
		bad = 1;
	}
	puts(read_worked ? "read" : "EFAULT");
	if (!bad)
		puts("same");
	return bad;
}
