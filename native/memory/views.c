/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * views.c - the memory of a machine: one memfd and its views.
 *
 * The addresses of live, observer, shadow and spare view are equal modulo 1 GiB, so that mremap
 * moves whole page tables (one PUD entry at a time, or with larger pages one PMD entry) instead of
 * single entries: the swap costs the same at any size. All four address ranges stay reserved while
 * the arena exists: no other mapping is ever placed there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "memory/memory.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

#define VIEW_ALIGN (1ULL << 30)

/* Reserve `size` bytes of addresses that are equal to `like` modulo VIEW_ALIGN. NULL: no room. */
static uint8_t *reserve(uint64_t size, const uint8_t *like)
{
	uint8_t *base = mmap(NULL, size + VIEW_ALIGN, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before, after;

	if (base == MAP_FAILED)
		return NULL;
	before = ((uintptr_t)like - (uintptr_t)base) % VIEW_ALIGN;
	after = VIEW_ALIGN - before;
	if (before)
		munmap(base, before);
	if (after)
		munmap(base + before + size, after);
	return base + before;
}

/*
 * All views have the same mapping flags, so that a view can take another's place, and the kernel
 * merges the parts of a split view again.
 */
int ldfs_memory_map(const ldfs_arena *a, uint8_t *at, int prot)
{
	if (mmap(at, a->size, prot, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, a->memfd, 0) != at)
		return -errno;
	return madvise(at, a->size, MADV_DONTFORK) ? -errno : 0;
}

static int map_alone(const ldfs_arena *a)
{
	return a->live ? ldfs_memory_map(a, a->live, PROT_READ | PROT_WRITE) : -ENOMEM;
}

void ldfs_memory_rejoin(const ldfs_arena *a)
{
	if (!a->adopted)
		map_alone(a);
}

/* `live`: the memory that is mapped already, or NULL. */
static int make_views(ldfs_arena *a, uint8_t *live)
{
	int rc;

	a->live = live ? live : reserve(a->size, NULL);
	if (ldfs_arena_huge(a))
		return live ? 0 : map_alone(a);
	a->observer = reserve(a->size, a->live);
	a->shadow = reserve(a->size, a->live);
	a->spare = reserve(a->size, a->live);
	if (!a->live || !a->observer || !a->shadow || !a->spare)
		return -ENOMEM;
	rc = live ? 0 : ldfs_memory_map(a, a->live, PROT_READ | PROT_WRITE);
	if (!rc)
		rc = ldfs_memory_map(a, a->observer, PROT_READ);
	if (!rc && !live)
		rc = ldfs_memfd_advise(a);
	if (rc || !live)
		return rc;
	rc = ldfs_vma_read(live, &a->advice);
	return rc ? rc : ldfs_vma_advise(a->observer, a->size, a->advice);
}

void ldfs_memory_free(ldfs_arena *a)
{
	uint8_t *views[] = { a->observer, a->shadow, a->spare, a->adopted ? NULL : a->live };

	for (unsigned i = 0; i < sizeof(views) / sizeof(*views); i++)
		if (views[i])
			munmap(views[i], a->size);
	if (a->memfd >= 0)
		close(a->memfd);
	free(a);
}

/*
 * MADV_POPULATE_READ is the newest kernel feature that we need: a kernel that has it has the
 * others.
 */
static int check_kernel(const ldfs_arena *a)
{
	/* A length of 0 changes nothing, but an unknown advice is EINVAL nevertheless. */
	return madvise(a->observer, 0, MADV_POPULATE_READ) ? -ENOSYS : 0;
}

static ldfs_arena *new_arena(uint64_t size)
{
	ldfs_arena *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->size = size;
	a->page = ldfs_page_size();
	a->memfd = a->uffd.fd = -1;
	a->pid = getpid();
	pthread_mutex_init(&a->changes_lock, NULL);
	return a;
}

static bool possible_size(uint64_t size)
{
	return size && size % ldfs_page_size() == 0 && size <= INT64_MAX / 8;
}

/* Make the views, unless `rc` says that the memory could not be made; on failure, free all. */
static int finish(ldfs_arena *a, uint8_t *live, int rc, ldfs_arena **out)
{
	if (!rc)
		rc = make_views(a, live);
	if (!rc)
		rc = check_kernel(a);
	if (rc) {
		ldfs_memory_free(a);
		return rc;
	}
	*out = a;
	return 0;
}

int ldfs_memory_make(uint64_t size, uint32_t pages, ldfs_arena **out)
{
	ldfs_arena *a;

	if (!possible_size(size))
		return -EINVAL;
	a = new_arena(size);
	return a ? finish(a, NULL, ldfs_memfd_make(a, pages), out) : -ENOMEM;
}

/* Take the file over, a copy of its descriptor, and learn how large its pages are. */
static int adopt_file(ldfs_arena *a, const uint8_t *live, int memfd)
{
	struct statfs s;

	a->memfd = fcntl(memfd, F_DUPFD_CLOEXEC, 3);
	if (a->memfd < 0 || fstatfs(a->memfd, &s))
		return -errno;
	a->huge = s.f_type == HUGETLBFS_MAGIC;
	if (a->huge)
		a->page = (uint64_t)s.f_bsize;
	return (uintptr_t)live % a->page || a->size % a->page ? -EINVAL : 0;
}

int ldfs_memory_adopt(uint8_t *live, uint64_t size, int memfd, ldfs_arena **out)
{
	ldfs_arena *a;

	if (!live || (uintptr_t)live % ldfs_page_size() || !possible_size(size))
		return -EINVAL;
	a = new_arena(size);
	if (!a)
		return -ENOMEM;
	a->adopted = true;
	return finish(a, live, adopt_file(a, live, memfd), out);
}

void *ldfs_arena_live(const ldfs_arena *a)
{
	return a->live;
}

uint64_t ldfs_arena_size(const ldfs_arena *a)
{
	return a->size;
}

uint64_t ldfs_arena_page_size(const ldfs_arena *a)
{
	return a->page;
}

int ldfs_arena_memfd(const ldfs_arena *a)
{
	return a->memfd;
}
