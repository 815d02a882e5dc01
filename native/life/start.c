/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * start.c - START: the machine is stopped, all of its memory is armed (write-protected), and the
 * machine goes on. docs/concurrency.md says why the order is this one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "life/life.h"

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

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
	pid_t monitor = ldfs_uffd_protects(d->backend) ? load_seq(&d->arena->uffd.tid) : 0;
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

/* The machine stands still here. */
static int take_instant(ldfs_dump *d, const ldfs_quiesce_ops *ops)
{
	int rc;

	if (ops && ops->capture)
		ops->capture(ops->ctx);
	rc = ldfs_reference_copy(d);
	if (rc)
		return rc;
	d->instant_wall_ns = wall_ns();
	d->instant_mono_ns = ldfs_now_ns();
	rc = arm(d);
	d->arm_ns = ldfs_now_ns() - d->instant_mono_ns;
	return rc;
}

static int stop_and_go(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	uint64_t asked = ldfs_now_ns(), stopped, armed;
	uint32_t ready = LDFS_PHASE_READY;
	int rc = 0;

	if (ops && ops->quiesce)
		rc = ops->quiesce(ops->ctx, ldfs_deadline(quiesce_ns));
	if (rc)
		return rc;
	stopped = ldfs_now_ns();
	rc = take_instant(d, ops);
	armed = ldfs_now_ns();
	if (!rc && !cas_seq(&d->phase, &ready, LDFS_PHASE_ARMED)) {
		ldfs_life_disarm(d); /* RELEASE came meanwhile and found nothing to free */
		rc = -ECANCELED;
	}
	/* Before the machine goes on: what resume() itself stores may meet another handler. */
	ldfs_event_notify(&d->guard_wake);
	if (ops && ops->resume)
		ops->resume(ops->ctx);
	d->quiesce_ns = stopped - asked;
	d->resume_ns = ldfs_now_ns() - armed;
	d->pause_ns = ldfs_now_ns() - asked;
	return rc;
}

static int stop_arm_resume(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	bool urgent = ops && ops->patient && ldfs_urgent_raise(0);
	int rc = stop_and_go(d, ops, quiesce_ns);

	if (urgent)
		ldfs_urgent_lower(0);
	return rc;
}

int ldfs_dump_start(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	int signo = ldfs_fault_signal(d->backend), rc;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	if (ldfs_dump_phase(d) != LDFS_PHASE_READY)
		return -EINVAL;
	rc = signo ? ldfs_fault_check(signo) : 0;
	/* Not ready: an earlier START failed halfway. */
	if (!rc && d->arming == LDFS_ARM_SWAP && !d->arena->shadow_ready)
		rc = ldfs_arena_prepare_shadow(d->arena, d->backend);
	return rc ? rc : stop_arm_resume(d, ops, quiesce_ns);
}
