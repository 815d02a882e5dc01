/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * urgent.c - lets a thread that the whole machine waits for run before all ordinary threads.
 *
 * On busy processors a thread can wait some milliseconds for its turn, and the machine stands still
 * meanwhile. So the thread that does START, and each vCPU that has not yet parked when it was asked
 * to, are SCHED_FIFO until the machine runs again. Without the permission (CAP_SYS_NICE or
 * RLIMIT_RTPRIO) nothing changes. A SCHED_FIFO thread must not busy-wait for an ordinary thread,
 * which may need the same processor: see ldfs_event_soon.
 */
#include <sched.h>

#include "base/base.h"

bool ldfs_urgent_raise(pid_t thread)
{
	/* The lowest real-time priority. */
	const struct sched_param first = { .sched_priority = 1 };

	/* Keep a policy that the program has chosen itself. */
	if (sched_getscheduler(thread) != SCHED_OTHER)
		return false;
	return !sched_setscheduler(thread, SCHED_FIFO, &first);
}

void ldfs_urgent_lower(pid_t thread)
{
	const struct sched_param ordinary = { 0 };

	sched_setscheduler(thread, SCHED_OTHER, &ordinary); /* the kernel kept the nice value */
}
