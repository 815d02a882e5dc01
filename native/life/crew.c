/* SPDX-License-Identifier: GPL-2.0-or-later */
/* crew.c - the threads of a dump. All are made at INIT, and wait until their phase begins. */
#include "life/life.h"

static int start_keepers(ldfs_dump *d)
{
	struct ldfs_ring *r = &d->ring;
	uint32_t wanted = ldfs_keepers_wanted(d);
	int rc = 0;

	/* One is enough. */
	for (; !rc && r->keepers_made < wanted; r->keepers_made += rc == 0)
		rc = ldfs_threads_start(d, &r->keepers[r->keepers_made],
					r->keepers_made ? ldfs_keeper_more_main : ldfs_keeper_main,
					d, "ldfs-keeper");
	return r->keepers_made ? 0 : rc;
}

int ldfs_life_start_threads(ldfs_dump *d)
{
	int rc = 0;

	ldfs_helpers_start(d);
	if (d->pack.on) {
		rc = ldfs_packers_start(d);
	} else if (d->target.fd >= 0) {
		rc = ldfs_threads_start(d, &d->writer_thread, ldfs_writer_main, d, "ldfs-writer");
		d->writer_made = rc == 0;
	}
	if (!rc && d->target.fd >= 0) {
		rc = ldfs_threads_start(d, &d->sweep_thread, ldfs_sweep_main, d, "ldfs-sweep");
		d->sweep_made = rc == 0;
	}
	if (!rc)
		rc = start_keepers(d);
	if (!rc && ldfs_fault_signal(d->backend)) {
		rc = ldfs_threads_start(d, &d->guard_thread, ldfs_guard_main, d, "ldfs-guard");
		d->guard_made = rc == 0;
	}
	return rc;
}

void ldfs_life_join_threads(ldfs_dump *d)
{
	if (d->sweep_made)
		pthread_join(d->sweep_thread, NULL);
	if (d->writer_made)
		pthread_join(d->writer_thread, NULL);
	ldfs_packers_join(d);
	ldfs_helpers_join(d);
	for (uint32_t i = 0; i < d->ring.keepers_made; i++)
		pthread_join(d->ring.keepers[i], NULL);
	if (d->guard_made)
		pthread_join(d->guard_thread, NULL);
}
