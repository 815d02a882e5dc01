/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * slots.c - the arenas that the handler serves, and the threads that are at work in each.
 *
 * The handler reads the table without a lock: it looks, counts itself in, and looks again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "fault/within.h"

struct ldfs_fault_slot ldfs_fault_slots[LDFS_MAX_ARENAS];
_Atomic uint32_t ldfs_fault_slots_used;

int ldfs_slots_take(ldfs_arena *a)
{
	for (int i = 0; i < LDFS_MAX_ARENAS; i++) {
		struct ldfs_fault_slot *slot = &ldfs_fault_slots[i];

		if (load_seq(&slot->arena))
			continue;
		store_seq(&slot->arena, a);
		store_seq(&slot->end, (uintptr_t)a->live + a->size);
		store_seq(&slot->start, (uintptr_t)a->live);
		if (load_seq(&ldfs_fault_slots_used) <= (uint32_t)i)
			store_seq(&ldfs_fault_slots_used, (uint32_t)i + 1);
		a->fault_slot = i;
		return 0;
	}
	return -ENFILE;
}

void ldfs_slots_give(ldfs_arena *a)
{
	struct ldfs_fault_slot *slot = &ldfs_fault_slots[a->fault_slot];

	/* The range first: a handler that counts itself in after this finds nothing. */
	store_seq(&slot->start, UINTPTR_MAX);
	store_seq(&slot->end, 0);
	store_seq(&slot->arena, NULL);
	while (ldfs_fault_inside(a))
		usleep(50);
}

void ldfs_fault_enter(ldfs_arena *a)
{
	add_seq(&ldfs_fault_slots[a->fault_slot].callers, 1);
}

void ldfs_fault_leave(ldfs_arena *a)
{
	sub_seq(&ldfs_fault_slots[a->fault_slot].callers, 1);
}

uint32_t ldfs_fault_inside(const ldfs_arena *a)
{
	const struct ldfs_fault_slot *slot = &ldfs_fault_slots[a->fault_slot];

	return load_seq(&slot->handlers) + load_seq(&slot->callers);
}

/* Tasks that are in our handler now: they block everything that can be blocked. Callers do not. */
uint32_t ldfs_slots_handlers(void)
{
	uint32_t used = load_seq(&ldfs_fault_slots_used), sum = 0;

	for (uint32_t i = 0; i < used; i++)
		sum += load_seq(&ldfs_fault_slots[i].handlers);
	return sum;
}

/* False: the child has no view there. The range stays, so that ldfs_child_tell knows it. */
static bool forget_arena(struct ldfs_fault_slot *slot)
{
	const ldfs_arena *a = load_seq(&slot->arena);

	if (a && ldfs_child_map(a)) {
		store_seq(&slot->start, UINTPTR_MAX);
		store_seq(&slot->end, 0);
	}
	store_seq(&slot->arena, NULL);
	store_seq(&slot->handlers, 0);
	store_seq(&slot->callers, 0);
	return load_seq(&slot->end) == 0;
}

bool ldfs_slots_forget(void)
{
	bool all_there = true;

	for (int i = 0; i < LDFS_MAX_ARENAS; i++)
		all_there &= forget_arena(&ldfs_fault_slots[i]);
	return all_there;
}
