/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * urgent.c - a thread that a whole machine waits for runs before all ordinary threads.
 *
 * On processors that other work keeps busy a thread waits for its turn, some milliseconds, and the
 * machine stands meanwhile. So each vCPU that has not parked yet when it is asked to, and the
 * thread that does START, are SCHED_FIFO until all run again. Where that is not allowed (no
 * CAP_SYS_NICE, no RLIMIT_RTPRIO) nothing changes. Such a thread must not wait in a loop for an
 * ordinary one, which may need its processor: see ldfs_event_soon.
 */
#include <sched.h>

#include "base/base.h"

bool ldfs_urgent_raise(pid_t thread)
{
	const struct sched_param first = { .sched_priority = 1 }; /* the lowest of its kind */

	/* What its owner has chosen stays. */
	if (sched_getscheduler(thread) != SCHED_OTHER)
		return false;
	return !sched_setscheduler(thread, SCHED_FIFO, &first);
}

void ldfs_urgent_lower(pid_t thread)
{
	const struct sched_param ordinary = { 0 };

	sched_setscheduler(thread, SCHED_OTHER, &ordinary); /* the kernel has kept its nice value */
}
