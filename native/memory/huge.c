/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * huge.c - after a dump the live view is mapped by huge pages again where its memory still lies in
 * such.
 *
 * Protecting a granule splits the entry of the huge page that it lies in, and nothing but the
 * kernel's khugepaged, which comes by in minutes or never, puts one there again: without it the
 * machine would pay for its first dump for ever. The memory itself stays whole. That it is so shows
 * the observer view: its rights never change, so where the kernel maps it huge, the live view can
 * be, too, and nothing has to be copied or allocated.
 *
 * From RELEASE on a thread does it, which nobody waits for: the next INIT and the arena's end have
 * it stop. It touches no granule and no byte of memory; what it cannot do stays as it is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/memory.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define HUGE (2ULL << 20) /* bytes; what one entry of x86-64's second level maps */
#define PIECE (16 * HUGE) /* of one call */

/* linux/fs.h of Linux 6.7. */
struct page_region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_PAGES _IOWR('f', 16, struct scan)
#define PAGE_HUGE (1u << 6)

/* How to ask whether the observer view is mapped huge at a place. */
struct probe {
	const ldfs_arena *a;
	int pagemap;   /* -1: the kernel cannot tell of one place */
	bool all_huge; /* then: all of the view that is mapped, is so */
};

/* 1: it is, 0: not, or -errno. Only the first page is looked at: the rest is in the same entry. */
static int scan(int pagemap, const uint8_t *page)
{
	struct page_region found;
	struct scan s = {
		.size = sizeof(s),
		.start = (uintptr_t)page,
		.end = (uintptr_t)page + LDFS_PAGE_SIZE,
		.vec = (uintptr_t)&found,
		.vec_len = 1,
		.category_mask = PAGE_HUGE,
		.return_mask = PAGE_HUGE,
	};
	int rc = ioctl(pagemap, SCAN_PAGES, &s);

	return rc < 0 ? -errno : rc;
}

static void open_probe(struct probe *p, const ldfs_arena *a)
{
	p->a = a;
	p->all_huge = false;
	p->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (p->pagemap >= 0 && scan(p->pagemap, a->observer) >= 0)
		return;
	if (p->pagemap >= 0)
		close(p->pagemap);
	p->pagemap = -1;
	p->all_huge = ldfs_vma_all_huge(a->observer);
}

static void close_probe(const struct probe *p)
{
	if (p->pagemap >= 0)
		close(p->pagemap);
}

static bool is_huge(const struct probe *p, uint64_t offset)
{
	if (p->pagemap >= 0)
		return scan(p->pagemap, p->a->observer + offset) > 0;
	return p->all_huge && lseek(p->a->memfd, (off_t)offset, SEEK_DATA) == (off_t)offset;
}

/* Each by itself where not all are as they were asked for: one of them may have been discarded
 * meanwhile. */
static void collapse(uint8_t *start, uint64_t length)
{
	if (!length || !madvise(start, length, MADV_COLLAPSE) || length == HUGE)
		return;
	for (uint64_t at = 0; at < length; at += HUGE)
		madvise(start + at, HUGE, MADV_COLLAPSE);
}

/* The first offset whose live address is a huge page's. The views' addresses are alike in this. */
static uint64_t first_whole(const ldfs_arena *a)
{
	return -(uintptr_t)a->live % HUGE;
}

static void restore(ldfs_arena *a, const struct probe *p)
{
	uint64_t begin = first_whole(a), at = begin;

	for (; at + HUGE <= a->size && !load_seq(&a->huge.stop); at += HUGE) {
		bool huge = is_huge(p, at);

		if (huge && at - begin < PIECE)
			continue;
		collapse(a->live + begin, at - begin);
		begin = huge ? at : at + HUGE;
	}
	if (begin < at)
		collapse(a->live + begin, at - begin);
}

static void *restore_main(void *arena)
{
	ldfs_arena *a = arena;
	struct probe p;

	open_probe(&p, a);
	if (p.pagemap >= 0 || p.all_huge)
		restore(a, &p);
	close_probe(&p);
	return NULL;
}

void ldfs_huge_restore(ldfs_arena *a)
{
	if (first_whole(a) + HUGE > a->size)
		return;
	store_seq(&a->huge.stop, 0);
	/* Without a thread the kernel may do it in its time. */
	a->huge.made = ldfs_thread_start(&a->huge.thread, restore_main, a, "ldfs-huge") == 0;
}

void ldfs_huge_stop(ldfs_arena *a)
{
	if (!a->huge.made)
		return;
	store_seq(&a->huge.stop, 1);
	pthread_join(a->huge.thread, NULL);
	a->huge.made = false;
}
