/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * guard.c - the thread that sees to it that SIGSEGV stays ours while memory is armed.
 *
 * Nobody is told when another part of the program installs a handler over ours. START refuses then;
 * later it looks every TICK_NS, and puts ours back. docs/concurrency.md, "A handler over ours",
 * says what happens to a store in between.
 */
#include "fault/within.h"

#define TICK_NS 10000000u

static void look(ldfs_dump *d)
{
	int found = ldfs_fault_retake();

	if (found > 0)
		add_relaxed(&d->retaken, 1);
	if (found > 1)
		add_relaxed(&d->left_out, 1);
}

static bool on_duty(uint32_t phase)
{
	return phase == LDFS_PHASE_ARMED || phase == LDFS_PHASE_SWEEPING;
}

/* The thread, from INIT to RELEASE. Only with backend SIGSEGV. */
void *ldfs_guard_main(void *dump)
{
	ldfs_dump *d = dump;

	for (;;) {
		uint32_t seen = ldfs_event_prepare(&d->guard_wake), phase = load_seq(&d->phase);

		if (phase == LDFS_PHASE_RELEASED)
			break;
		if (on_duty(phase))
			look(d);
		ldfs_event_wait(&d->guard_wake, seen,
				on_duty(phase) ? ldfs_deadline(TICK_NS) : UINT64_MAX);
	}
	ldfs_event_cancel(&d->guard_wake);
	ldfs_threads_ended(d);
	return NULL;
}
