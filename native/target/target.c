/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * target.c - where the bytes of an arena go on the target: extents, and complete reads and writes.
 *
 * The layout is data (ldfs_extent); this file knows no format. A granule may lie in two extents.
 * The sweep writes past the page cache (O_DIRECT) where the user asked for that and the target can:
 * it saves a copy, and leaves nothing for the final sync to write. Slots are written through the
 * page cache, so that a vCPU that waits for a free slot does not wait for the disk; sweep and slots
 * write different pages. Reads go through the page cache too. All functions are [any thread].
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "target/target.h"

#define ZERO_PIECE (1u << 20)

static int check_extents(const ldfs_dump_config *config, uint64_t arena_size)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < config->extent_count; i++) {
		const ldfs_extent *e = &config->extents[i];

		if (e->arena_offset != at || e->length == 0 || e->length > arena_size - at ||
		    e->target_offset > (uint64_t)INT64_MAX - e->length)
			return -EINVAL;
		at += e->length;
	}
	return at == arena_size ? 0 : -EINVAL;
}

static bool whole_pages(const struct ldfs_target *t)
{
	for (uint32_t i = 0; i < t->extent_count; i++)
		if ((t->extents[i].target_offset | t->extents[i].length) % LDFS_PAGE_SIZE)
			return false;
	return true;
}

/*
 * Open the target once more for direct I/O. -1: it cannot do that, or we may not. tmpfs accepts
 * O_DIRECT, but copies nevertheless.
 */
static int open_direct(const struct ldfs_target *t)
{
	char path[32];
	struct stat status;
	struct statfs where;

	if (!whole_pages(t) || fstat(t->fd, &status) || fstatfs(t->fd, &where))
		return -1;
	if (S_ISREG(status.st_mode) && where.f_type == TMPFS_MAGIC)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fd);
	return open(path, O_WRONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);
}

/*
 * Whether the kernel has to write zeros in order to zero a range. Not in a regular file, whose file
 * system only records it, nor on a device that zeroes by itself. A partition has the limits of its
 * disk ("../queue"). Unknown counts as yes, because then the written zeros count against the
 * sweep's rate limit.
 */
static bool zeroing_writes(int fd)
{
	static const char *const places[] = { "queue", "../queue" };
	unsigned long long most = 0;
	struct stat status;
	char path[96];

	if (fstat(fd, &status) || !S_ISBLK(status.st_mode))
		return !S_ISREG(status.st_mode);
	for (unsigned i = 0; !most && i < sizeof(places) / sizeof(places[0]); i++) {
		FILE *f;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/write_zeroes_max_bytes",
			 major(status.st_rdev), minor(status.st_rdev), places[i]);
		f = fopen(path, "re");
		if (f && fscanf(f, "%llu", &most) != 1)
			most = 0;
		if (f)
			fclose(f);
	}
	return most == 0;
}

int ldfs_target_init(struct ldfs_target *t, const ldfs_dump_config *config, uint64_t arena_size)
{
	size_t bytes = config->extent_count * sizeof(*config->extents);
	int rc;

	t->fd = t->direct_fd = -1;
	if (config->target_fd < 0)
		return 0;
	rc = check_extents(config, arena_size);
	if (rc)
		return rc;
	t->extents = malloc(bytes);
	if (!t->extents)
		return -ENOMEM;
	memcpy(t->extents, config->extents, bytes);
	t->extent_count = config->extent_count;
	t->reads_zero = config->target_reads_zero != 0;
	store_relaxed(&t->zero_range, true);
	t->zero_costs = zeroing_writes(config->target_fd);
	t->stream = config->stream;
	t->fd = fcntl(config->target_fd, F_DUPFD_CLOEXEC, 3);
	if (t->fd < 0)
		return -errno;
	if (config->target_direct && !config->packed && !t->stream)
		t->direct_fd = open_direct(t);
	store_relaxed(&t->direct, t->direct_fd >= 0);
	/*
	 * No readahead: it would put pages into the page cache that direct I/O is about to
	 * overwrite, in the same folios as pages of slots.
	 */
	if (t->direct_fd >= 0)
		posix_fadvise(t->fd, 0, 0, POSIX_FADV_RANDOM);
	return 0;
}

