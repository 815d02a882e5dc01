/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * guard.c - the thread that keeps our handler on top while memory is armed.
 *
 * Nothing tells a process that another part of it has installed a handler. START refuses when one
 * is there; while memory is armed the guard looks every TICK_NS. It has our handler put back on top
 * where that can be done without taking the signal from the other one for good. Where it cannot,
 * our protection must go before a store meets a handler that knows nothing of it: what is not saved
 * yet is lost, all memory is made writable, and the dump is torn. docs/concurrency.md, "A handler
 * over ours", says what a store meets before the guard has looked.
 */
#include <errno.h>
#include <unistd.h>

#include "fault/within.h"

#define TICK_NS 10000000u
#define RETRY_US 1000 /* mprotect failed for want of memory */

/*
 * What is being copied is waited for: that is a memcpy, and the copy is good. The cause is said
 * while the granule is still claimed: the dump cannot be drained before, and name another one.
 */
static void lose_unless_safe(ldfs_dump *d, uint32_t g)
{
	unsigned turns = 0;

	for (;;) {
		uint8_t s = ldfs_state(d, g);

		if (s == LDFS_G_CLAIMED || s == LDFS_G_STEALING) {
			ldfs_event_soon(&turns);
			continue;
		}
		if (s != LDFS_G_ARMED && s != LDFS_G_SWEEPING)
			return;
		if (s == LDFS_G_ARMED ? ldfs_step_claim(d, g) : ldfs_step_steal(d, g)) {
			ldfs_fail(d, LDFS_OP_HANDLER, ENOTCONN,
				  ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);
			ldfs_step_copy_lost(d, g);
			return;
		}
	}
}

/* The machine goes on at full speed, with nothing protected. */
static void let_go(ldfs_dump *d)
{
	for (uint32_t g = 0; g < d->granules && !ldfs_released(d); g++)
		lose_unless_safe(d, g);
	ldfs_event_notify(&d->ring.freed); /* a granule that is lost needs no slot */
	while (!ldfs_released(d) && ldfs_arena_unprotect_all(d->arena, d->backend))
		usleep(RETRY_US);
}

static bool on_duty(uint32_t phase)
{
	return phase == LDFS_PHASE_ARMED || phase == LDFS_PHASE_SWEEPING;
}

/* False: nothing is protected any more. */
static bool look(ldfs_dump *d)
{
	int rc = ldfs_fault_retake(ldfs_fault_signal(d->backend));

	if (rc > 0)
		add_relaxed(&d->retaken, 1);
	if (rc < 0)
		let_go(d);
	return rc >= 0;
}

/* The thread, from INIT to RELEASE. Not with backend UFFD. */
void *ldfs_guard_main(void *dump)
{
	ldfs_dump *d = dump;

	for (;;) {
		uint32_t seen = ldfs_event_prepare(&d->guard_wake), phase = load_seq(&d->phase);

		if (phase == LDFS_PHASE_RELEASED || (on_duty(phase) && !look(d)))
			break;
		ldfs_event_wait(&d->guard_wake, seen,
				on_duty(phase) ? ldfs_deadline(TICK_NS) : UINT64_MAX);
	}
	ldfs_event_cancel(&d->guard_wake);
	ldfs_threads_ended(d);
	return NULL;
}
