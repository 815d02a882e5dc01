/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory.c - the calls by which QEMU gives guest memory back to the kernel, fallocate() and
 * madvise(). LD_PRELOAD puts these functions before those of libc. During a dump a discard of the
 * arena's memory is done by ldfs_arena_discard, which saves it first.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shim/within.h"

static _Atomic(ldfs_arena *) watched;
static struct stat memory; /* of the arena's memfd; written before `watched` */

int shim_memory_watch(ldfs_arena *a)
{
	if (fstat(ldfs_arena_memfd(a), &memory))
		return -errno;
	atomic_store(&watched, a);
	return 0;
}

/* Set during the core's own calls: their granules are saved, so the kernel gets them. */
static __thread bool inside;

static int discard(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	int rc;

	inside = true;
	rc = ldfs_arena_discard(a, offset, length);
	inside = false;
	if (!rc)
		return 0;
	errno = -rc;
	return -1;
}

/* Whether fd is the arena's memory: 1 yes, 0 no, -1 (and errno) unknown. */
static int is_memory(int fd)
{
	struct stat status;

	if (fstat(fd, &status))
		return -1;
	return status.st_dev == memory.st_dev && status.st_ino == memory.st_ino;
}

static int punch(int fd, int mode, off_t offset, off_t length)
{
	static int (*next)(int, int, off_t, off_t);
	ldfs_arena *a = atomic_load(&watched);

	if (a && !inside && mode & FALLOC_FL_PUNCH_HOLE && offset >= 0 && length > 0) {
		int ours = is_memory(fd);

		/* Unknown: refused, because it might discard the arena unsaved. */
		if (ours)
			return ours < 0 ? -1 : discard(a, (uint64_t)offset, (uint64_t)length);
	}
	if (!next)
		next = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT, "fallocate64");
	return next(fd, mode, offset, length);
}

#define EXPORT __attribute__((visibility("default")))

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return punch(fd, mode, offset, length);
}

/* The same with a 64-bit off_t; QEMU calls it by this name. */
EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
	return punch(fd, mode, offset, length);
}

EXPORT int madvise(void *address, size_t length, int advice)
{
	static int (*next)(void *, size_t, int);
	ldfs_arena *a = atomic_load(&watched);
	uintptr_t start = (uintptr_t)address, live = a ? (uintptr_t)ldfs_arena_live(a) : 0;

	if (a && !inside && advice == MADV_REMOVE && length && start >= live &&
	    start - live < ldfs_arena_size(a))
		return discard(a, start - live, length);
	if (!next)
		next = (int (*)(void *, size_t, int))dlsym(RTLD_NEXT, "madvise");
	return next(address, length, advice);
}
