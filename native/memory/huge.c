/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * huge.c - after a dump, maps the live view by huge pages again where its memory still consists of
 * huge pages.
 *
 * Write-protecting a granule splits the page table entry (PMD) of the huge page that it lies in.
 * The memory stays one huge page, but only the kernel's khugepaged restores the entry, which takes
 * minutes or never happens: without this thread the machine would run slower for ever after its
 * first dump. The observer view shows where the memory is huge: its protection never changes, so
 * where the kernel maps it by a huge page, the live view can be mapped so too, and nothing has to
 * be copied or allocated.
 *
 * RELEASE starts a thread that does this, and no other thread waits for it; the next INIT and the
 * end of the arena stop it. It changes no granule and no byte of memory; what it cannot restore
 * stays as it is.
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

/* Bytes of a huge page: what one PMD entry of x86-64 maps. */
#define HUGE (2ULL << 20)
#define PIECE (16 * HUGE) /* bytes of one call */

/* PAGEMAP_SCAN of linux/fs.h since Linux 6.7, under our own names for older headers. */
struct page_region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_PAGES _IOWR('f', 16, struct scan)
#define PAGE_HUGE (1u << 6)

/* How to find out whether the observer view is mapped by a huge page at an offset. */
struct probe {
	const ldfs_arena *a;
	int pagemap;   /* -1: no PAGEMAP_SCAN */
	bool all_huge; /* then: all mapped memory of the view is huge */
};

/*
 * 1: mapped by a huge page, 0: not, or -errno. Asks for the first page only: the other pages of the
 * huge page have the same entry.
 */
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

/*
 * Collapse [start, start + length). If that fails, each huge page by itself: one of them may have
 * been discarded since it was looked at, and fails the whole call.
 */
static void collapse(uint8_t *start, uint64_t length)
{
	if (!length || !madvise(start, length, MADV_COLLAPSE) || length == HUGE)
		return;
	for (uint64_t at = 0; at < length; at += HUGE)
		madvise(start + at, HUGE, MADV_COLLAPSE);
}

/*
 * The first offset at which a huge page can begin: the live address there is aligned to HUGE. So
 * are the addresses of the other views, which are equal modulo 1 GiB.
 */
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
	/* If no thread can be made, khugepaged may do it some time. */
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
