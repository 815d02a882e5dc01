/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reference.c - for tests: a copy of the arena inside the pause.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "life/life.h"
#include "life/reference.h"

#define COPY_PIECE (1u << 20)

int ldfs_dump_set_reference(ldfs_dump *d, int fd)
{
	int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (kept < 0)
		return -errno;
	if (d->reference_fd >= 0)
		close(d->reference_fd);
	d->reference_fd = kept;
	return 0;
}

int ldfs_reference_copy(ldfs_dump *d)
{
	uint64_t start, end = 0, at;
	uint8_t *piece;
	int rc;

	if (d->reference_fd < 0)
		return 0;
	piece = malloc(COPY_PIECE);
	rc = piece ? 0 : -ENOMEM;
	while (!rc && ldfs_arena_next_data(d->arena, end, d->arena->size, &start, &end, &rc))
		for (at = start; !rc && at < end; at += COPY_PIECE) {
			uint64_t length = end - at < COPY_PIECE ? end - at : COPY_PIECE;

			rc = ldfs_read_all(d->arena->memfd, piece, length, at);
			if (!rc)
				rc = ldfs_write_all(d->reference_fd, piece, length, at);
		}
	free(piece);
	return rc;
}
