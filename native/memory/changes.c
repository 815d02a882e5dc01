/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * changes.c - which parts of the memory may have been stored to since an earlier START.
 *
 * Where an arena tracks, a userfaultfd marks each page of the shadow before START swaps it in, as
 * with the other backends, but with UFFD_FEATURE_WP_ASYNC: at the first store to a page the kernel
 * itself takes the mark away, and the store goes on. It does so for its own stores too: system
 * calls, direct I/O, /proc/PID/mem. No thread and no handler of ours takes part. The next swap
 * moves that mapping away with its marks, so that they are read when the machine runs again.
 *
 * So a page that has a mark was not stored to through the live view, and nothing but a mark says
 * that: what was never marked, or has lost its mark in whatever way, counts as stored to. Stores
 * that do not go through the live view take no mark away; alone.c excludes them.
 */
#include <string.h>

#include "memory/within.h"

/* Bytes [start, end) may have been stored to. */
static void mark(const ldfs_arena *a, uint64_t start, uint64_t end)
{
	for (struct ldfs_changes *c = a->changes; c && start < end; c = c->next) {
		uint64_t first = start >> c->shift, last = (end - 1) >> c->shift;

		memset(c->changed + first, 1, last - first + 1);
	}
}

void ldfs_changes_look(ldfs_arena *a)
{
	uint64_t at = 0, first, last;
	struct ldfs_pagemap pagemap;

	if (!a->unseen)
		return;
	a->unseen = false;
	if (!a->changes)
		return;
	ldfs_pagemap_open(&pagemap, a);
	for (; at < a->size; at = last) {
		if (!ldfs_pagemap_next(&pagemap, a->spare, at, a->size, LDFS_MAPPED_GUARDED, &first,
				       &last))
			first = last = a->size;
		mark(a, at, first);
	}
	ldfs_pagemap_close(&pagemap);
}

void ldfs_changes_announce(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	uint64_t start = offset & ~(a->page - 1), end = offset + length + a->page - 1;

	ldfs_uffd_unprotect(a, a->live + start, (end & ~(a->page - 1)) - start);
}
