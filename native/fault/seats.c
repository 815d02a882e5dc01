/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * seats.c - the arenas that the handler serves, and the threads that are at work in each.
 *
 * The handler reads the table without a lock: it looks, counts itself in, and looks again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "fault/within.h"

struct ldfs_fault_seat ldfs_fault_seats[LDFS_MAX_ARENAS];
_Atomic uint32_t ldfs_fault_seats_used;

int ldfs_seats_take(ldfs_arena *a)
{
	for (int i = 0; i < LDFS_MAX_ARENAS; i++) {
		struct ldfs_fault_seat *seat = &ldfs_fault_seats[i];

		if (load_seq(&seat->arena))
			continue;
		store_seq(&seat->arena, a);
		store_seq(&seat->end, (uintptr_t)a->live + a->size);
		store_seq(&seat->start, (uintptr_t)a->live);
		if (load_seq(&ldfs_fault_seats_used) <= (uint32_t)i)
			store_seq(&ldfs_fault_seats_used, (uint32_t)i + 1);
		a->fault_seat = i;
		return 0;
	}
	return -ENFILE;
}

void ldfs_seats_give(ldfs_arena *a)
{
	struct ldfs_fault_seat *seat = &ldfs_fault_seats[a->fault_seat];

	/* The range first: a handler that counts itself in after this finds nothing. */
	store_seq(&seat->start, UINTPTR_MAX);
	store_seq(&seat->end, 0);
	store_seq(&seat->arena, NULL);
	while (ldfs_fault_inside(a))
		usleep(50);
}

void ldfs_fault_enter(ldfs_arena *a)
{
	add_seq(&ldfs_fault_seats[a->fault_seat].callers, 1);
}

void ldfs_fault_leave(ldfs_arena *a)
{
	sub_seq(&ldfs_fault_seats[a->fault_seat].callers, 1);
}

uint32_t ldfs_fault_inside(const ldfs_arena *a)
{
	const struct ldfs_fault_seat *seat = &ldfs_fault_seats[a->fault_seat];

	return load_seq(&seat->handlers) + load_seq(&seat->callers);
}

/* Tasks that are in our handler now: they block everything that can be blocked. Callers do not. */
uint32_t ldfs_seats_handlers(void)
{
	uint32_t used = load_seq(&ldfs_fault_seats_used), sum = 0;

	for (uint32_t i = 0; i < used; i++)
		sum += load_seq(&ldfs_fault_seats[i].handlers);
	return sum;
}

/* False: the child has no view there. The range stays, so that ldfs_child_tell knows it. */
static bool forget_arena(struct ldfs_fault_seat *seat)
{
	const ldfs_arena *a = load_seq(&seat->arena);

	/* Of huge pages this child's own children have no view. */
	if (a && ldfs_child_map(a) && !ldfs_arena_huge(a)) {
		store_seq(&seat->start, UINTPTR_MAX);
		store_seq(&seat->end, 0);
	}
	store_seq(&seat->arena, NULL);
	store_seq(&seat->handlers, 0);
	store_seq(&seat->callers, 0);
	return load_seq(&seat->end) == 0;
}

bool ldfs_seats_forget(void)
{
	bool all_there = true;

	for (int i = 0; i < LDFS_MAX_ARENAS; i++)
		all_there &= forget_arena(&ldfs_fault_seats[i]);
	return all_there;
}
