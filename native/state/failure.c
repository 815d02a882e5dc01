/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * failure.c - the first error of a dump, and what errors change for its other threads.
 */
#include <errno.h>

#include "state/state.h"

#define EIO_TOLERATED 16 /* failed writes before the target counts as gone */

void ldfs_fail(ldfs_dump *d, uint32_t operation, int error, uint64_t pfn)
{
	uint32_t none = 0;

	/* Whatever failed first: such a dump is not on the target. */
	if (operation == LDFS_OP_SYNC || operation == LDFS_OP_WRITE_TABLE)
		store_seq(&d->not_durable, 1);
	if (!cas_seq(&d->failure_taken, &none, 1))
		return;
	d->failure = (ldfs_failure){ .operation = operation, .error = error, .pfn = pfn };
	store_seq(&d->failure_taken, 2);
}

void ldfs_give_up(ldfs_dump *d)
{
	store_seq(&d->gave_up, 1);
	ldfs_event_notify(&d->ring.freed);
}

void ldfs_target_failed(ldfs_dump *d, int error, uint64_t pfn)
{
	ldfs_fail(d, LDFS_OP_WRITE_DATA, -error, pfn);
	if (error != -EIO || add_seq(&d->eio_count, 1) + 1 >= EIO_TOLERATED)
		store_seq(&d->abandoned, 1);
	ldfs_give_up(d);
}
