/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_target.c - the target, its table, and their I/O: by halves of a page, and with errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "world_parts.h"

#define SLOW_STEPS 40 /* a handler is through with a fault meanwhile */

static uint8_t *target; /* the bytes on it */
static int target_fd = -1, table_fd = -1;
static bool synced, io_failed, io_back;

static void make_target(void)
{
	target_fd = memfd_create("target", 0);
	table_fd = memfd_create("table", 0);
	if (ftruncate(target_fd, GRANULES_MOST * PAGE))
		violated("no target");
	target = mmap(NULL, GRANULES_MOST * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, target_fd, 0);
}

void target_begin(void)
{
	if (target_fd < 0)
		make_target();
	memset(target, 0xee, GRANULES_MOST * PAGE);
	synced = io_failed = io_back = false;
}

uint64_t target_state(uint64_t h)
{
	for (uint32_t g = 0; g < world.granules; g++) {
		h = mix(h, word_at(target + (uint64_t)g * PAGE));
		h = mix(h, word_at(target + (uint64_t)g * PAGE + HALF));
	}
	return mix(h, synced | (uint64_t)io_failed << 1 | (uint64_t)io_back << 2);
}

int target_file(void)
{
	return target_fd;
}

int target_table_file(void)
{
	return table_fd;
}

bool target_has(uint32_t g, const uint8_t *bytes)
{
	return !memcmp(target + (uint64_t)g * PAGE, bytes, PAGE);
}

bool target_is_synced(void)
{
	return synced;
}

/* --------------------------------------------------------------------- errors */

int io_fails(int error)
{
	io_failed = true;
	errno = error;
	return -1;
}

bool io_has_failed(void)
{
	return io_failed;
}

static int io_error(void)
{
	int which;

	if (world.hangs) {
		if (!io_back)
			turn_wait(&io_back, false, 1);
		return io_fails(EIO);
	}
	which = world.errors & 1 ? turn_choose(3, "I/O: good, EIO, ENOSPC") : 0;
	return which ? io_fails(which == 1 ? EIO : ENOSPC) : 0;
}

void io_comes_back(void)
{
	io_back = true;
	turn_wake(&io_back, ACTORS_MOST, 1);
}

/* ------------------------------------------------------------------------ I/O */

ssize_t target_read(uint8_t *to, size_t length, off_t from)
{
	for (size_t at = 0; at < length; at += HALF) {
		STEP("pread of the target");
		memcpy(to + at, target + from + at, HALF);
		actor_saw(word_at(to + at));
	}
	return (ssize_t)length;
}

/* The kernel reads at one moment and has written at a later one. */
static ssize_t write_target(const uint8_t *from, size_t length, off_t to)
{
	uint8_t piece[HALF], before[GRANULES_MOST * PAGE];

	STEP("pwrite begins");
	memcpy(before, from, length);
	synced = false;
	if (io_error())
		return -1;
	for (size_t at = 0; at < length; at += HALF) {
		STEP("pwrite reads");
		memcpy(piece, from + at, HALF);
		actor_saw(word_at(piece));
		STEP("pwrite writes");
		memcpy(target + to + at, piece, HALF);
		actor_wrote();
	}
	for (int i = 0; i < (world.guarded ? SLOW_STEPS : 1); i++)
		STEP("pwrite ends");
	synced = false;
	if (world.guarded && memcmp(before, from, length)) {
		errno = EILSEQ; /* what Linux makes of BLK_STS_PROTECTION */
		return -1;
	}
	return (ssize_t)length;
}

ssize_t hook_pwrite(int fd, const void *bytes, size_t length, off_t at)
{
	if (!world_dump || !scheduled())
		return pwrite(fd, bytes, length, at);
	if (fd == world_dump->target.fd)
		return write_target(bytes, length, at);
	STEP("pwrite of the table");
	check_marks(bytes);
	return (ssize_t)length;
}

ssize_t hook_pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
	ssize_t sum = 0;

	for (int i = 0; i < count; i++) {
		ssize_t n = hook_pwrite(fd, iov[i].iov_base, iov[i].iov_len, at + sum);

		if (n < 0)
			return sum ? sum : n;
		sum += n;
	}
	return sum;
}

int hook_fallocate(int fd, int mode, off_t at, off_t length)
{
	if (!scheduled())
		return fallocate(fd, mode, at, length);
	STEP("fallocate of the target");
	synced = false;
	memset(target + at, 0, (size_t)length);
	actor_wrote();
	return 0;
}

int hook_fdatasync(int fd)
{
	STEP("fdatasync");
	if (world_dump && fd == world_dump->target.fd)
		synced = true;
	actor_wrote();
	return 0;
}

off_t hook_lseek(int fd, off_t at, int whence)
{
	off_t found;

	STEP("lseek");
	found = lseek(fd, at, whence);
	actor_saw((uint64_t)found);
	return found;
}
