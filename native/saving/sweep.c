/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sweep.c - the thread that saves the granules that the machine has not written, then waits until
 * all are saved (the drain).
 *
 * It goes through the arena piece by piece (piece.c); helpers take pieces too (helper.c). On a
 * packed target the packers do the sweep, and this thread only the drain.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "saving/within.h"

#define THROTTLE_STEP_NS 20000000u

/* -------------------------------------------------------------------- the walk */

/* Sleep to stay below the rate; in small steps, so that RELEASE is quick. */
static void throttle(ldfs_dump *d)
{
	uint64_t due = ldfs_sweep_due_ns(d), now;

	while (!ldfs_released(d) && (now = ldfs_now_ns()) < due) {
		uint64_t left = due - now;

		usleep((useconds_t)((left < THROTTLE_STEP_NS ? left : THROTTLE_STEP_NS) / 1000 +
				    1));
	}
}

static void walk(ldfs_dump *d)
{
	while (ldfs_sweep_piece(d, d->sweep_scratch)) {
		ldfs_table_tick(d);
		throttle(d);
	}
}

/* ------------------------------------------------------------------- the drain */

static bool wait_all_final(ldfs_dump *d)
{
	while (load_seq(&d->remaining) > 0) {
		uint32_t seen = ldfs_event_prepare(&d->progress);

		if (ldfs_released(d)) {
			ldfs_event_cancel(&d->progress);
			return false;
		}
		if (load_seq(&d->remaining) == 0)
			ldfs_event_cancel(&d->progress);
		else
			ldfs_event_wait(&d->progress, seen, UINT64_MAX);
	}
	return !ldfs_released(d);
}

static void sync_target(ldfs_dump *d)
{
	int rc = ldfs_table_flush(d);

	if (rc && rc != -ECANCELED) /* RELEASE cancelled the stream */
		ldfs_fail(d, LDFS_OP_WRITE_TABLE, -rc, UINT64_MAX);
	if (d->target.stream)
		return;
	if (fdatasync(d->target.fd))
		ldfs_fail(d, LDFS_OP_SYNC, errno, UINT64_MAX);
	if (d->table.fd >= 0 && fdatasync(d->table.fd))
		ldfs_fail(d, LDFS_OP_SYNC, errno, UINT64_MAX);
}

static void drain(ldfs_dump *d)
{
	uint32_t phase = LDFS_PHASE_SWEEPING;

	if (!wait_all_final(d))
		return;
	/* Nothing is armed any more; what is still read-only a handler makes writable. */
	ldfs_arena_unprotect_all(d->arena, d->backend);
	sync_target(d);
	store_seq(&d->drained_ns, ldfs_now_ns());
	cas_seq(&d->phase, &phase, LDFS_PHASE_DRAINED); /* not over RELEASED */
	ldfs_event_notify(&d->progress);
}

/* The thread is made at INIT: near vm.max_map_count there may be no stack for a new one. */
static bool wait_for_sweep(ldfs_dump *d)
{
	while (load_seq(&d->phase) < LDFS_PHASE_SWEEPING) {
		uint32_t seen = ldfs_event_prepare(&d->progress);

		if (load_seq(&d->phase) < LDFS_PHASE_SWEEPING)
			ldfs_event_wait(&d->progress, seen, UINT64_MAX);
		else
			ldfs_event_cancel(&d->progress);
	}
	return !ldfs_released(d);
}

void *ldfs_sweep_main(void *dump)
{
	ldfs_dump *d = dump;

	if (wait_for_sweep(d)) {
		store_seq(&d->sweep_start_ns, ldfs_now_ns());
		ldfs_event_notify(&d->ring.arrived); /* packers and helpers may sweep now */
		if (!d->pack.on)
			walk(d);
		drain(d);
	}
	ldfs_threads_ended(d);
	return NULL;
}
