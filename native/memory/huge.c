/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * huge.c - after a dump, maps the live view by huge pages again where its memory still consists of
 * huge pages.
 *
 * Write-protecting a granule splits the page table entry (PMD) of the huge page that it lies in.
 * The memory stays one huge page, but only the kernel's khugepaged restores the entry, which takes
 * minutes or never happens: without this the machine would run slower for ever after its
 * first dump. The observer view shows where the memory is huge: its protection never changes, so
 * where the kernel maps it by a huge page, the live view can be mapped so too, and nothing has to
 * be copied or allocated.
 *
 * It changes no granule and no byte of memory; what it cannot restore stays as it is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/within.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define PIECE 16 /* huge pages of one call */

/* How to find out whether the observer view is mapped by a huge page at an offset. */
struct probe {
	const ldfs_arena *a;
	uint64_t size; /* bytes of a huge page */
	struct ldfs_pagemap pagemap;
	bool all_huge; /* without PAGEMAP_SCAN: all mapped memory of the view is huge */
};

static void open_probe(struct probe *p, const ldfs_arena *a)
{
	p->a = a;
	p->size = ldfs_page_huge();
	ldfs_pagemap_open(&p->pagemap, a);
	p->all_huge = !p->pagemap.scan && ldfs_vma_all_huge(a->observer);
}

/* Asks for the first page only: the other pages of the huge page have the same entry. */
static bool is_huge(const struct probe *p, uint64_t offset)
{
	uint64_t start, end;

	if (p->pagemap.scan)
		return ldfs_pagemap_next(&p->pagemap, p->a->observer, offset, offset + p->a->page,
					 LDFS_MAPPED_HUGE, &start, &end);
	return p->all_huge && lseek(p->a->memfd, (off_t)offset, SEEK_DATA) == (off_t)offset;
}

/*
 * Collapse [start, start + length). If that fails, each huge page by itself: one of them may have
 * been discarded since it was looked at, and fails the whole call.
 */
static void collapse(uint8_t *start, uint64_t length, uint64_t huge)
{
	if (!length || !madvise(start, length, MADV_COLLAPSE) || length == huge)
		return;
	for (uint64_t at = 0; at < length; at += huge)
		madvise(start + at, huge, MADV_COLLAPSE);
}

/*
 * The first offset at which a huge page can begin: the live address there is aligned to its size.
 * So are the addresses of the other views, which are equal modulo 1 GiB.
 */
static uint64_t first_whole(const ldfs_arena *a)
{
	return -(uintptr_t)a->live % ldfs_page_huge();
}

bool ldfs_huge_fits(const ldfs_arena *a)
{
	return first_whole(a) + ldfs_page_huge() <= a->size;
}

static void restore(ldfs_arena *a, const struct probe *p, const _Atomic uint32_t *stop)
{
	uint64_t begin = first_whole(a), at = begin;

	for (; at + p->size <= a->size && !load_seq(stop); at += p->size) {
		bool huge = is_huge(p, at);

		if (huge && at - begin < PIECE * p->size)
			continue;
		collapse(a->live + begin, at - begin, p->size);
		begin = huge ? at : at + p->size;
	}
	if (begin < at)
		collapse(a->live + begin, at - begin, p->size);
}

void ldfs_huge_restore(ldfs_arena *a, const _Atomic uint32_t *stop)
{
	struct probe p;

	if (!ldfs_huge_fits(a) || load_seq(stop))
		return;
	open_probe(&p, a);
	if (p.pagemap.scan || p.all_huge)
		restore(a, &p, stop);
	ldfs_pagemap_close(&p.pagemap);
}
