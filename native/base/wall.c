/* SPDX-License-Identifier: GPL-2.0-or-later */
/* wall.c - the wall clock: what it says, for labels, and waiting until it says so. */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>

#include "base/base.h"
#include "base/relax.h"

/* What a sleep is late by on an idle processor: the timer's slack, and the way back. */
#define SPIN_NS 150000u
/* What the wall clock may have fallen behind meanwhile where it is slewed. */
#define SLOW_NS 50000u

uint64_t ldfs_wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool ldfs_wall_wait(uint64_t wall_ns)
{
	uint64_t wake = wall_ns > SPIN_NS ? wall_ns - SPIN_NS : 0, now = ldfs_wall_ns();
	/* By the clock that cannot be set: this sleep is as long as it was told to be. */
	uint64_t until = ldfs_now_ns() + (wake > now ? wake - now : 0);
	struct timespec ts = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };
	/* So that it comes to its turn at once when the sleep is over. */
	bool urgent = ldfs_urgent_raise(0);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
	/* A clock that was set back meanwhile is not waited for: the caller looks. */
	for (now = ldfs_wall_ns(); now + SLOW_NS >= wake && now < wall_ns; now = ldfs_wall_ns())
		relax();
	return urgent;
}

void ldfs_wall_over(void)
{
	ldfs_urgent_lower(0);
}
