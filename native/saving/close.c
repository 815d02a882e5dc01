/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * close.c - behind the sweep: what was live before the swap is protected for the next INIT, whose
 * shadow it will be.
 */
#include "saving/within.h"

/* Bytes protected while mmap_lock is held once: other handlers' mprotect waits so long. */
#define PIECE (1ULL << 20)

void ldfs_sweep_close(ldfs_dump *d, uint32_t first, uint32_t end)
{
	uint64_t at = ldfs_granule_start(d, first);
	uint64_t stop = ldfs_granule_start(d, end - 1) + ldfs_granule_length(d, end - 1);

	for (; at < stop && !ldfs_released(d); at += PIECE)
		ldfs_arena_close(d->arena, d->backend, at, stop - at < PIECE ? stop - at : PIECE);
}