void ldfs_target_destroy(struct ldfs_target *t)
{
	if (t->fd >= 0)
		close(t->fd);
	if (t->direct_fd >= 0)
		close(t->direct_fd);
	free(t->extents);
	t->fd = t->direct_fd = -1;
	t->extents = NULL;
}

uint64_t ldfs_target_run(const struct ldfs_target *t, uint64_t arena_offset,
			 uint64_t *target_offset)
{
	uint32_t low = 0, high = t->extent_count;
	const ldfs_extent *e;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (t->extents[middle].arena_offset <= arena_offset)
			low = middle;
		else
			high = middle;
	}
	e = &t->extents[low];
	*target_offset = e->target_offset + (arena_offset - e->arena_offset);
	return e->length - (arena_offset - e->arena_offset);
}

int ldfs_target_put(const struct ldfs_target *t, const void *buf, uint64_t length, uint64_t at)
{
	return t->stream ? ldfs_stream_write(t->stream, buf, length, at)
			 : ldfs_write_all(t->fd, buf, length, at);
}

/* Write past the page cache, where that works. */
static int write_direct(struct ldfs_target *t, const void *buf, uint64_t length, uint64_t at)
{
	int rc = -EINVAL;

	if (load_relaxed(&t->direct))
		rc = ldfs_write_all(t->direct_fd, buf, length, at);
	if (rc != -EINVAL && rc != -EOPNOTSUPP)
		return rc;
	/*
	 * Direct I/O could be opened but does not work, or not in units of pages: use the page
	 * cache from now on.
	 */
	store_relaxed(&t->direct, false);
	return ldfs_write_all(t->fd, buf, length, at);
}

static int write_run(struct ldfs_target *t, const void *buf, uint64_t length, uint64_t at,
		     bool direct)
{
	return direct && !t->stream ? write_direct(t, buf, length, at)
				    : ldfs_target_put(t, buf, length, at);
}

int ldfs_target_write(struct ldfs_target *t, uint64_t arena_offset, const void *buf,
		      uint64_t length, bool direct)
{
	const uint8_t *from = buf;

	while (length > 0) {
		uint64_t at, run = ldfs_target_run(t, arena_offset, &at);
		int rc;

		if (run > length)
			run = length;
		rc = write_run(t, from, run, at, direct);
		if (rc)
			return rc;
		from += run;
		arena_offset += run;
		length -= run;
	}
	return 0;
}

static int write_zeros(struct ldfs_target *t, uint64_t length, uint64_t at)
{
	static const uint8_t zeros[ZERO_PIECE] __attribute__((aligned(LDFS_PAGE_SIZE)));
	int rc = 0;

	while (!rc && length > 0) {
		uint64_t piece = length < ZERO_PIECE ? length : ZERO_PIECE;

		rc = write_direct(t, zeros, piece, at);
		at += piece;
		length -= piece;
	}
	return rc;
}

/*
 * Zero a range of the target: by the kernel where it can (a device that discards), otherwise by
 * writing zeros.
 */
int ldfs_target_zero(struct ldfs_target *t, uint64_t arena_offset, uint64_t length,
		     uint64_t *written)
{
	while (length > 0) {
		uint64_t at, run = ldfs_target_run(t, arena_offset, &at);
		bool by_kernel = load_relaxed(&t->zero_range);
		int rc = 0;

		if (run > length)
			run = length;
		if (by_kernel && fallocate(t->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
					   (off_t)at, (off_t)run)) {
			if (errno == ENOSPC)
				return -errno;
			/* The kernel cannot do it, may not, or failed: from now on write zeros. */
			store_relaxed(&t->zero_range, false);
			by_kernel = false;
		}
		if (!by_kernel)
			rc = write_zeros(t, run, at);
		if (rc)
			return rc;
		*written += by_kernel && !t->zero_costs ? 0 : run;
		arena_offset += run;
		length -= run;
	}
	return 0;
}

int ldfs_target_read(const struct ldfs_target *t, uint64_t arena_offset, void *buf, uint64_t length)
{
	uint8_t *to = buf;

	if (t->stream)
		return -EIO;
	while (length > 0) {
		uint64_t at, run = ldfs_target_run(t, arena_offset, &at);
		int rc;

		if (run > length)
			run = length;
		rc = ldfs_read_all(t->fd, to, run, at);
		if (rc)
			return rc;
		to += run;
		arena_offset += run;
		length -= run;
	}
	return 0;
}
