/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pagemap.c - what the page tables of this process have, read from /proc/self/pagemap.
 *
 * See Documentation/admin-guide/mm/pagemap.rst of Linux. An entry that goes away while it is read,
 * or comes, is told one way or the other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "memory/within.h"

/* PAGEMAP_SCAN of linux/fs.h, under our own names for older headers. */
struct region {
	uint64_t start, end, categories;
};
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_PAGES _IOWR('f', 16, struct scan)
#define IS_WRITTEN (1u << 1) /* not write-protected by userfaultfd */
#define IS_PRESENT (1u << 3)
#define IS_SWAPPED (1u << 4) /* also what is left of the protection of a page that is not there */
#define IS_HUGE (1u << 6)

/* Without PAGEMAP_SCAN: this bit of a page's 64, and so many pages a read. */
#define ENTRY_PRESENT (1ULL << 63)
#define ENTRIES 512

/* Which categories each of enum ldfs_mapped is. */
static void ask(struct scan *s, enum ldfs_mapped what)
{
	switch (what) {
	case LDFS_MAPPED_NOT:
		s->category_inverted = s->category_mask = IS_PRESENT;
		break;
	case LDFS_MAPPED: /* see mapped_next */
		break;
	case LDFS_MAPPED_HUGE:
		s->category_mask = IS_HUGE;
		break;
	case LDFS_MAPPED_GUARDED:
		/* What has neither entry nor mark is in no category, so it is not "not written". */
		s->category_inverted = s->category_mask = IS_WRITTEN;
		s->category_anyof_mask = IS_PRESENT | IS_SWAPPED;
		break;
	}
}

/* 1: found, 0: none, or -errno. */
static int scan(int fd, uintptr_t from, uintptr_t limit, enum ldfs_mapped what,
		struct region *found)
{
	struct scan s = { .size = sizeof(s),
			  .start = from,
			  .end = limit,
			  .vec = (uintptr_t)found,
			  .vec_len = 1 };
	int rc;

	ask(&s, what);
	do
		rc = ioctl(fd, SCAN_PAGES, &s);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

void ldfs_pagemap_open(struct ldfs_pagemap *p, const ldfs_arena *a)
{
	uintptr_t page = (uintptr_t)a->observer;
	struct region found;

	p->fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	p->page = ldfs_page_size();
	p->scan = p->fd >= 0 && scan(p->fd, page, page + p->page, LDFS_MAPPED_NOT, &found) >= 0;
}

void ldfs_pagemap_close(const struct ldfs_pagemap *p)
{
	if (p->fd >= 0)
		close(p->fd);
}

/* How many of the first `pages` entries from number `first` on are alike, and in *present how. 0:
 * unknown. */
static uint64_t alike(int fd, uint64_t first, uint64_t pages, bool *present)
{
	uint64_t entries[ENTRIES], most = pages < ENTRIES ? pages : ENTRIES, n = 0;
	ssize_t got = pread(fd, entries, most * sizeof(*entries),
			    (off_t)(first * sizeof(*entries)));

	if (got < (ssize_t)sizeof(*entries))
		return 0;
	*present = entries[0] & ENTRY_PRESENT;
	while (n < (uint64_t)got / sizeof(*entries) && !(entries[n] & ENTRY_PRESENT) == !*present)
		n++;
	return n;
}

/* The same as ldfs_pagemap_next, without PAGEMAP_SCAN. */
static bool read_next(const struct ldfs_pagemap *p, const uint8_t *view, uint64_t from,
		      uint64_t limit, bool wanted, uint64_t *start, uint64_t *end)
{
	bool any = false, present = false;

	while (from < limit) {
		uint64_t pages = p->fd < 0 ? 0
					   : alike(p->fd, ((uintptr_t)view + from) / p->page,
						   (limit - from) / p->page, &present);
		uint64_t next = pages ? from + pages * p->page : limit;

		if ((pages && present) == wanted) {
			*start = any ? *start : from;
			*end = next;
			any = true;
		} else if (any) {
			break;
		}
		from = next;
	}
	return any;
}

/* 1: found, 0: none, or -errno. */
static int scan_next(int fd, const uint8_t *view, uint64_t from, uint64_t limit,
		     enum ldfs_mapped what, uint64_t *start, uint64_t *end)
{
	struct region found;
	int rc = scan(fd, (uintptr_t)view + from, (uintptr_t)view + limit, what, &found);

	if (rc > 0) {
		*start = found.start - (uintptr_t)view;
		*end = found.end - (uintptr_t)view;
	}
	return rc;
}

/* What lies between the gaps: pages that it need not tell of the kernel passes over 3 times as
 * fast. */
static bool mapped_next(int fd, const uint8_t *view, uint64_t from, uint64_t limit, uint64_t *start,
			uint64_t *end)
{
	uint64_t gap, gap_end;

	for (; from < limit; from = gap_end) {
		int rc = scan_next(fd, view, from, limit, LDFS_MAPPED_NOT, &gap, &gap_end);

		if (rc < 0)
			return false;
		if (!rc)
			gap = gap_end = limit;
		if (gap > from) {
			*start = from;
			*end = gap;
			return true;
		}
	}
	return false;
}

bool ldfs_pagemap_next(const struct ldfs_pagemap *p, const uint8_t *view, uint64_t from,
		       uint64_t limit, enum ldfs_mapped what, uint64_t *start, uint64_t *end)
{
	if (from >= limit || (!p->scan && what > LDFS_MAPPED))
		return false;
	if (!p->scan)
		return read_next(p, view, from, limit, what == LDFS_MAPPED, start, end);
	if (what == LDFS_MAPPED)
		return mapped_next(p->fd, view, from, limit, start, end);
	return scan_next(p->fd, view, from, limit, what, start, end) > 0;
}
