/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memfd.c - which pages the memory of an arena consists of: small ones, small ones that the kernel
 * maps as huge ones where it can (THP), or hugetlb pages of 2 MiB.
 *
 * A hugetlb page that a store needs and the pool does not have ends the program by SIGBUS. So all
 * of them are taken when the memory is made, and none is given back before the arena ends
 * (fault/discard.c). See Documentation/admin-guide/mm/hugetlbpage.rst and transhuge.rst of Linux.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/memory.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26) /* linux/memfd.h */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HUGE (2ULL << 20) /* of hugetlb: arm64 has this size with all of its pages */
#define STAT_BLOCK 512    /* bytes of one of st_blocks */

/* ENOMEM means too few pages, or too few addresses (ulimit -v). */
static bool addresses_for(uint64_t size)
{
	int error = errno;
	void *some = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			  0);

	if (some != MAP_FAILED)
		munmap(some, size);
	errno = error;
	return some != MAP_FAILED;
}

/*
 * First all pages are promised to the file, which fails at once where the pool has too few; to take
 * them one by one would leave none to other programs meanwhile. A signal interrupts the second
 * step; what it has taken stays.
 */
static int take_all(const ldfs_arena *a)
{
	void *all = mmap(NULL, a->size, PROT_NONE, MAP_SHARED, a->memfd, 0);
	int rc;

	if (all == MAP_FAILED)
		return errno == ENOMEM && addresses_for(a->size) ? -ENOSPC : -errno;
	munmap(all, a->size);
	do
		rc = fallocate(a->memfd, 0, 0, (off_t)a->size);
	while (rc && errno == EINTR);
	return rc ? -errno : 0;
}

static int make_hugetlb(ldfs_arena *a)
{
	if (a->size % HUGE)
		return -EINVAL;
	a->page = HUGE;
	a->huge = true;
	a->memfd = memfd_create("livedumpfs-arena", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	/* The kernel knows no hugetlb pages, or none of this size. */
	if (a->memfd < 0)
		return errno == EINVAL || errno == ENODEV || errno == ENOENT ? -EOPNOTSUPP : -errno;
	return ftruncate(a->memfd, (off_t)a->size) ? -errno : take_all(a);
}

int ldfs_memfd_make(ldfs_arena *a, uint32_t pages)
{
	if (pages > LDFS_PAGES_2M || (pages == LDFS_PAGES_THP && a->size < ldfs_page_huge()))
		return -EINVAL;
	a->pages = pages;
	if (pages == LDFS_PAGES_2M)
		return make_hugetlb(a);
	a->memfd = memfd_create("livedumpfs-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (a->memfd < 0)
		return -errno;
	return ftruncate(a->memfd, (off_t)a->size) ? -errno : 0;
}

/*
 * Let the kernel make the memory's first page, and look how much it has made. What the settings of
 * the kernel mean differs between versions; this does not.
 */
static int gives_huge(const ldfs_arena *a)
{
	const uint64_t huge = ldfs_page_huge();
	struct stat s;

	if (madvise(a->live, a->page, MADV_POPULATE_WRITE) || fstat(a->memfd, &s) ||
	    fallocate(a->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)huge))
		return -errno;
	return (uint64_t)s.st_blocks * STAT_BLOCK == huge ? 0 : -EOPNOTSUPP;
}

/* The shadow view gets the advice of the live view (swap.c). A kernel without THP says EINVAL. */
int ldfs_memfd_advise(ldfs_arena *a)
{
	if (a->pages != LDFS_PAGES_THP)
		return 0;
	if (madvise(a->live, a->size, MADV_HUGEPAGE) ||
	    madvise(a->observer, a->size, MADV_HUGEPAGE))
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	return gives_huge(a);
}
