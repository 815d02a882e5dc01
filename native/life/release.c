/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * release.c - SWEEP, the wait for the drain, and RELEASE from any phase. RELEASE first makes all
 * memory writable and wakes all waiting threads; only then does it wait for threads that a target
 * may hold up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "life/life.h"

/* How long RELEASE waits for threads in I/O before it returns -EINPROGRESS. */
#define RELEASE_PATIENCE_NS 2000000000u

/* --------------------------------------------------------------- SWEEP, wait */

int ldfs_dump_sweep(ldfs_dump *d)
{
	uint32_t phase = LDFS_PHASE_ARMED;
	bool begun;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	if (d->target.fd < 0 || load_seq(&d->phase) != phase)
		return -EINVAL;
	add_seq(&d->readers, 1); /* a RELEASE meanwhile waits */
	ldfs_track_leave_out(d);
	begun = cas_seq(&d->phase, &phase, LDFS_PHASE_SWEEPING);
	sub_seq(&d->readers, 1);
	if (!begun)
		return -EINVAL;
	ldfs_event_notify(&d->progress);
	return 0;
}

static int wait_answer(const ldfs_dump *d)
{
	switch (ldfs_dump_phase(d)) {
	case LDFS_PHASE_DRAINED:
		return 0;
	case LDFS_PHASE_RELEASED:
		return -ECANCELED;
	}
	return -ETIMEDOUT;
}

int ldfs_dump_wait(ldfs_dump *d, uint64_t timeout_ns)
{
	uint64_t deadline_ns = ldfs_deadline(timeout_ns);
	int rc;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	add_seq(&d->readers, 1); /* so that RELEASE waits until this call is done with the dump */
	for (;;) {
		uint32_t seen = ldfs_event_prepare(&d->progress);

		rc = wait_answer(d);
		if (rc != -ETIMEDOUT || ldfs_now_ns() >= deadline_ns)
			break;
		ldfs_event_wait(&d->progress, seen, deadline_ns);
	}
	ldfs_event_cancel(&d->progress);
	sub_seq(&d->readers, 1);
	return rc;
}

/* ------------------------------------------------------------------- RELEASE */

static void wake_everybody(ldfs_dump *d)
{
	ldfs_event_notify(&d->ring.freed);
	ldfs_event_notify(&d->ring.arrived);
	ldfs_event_notify(&d->ring.low);
	ldfs_event_notify(&d->effort.change);
	ldfs_event_notify(&d->guard_wake);
	ldfs_event_notify(&d->progress);
}

static bool all_gone(const ldfs_dump *d)
{
	return !load_seq(&d->threads_running) && !load_seq(&d->readers) &&
	       !ldfs_fault_inside(d->arena);
}

/*
 * Wait until the dump's threads and readers have ended. Those in I/O on the target end when that
 * I/O does; a target that hangs is given up after a deadline.
 */
static int wait_all_gone(ldfs_dump *d)
{
	uint64_t deadline_ns = ldfs_deadline(RELEASE_PATIENCE_NS);

	while (!all_gone(d)) {
		if (ldfs_now_ns() >= deadline_ns)
			return -EINPROGRESS;
		wake_everybody(d);
		usleep(100);
	}
	return 0;
}

/*
 * START may have linked the dump to the arena already. It finds the phase changed after it has
 * armed, and disarms itself. Disarming from here would unlink the dump while START is about to
 * protect the memory; no dump would then handle the faults of stores there.
 */
static void wait_for_start(const ldfs_dump *d)
{
	while (load_seq(&d->arena->dump))
		usleep(100);
}

int ldfs_dump_release(ldfs_dump *d)
{
	if (ldfs_arena_foreign(d->arena))
		return 0;
	if (!exchange_seq(&d->release_begun, 1)) {
		uint32_t before = exchange_seq(&d->phase, LDFS_PHASE_RELEASED);

		/* An INIT that failed has written nothing: the stream may serve another. */
		if (d->target.stream && before != LDFS_PHASE_READY)
			ldfs_stream_cancel(d->target.stream);
		wake_everybody(d);
		if (before == LDFS_PHASE_READY)
			wait_for_start(d);
		else if (load_seq(&d->arena->dump))
			ldfs_life_disarm(d);
		if (before == LDFS_PHASE_DRAINED)
			ldfs_track_keep(d);
		ldfs_afterwards_start(d->arena, d->backend);
		store_seq(&d->release_done, 1);
	}
	/* Another thread's RELEASE may still be removing the protection. */
	while (!load_seq(&d->release_done))
		usleep(100);
	return wait_all_gone(d);
}

int ldfs_life_end(ldfs_dump *d)
{
	ldfs_arena *a = d->arena;

	ldfs_life_join_threads(d);
	store_seq(&a->owner, NULL);
	/* ldfs_arena_discard may have found the owner just before. */
	while (ldfs_fault_inside(a))
		usleep(50);
	ldfs_life_free(d);
	return 0;
}

int ldfs_dump_free(ldfs_dump *d)
{
	if (ldfs_arena_foreign(d->arena))
		return 0;
	/* Handlers and discards take only a short time; ldfs_life_end waits for them. */
	if (ldfs_dump_phase(d) != LDFS_PHASE_RELEASED || !load_seq(&d->release_done) ||
	    load_seq(&d->threads_running) || load_seq(&d->readers))
		return -EBUSY;
	return ldfs_life_end(d);
}
