/* SPDX-License-Identifier: GPL-2.0-or-later */
/* within.h - for the files of memory/ alone. */
#ifndef LDFS_MEMORY_WITHIN_H
#define LDFS_MEMORY_WITHIN_H

#include "memory/memory.h"

/* -------------------------------------------------------------- pagemap.c
 * What the page tables of this process have, read from /proc/self/pagemap: without touching a page,
 * in a fiftieth of the time.
 */
struct ldfs_pagemap {
	int fd;        /* -1: there is none to be read */
	uint64_t page; /* bytes of the pages that it has an entry for */
	bool scan;     /* PAGEMAP_SCAN (Linux 6.7), 20 times as fast as reading */
};

enum ldfs_mapped {
	LDFS_MAPPED_NOT,     /* no entry: a load takes a page fault */
	LDFS_MAPPED,         /* an entry for a page that exists */
	LDFS_MAPPED_HUGE,    /* the same, of a huge page; with `scan` only */
	LDFS_MAPPED_GUARDED, /* userfaultfd write-protects it, hole or not; with `scan` only */
};

/* It opens for views of `a`; close it, also when there is none. */
void ldfs_pagemap_open(struct ldfs_pagemap *p, const ldfs_arena *a);
void ldfs_pagemap_close(const struct ldfs_pagemap *p);
/*
 * The next range [*start, *end) of pages of `view` that are so, at or after `from`, cut at `limit`.
 * False: there is none. What cannot be told is not mapped.
 */
bool ldfs_pagemap_next(const struct ldfs_pagemap *p, const uint8_t *view, uint64_t from,
		       uint64_t limit, enum ldfs_mapped what, uint64_t *start, uint64_t *end);

/* ---------------------------------------------------------------- holes.c */
/*
 * As ldfs_arena_next_data, for a caller that wants all data piece by piece: what is found ends
 * early, so that the kernel is never asked where data ends, for which it may walk all memory.
 */
bool ldfs_next_data_piece(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error);

/* ----------------------------------------------------------------- fill.c */
/*
 * [owner] Fill the page tables of a view for all pages that exist, where they lack one, by several
 * threads. With `guard`, let userfaultfd write-protect each page first that is not yet, hole or
 * not; the view is registered.
 */
int ldfs_fill(ldfs_arena *a, uint8_t *view, bool guard);

#endif
