/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * holes.c - which parts of an arena's memory exist (the others are holes, which read as zeros), and
 * reading the memory without allocating pages for holes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/within.h"

/* Up to so many bytes the end of data is searched page by page. */
#define PROBE_MOST (2ULL << 20)

/*
 * Where the data that begins at `start` ends, at most `limit`; or -errno.
 *
 * SEEK_HOLE walks every page up to the next hole, however far behind `limit` that is: asked for one
 * granule of a machine that has filled its memory it would walk gigabytes. SEEK_DATA at a page that
 * is data answers at once, so a short range is asked page by page.
 */
static int64_t data_end(const ldfs_arena *a, uint64_t start, uint64_t limit)
{
	off_t end;

	if (limit - start > PROBE_MOST) {
		end = lseek(a->memfd, (off_t)start, SEEK_HOLE);
		return end < 0 ? -errno : (uint64_t)end < limit ? end : (off_t)limit;
	}
	for (end = (off_t)(start + a->page); (uint64_t)end < limit; end += (off_t)a->page)
		if (lseek(a->memfd, end, SEEK_DATA) != end)
			return end;
	return (int64_t)limit;
}

/* Of the next data at most `most` bytes; otherwise ldfs_arena_next_data. */
static bool next_data(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t most,
		      uint64_t *start, uint64_t *end, int *error)
{
	int64_t found;

	*error = 0;
	if (from >= limit)
		return false;
	if (ldfs_arena_huge(a)) { /* so SEEK_DATA says, too, but a page at a time */
		*start = from;
		*end = limit - from > most ? from + most : limit;
		return true;
	}
	found = lseek(a->memfd, (off_t)from, SEEK_DATA);
	if (found < 0) {
		*error = errno == ENXIO ? 0 : -errno;
		return false;
	}
	if ((uint64_t)found >= limit)
		return false;
	*start = (uint64_t)found;
	found = data_end(a, *start, limit - *start > most ? *start + most : limit);
	if (found < 0) {
		*error = (int)found;
		return false;
	}
	*end = (uint64_t)found;
	return true;
}

bool ldfs_arena_next_data(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error)
{
	return next_data(a, from, limit, UINT64_MAX, start, end, error);
}

bool ldfs_next_data_piece(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error)
{
	return next_data(a, from, limit, PROBE_MOST, start, end, error);
}

/* See memory.h. Without a pagemap every page is asked for, which costs five times as much. */
int ldfs_arena_each_data(const ldfs_arena *a, void (*found)(void *, uint64_t, uint64_t), void *ctx)
{
	uint64_t start, end = 0;
	struct ldfs_pagemap p;
	int error = 0;

	if (!a->observer)
		return 0;
	ldfs_pagemap_open(&p, a);
	while (p.fd >= 0
		       ? ldfs_pagemap_next(&p, a->observer, end, a->size, LDFS_MAPPED, &start, &end)
		       : ldfs_arena_next_data(a, end, a->size, &start, &end, &error))
		found(ctx, start, end);
	ldfs_pagemap_close(&p);
	return error;
}

int64_t ldfs_arena_resident(const ldfs_arena *a)
{
	uint64_t start, end = 0;
	int64_t sum = 0;
	struct stat s;
	int error;

	if (ldfs_arena_huge(a))
		return fstat(a->memfd, &s) ? -errno : s.st_blocks * 512;
	while (ldfs_arena_next_data(a, end, a->size, &start, &end, &error))
		sum += (int64_t)(end - start);
	return error ? error : sum;
}

int ldfs_arena_read(const ldfs_arena *a, uint64_t offset, void *buf, uint64_t length)
{
	if (!ldfs_arena_has(a, offset, length))
		return -EINVAL;
	return ldfs_read_all(a->memfd, buf, length, offset);
}
