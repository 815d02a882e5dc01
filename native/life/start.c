/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * start.c - START: the machine is stopped, all of its memory is armed (write-protected), and the
 * machine goes on. docs/concurrency.md says why the order is this one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "life/life.h"

/* See life.h. */
void ldfs_life_disarm(ldfs_dump *d)
{
	while (ldfs_arena_unprotect_all(d->arena, d->backend))
		usleep(1000);
	ldfs_arena_forget(d->arena, d->backend);
	store_seq(&d->arena->dump, NULL);
}

static int arm(ldfs_dump *d)
{
	/* With userfaultfd mremap returns only when the monitor has read the event of it. */
	bool by_uffd = ldfs_uffd_protects(d->backend) || load_seq(&d->arena->tracks);
	pid_t monitor = by_uffd ? load_seq(&d->arena->uffd.tid) : 0;
	bool urgent = ldfs_urgent_raise(0), monitor_too = monitor && ldfs_urgent_raise(monitor);
	unsigned turns = 0;
	int rc;

	/*
	 * Link the dump before the first fault can come. A thread that is inside and saw no dump
	 * yet (a discard between saving and punching) must leave before anything is armed.
	 */
	store_seq(&d->arena->dump, d);
	while (ldfs_fault_inside(d->arena))
		ldfs_event_soon(&turns);
	rc = d->arming == LDFS_ARM_SWAP ? ldfs_arena_swap(d->arena)
					: ldfs_arena_protect(d->arena, d->backend);
	if (monitor_too)
		ldfs_urgent_lower(monitor);
	if (urgent)
		ldfs_urgent_lower(0);
	if (rc)
		ldfs_life_disarm(d); /* mprotect may have protected a part */
	return rc;
}

/* What one START needs on its way; `hold` NULL: no gaps. */
struct attempt {
	const ldfs_quiesce_ops *ops;
	ldfs_hold *hold;
	uint64_t asked, stopped, armed;
};

/* HOLD: all writers stand. */
static int stop(struct attempt *a, uint64_t quiesce_ns)
{
	int rc = 0;

	a->asked = ldfs_now_ns();
	if (a->ops && a->ops->quiesce)
		rc = a->ops->quiesce(a->ops->ctx, ldfs_deadline(quiesce_ns));
	a->stopped = ldfs_now_ns();
	return rc;
}

/* The machine stands still here. */
static int take_instant(ldfs_dump *d, const ldfs_quiesce_ops *ops)
{
	int rc;

	if (ops && ops->capture)
		ops->capture(ops->ctx);
	rc = ldfs_reference_copy(d);
	if (rc)
		return rc;
	d->instant_wall_ns = ldfs_wall_ns();
	d->instant_mono_ns = ldfs_now_ns();
	rc = arm(d);
	d->arm_ns = ldfs_now_ns() - d->instant_mono_ns;
	return rc;
}

/* ARM: the instant. The machine stands; after an error nothing is armed. */
static int take(ldfs_dump *d, struct attempt *a)
{
	uint32_t ready = LDFS_PHASE_READY;
	int rc = take_instant(d, a->ops);

	if (!rc && !cas_seq(&d->phase, &ready, LDFS_PHASE_ARMED)) {
		ldfs_life_disarm(d); /* RELEASE came meanwhile and found nothing to free */
		rc = -ECANCELED;
	}
	/* Before the machine goes on: what resume() itself stores may meet another handler. */
	ldfs_event_notify(&d->guard_wake);
	a->armed = ldfs_now_ns();
	return rc;
}

/* GO, and also after an ARM that failed or never came. */
static void let_go(ldfs_dump *d, const struct attempt *a)
{
	if (a->ops && a->ops->resume)
		a->ops->resume(a->ops->ctx);
	if (a->hold)
		ldfs_hold_runs(a->hold);
	d->quiesce_ns = a->stopped - a->asked;
	d->resume_ns = ldfs_now_ns() - a->armed;
	d->pause_ns = ldfs_now_ns() - a->asked;
}

/*
 * Threads and handlers may have changed in the gap, and the machine still stands for as long as
 * this takes.
 */
static int gap_before_arm(ldfs_dump *d, ldfs_hold *h)
{
	int signo = ldfs_fault_signal(d->backend);

	ldfs_hold_stands(h);
	if (!ldfs_hold_wait(h, LDFS_HOLD_STANDS))
		return -ECANCELED;
	return signo ? ldfs_fault_check(signo) : 0;
}

static void gap_before_go(struct attempt *a)
{
	ldfs_hold_armed(a->hold);
	ldfs_hold_wait(a->hold, LDFS_HOLD_ARMED);
	a->armed = ldfs_now_ns(); /* resume_ns is what GO takes */
}

static int stop_and_go(ldfs_dump *d, struct attempt *a, uint64_t quiesce_ns)
{
	int rc = stop(a, quiesce_ns);

	if (rc)
		return rc;
	if (a->hold)
		rc = gap_before_arm(d, a->hold);
	a->armed = a->stopped;
	if (!rc)
		rc = take(d, a);
	if (!rc && a->hold)
		gap_before_go(a);
	let_go(d, a);
	return rc;
}

static int stop_arm_resume(ldfs_dump *d, struct attempt *a, uint64_t quiesce_ns)
{
	bool urgent = a->ops && a->ops->patient && ldfs_urgent_raise(0);
	int rc = stop_and_go(d, a, quiesce_ns);

	if (urgent)
		ldfs_urgent_lower(0);
	return rc;
}

int ldfs_dump_start_held(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns,
			 ldfs_hold *hold)
{
	struct attempt a = { .ops = ops, .hold = hold };
	int signo = ldfs_fault_signal(d->backend), rc;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	if (ldfs_dump_phase(d) != LDFS_PHASE_READY)
		return -EINVAL;
	rc = signo ? ldfs_fault_check(signo) : 0;
	/* Not ready: an earlier START failed halfway. */
	if (!rc && d->arming == LDFS_ARM_SWAP && !d->arena->shadow_ready)
		rc = ldfs_arena_prepare_shadow(d->arena, d->backend);
	return rc ? rc : stop_arm_resume(d, &a, quiesce_ns);
}

int ldfs_dump_start(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	return ldfs_dump_start_held(d, ops, quiesce_ns, NULL);
}
