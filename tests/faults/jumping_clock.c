/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * jumping_clock.c - LD_PRELOAD: a wall clock that jumps ten years forward or back each time it is
 * read. CLOCK_MONOTONIC, and all sleeps by it, stay as they are.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TEN_YEARS 315360000

static _Atomic int looks;

int wall_clock_looks(void)
{
	return looks;
}

int clock_gettime(clockid_t clock, struct timespec *ts)
{
	int rc = (int)syscall(SYS_clock_gettime, clock, ts);

	if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
		ts->tv_sec += atomic_fetch_add(&looks, 1) % 2 ? TEN_YEARS : -TEN_YEARS;
	return rc;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}
