/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_steps.c - the core's atomic operations: turns between them, and checks of what they do. */
#include <string.h>

#include "world_parts.h"

void hook_step(const volatile void *at, const char *what, const char *function, int line)
{
	if (!scheduled())
		return;
	turn(what, function, line);
	check_not_freed(at);
	/* The writer begins anew: it knows nothing but its batch. */
	if (!strcmp(function, "ldfs_ring_take_filled"))
		actor_forgets(1);
}

/* Pointers differ from run to run, and never decide more than whether they are NULL. */
void hook_read(uint64_t value)
{
	actor_saw(value >> 40 && value >> 47 == 0 ? 1 : value);
}

void hook_wrote(void)
{
	actor_wrote();
}

void hook_compared(const volatile void *at, uint64_t before, uint64_t after, bool good)
{
	ldfs_dump *d = world_dump;
	uintptr_t g;

	if (!scheduled())
		return;
	hook_read(before);
	actor_saw(good);
	if (!good)
		return;
	actor_wrote();
	if (!d)
		return;
	g = (uintptr_t)at - (uintptr_t)d->state;
	if (g < d->granules)
		check_state_step((uint32_t)g, (uint8_t)before, (uint8_t)after);
	if (at == (void *)&d->phase)
		check_phase_step((uint32_t)before, (uint32_t)after);
}
