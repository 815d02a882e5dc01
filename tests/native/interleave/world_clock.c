/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_clock.c - a clock that stands still, unless all actors wait for it. */
#include <unistd.h>

#include "holds.h"
#include "world_parts.h"

#define TICK_NS 60000000u /* longer than between two flushes of the table */

static uint64_t now_ns;

void clock_begin(void)
{
	now_ns = SECOND;
}

void clock_passes(void)
{
	now_ns += SECOND;
	hold_clock_passed();
}

uint64_t clock_state(uint64_t h)
{
	return mix(h, now_ns);
}

int hook_clock_gettime(clockid_t clock, struct timespec *now)
{
	(void)clock;
	if (scheduled() && world.table)
		now_ns += TICK_NS;
	now->tv_sec = (time_t)(now_ns / SECOND);
	now->tv_nsec = (long)(now_ns % SECOND);
	return 0;
}

int hook_usleep(useconds_t us)
{
	(void)us;
	if (turn_sleep())
		clock_passes();
	return 0;
}

int hook_spin(void)
{
	turn_spin();
	return 0;
}
