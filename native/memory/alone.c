/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * alone.c - makes sure that nothing can store to an arena's memory but through its live view.
 *
 * The memfd is sealed (F_SEAL_FUTURE_WRITE): from then on no process can map it writable, write to
 * it, cut it or punch holes, and the views that there are stay as they are. What was mapped before
 * is looked for: in this process by /proc/self/maps, in others by a lease, which the kernel gives
 * only where nothing else has the file open by its path (a mapping counts as open). A descriptor
 * that the program itself has passed on is its own word: see docs/store.md. Memory that the program
 * had before the arena may have been passed on by anything, a fork too, so it never counts as
 * alone.
 *
 * A seal does not hinder mremap of a length of 0, which makes another mapping of a shared one. That
 * is looked for again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "memory/memory.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

static bool within(uintptr_t start, uintptr_t end, const uint8_t *view, uint64_t size)
{
	return view && start >= (uintptr_t)view && end <= (uintptr_t)view + size;
}

static bool in_a_view(const ldfs_arena *a, uintptr_t start, uintptr_t end)
{
	return within(start, end, a->live, a->size) || within(start, end, a->shadow, a->size) ||
	       within(start, end, a->spare, a->size) || within(start, end, a->observer, a->size);
}

/*
 * Whether one line of /proc/self/maps is of another shared mapping of the file. One that can only
 * be read counts: mprotect may make it writable.
 */
static bool is_another(const ldfs_arena *a, const struct stat *file, const char *line)
{
	unsigned long start, end, inode;
	unsigned major, minor;
	char shared;

	if (sscanf(line, "%lx-%lx %*3s%c %*x %x:%x %lu", &start, &end, &shared, &major, &minor,
		   &inode) != 6)
		return false;
	return shared == 's' && inode == file->st_ino && major == major(file->st_dev) &&
	       minor == minor(file->st_dev) && !in_a_view(a, start, end);
}

static int mapped_here(const ldfs_arena *a, const struct stat *file)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	bool begins = true, another = false;

	if (!f)
		return -errno;
	while (!another && fgets(line, sizeof(line), f)) {
		another = begins && is_another(a, file, line);
		begins = false;
		for (const char *c = line; *c; c++)
			begins = *c == '\n';
	}
	fclose(f);
	return another ? -EBUSY : 0;
}

/*
 * SIGURG, which a program ignores unless it says otherwise, is what the kernel sends to a process
 * whose lease is broken; SIGIO would end it.
 */
static int open_elsewhere(const ldfs_arena *a)
{
	char path[64];
	int fd, rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", a->memfd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = fcntl(fd, F_SETSIG, SIGURG) || fcntl(fd, F_SETLEASE, F_WRLCK) ? -errno : 0;
	if (!rc)
		fcntl(fd, F_SETLEASE, F_UNLCK);
	close(fd);
	return rc == -EAGAIN ? -EBUSY : rc;
}

static int look_here(const ldfs_arena *a)
{
	struct stat file;

	return fstat(a->memfd, &file) ? -errno : mapped_here(a, &file);
}

static int look(const ldfs_arena *a)
{
	int rc = look_here(a);

	return rc ? rc : open_elsewhere(a);
}

/* Not to be made smaller, either: what comes back when it grows again is zeros. */
static int seal(ldfs_arena *a)
{
	if (fcntl(a->memfd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK))
		return -EPERM;
	store_seq(&a->sealed, 1);
	return 0;
}

int ldfs_memory_alone(ldfs_arena *a)
{
	int rc;

	if (a->adopted)
		return -EOPNOTSUPP;
	if (a->alone)
		return look_here(a);
	/* Before, so that nothing is sealed in vain; after, so that nothing came between. */
	rc = look(a);
	if (!rc)
		rc = seal(a);
	if (!rc)
		rc = look(a);
	a->alone = !rc;
	return rc;
}
