/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * protect.c - making granules of an armed arena writable, and what that costs in mappings. [signal]
 *
 * A stretch of writable granules in a read-only view (an island) costs two mappings, of which a
 * process may have vm.max_map_count. The process needs some itself: with none left, malloc and
 * thread creation fail. So islands are counted, and from a limit well below the kernel's own on the
 * handler widens instead of making another one. The count is kept without a lock. Each granule is
 * counted once, by the thread that opened it; but two threads that open neighbours at the same
 * moment may both count the two islands as joined (about one in a thousand contended faults). The
 * margin between the two limits covers that.
 */
#include <errno.h>
#include <sys/mman.h>

#include "state/state.h"

static bool is_writable(const ldfs_dump *d, int64_t g)
{
	return g >= 0 && g < d->granules && load_relaxed(&d->writable[g]);
}

static void count_opened(ldfs_dump *d, int64_t g)
{
	uint8_t none = 0;

	if (!cas_seq(&d->writable[g], &none, LDFS_OPENED))
		return;
	/* The kernel never merges mappings of huge pages: neighbours are not joined. */
	if (ldfs_arena_huge(d->arena))
		add_relaxed(&d->islands, 1);
	else
		add_relaxed(&d->islands, 1 - is_writable(d, g - 1) - is_writable(d, g + 1));
}

bool ldfs_protect_may_split(const ldfs_dump *d, uint32_t g)
{
	return ldfs_uffd_protects(d->backend) || /* it splits no mapping */
	       is_writable(d, (int64_t)g - 1) || is_writable(d, (int64_t)g + 1) ||
	       load_relaxed(&d->islands) < d->islands_most;
}

int ldfs_protect_open(ldfs_dump *d, uint32_t first, uint32_t last)
{
	uint64_t start = ldfs_granule_start(d, first);
	uint64_t end = ldfs_granule_start(d, last) + ldfs_granule_length(d, last);

	if (ldfs_uffd_protects(d->backend)) {
		int rc = ldfs_uffd_unprotect(d->arena, d->arena->live + start, end - start);

		if (rc)
			return -rc;
	} else if (mprotect(d->arena->live + start, end - start, PROT_READ | PROT_WRITE))
		return errno;
	for (uint32_t g = first; g <= last; g++)
		count_opened(d, g);
	return 0;
}
