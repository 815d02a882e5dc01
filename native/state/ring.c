/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ring.c - the slots of the pool: taken and put by handlers, taken by the writer. How many there
 * are is pool.c's.
 *
 * Two lock-free stacks of slot numbers. The free one is popped by many, so its head carries a tag
 * against ABA (Treiber 1986, with a counted pointer as in Michael and Scott 1996). The filled one
 * is pushed by many and only ever taken whole, which needs no tag. Neither can be blocked by a
 * thread that is preempted halfway, and that is why they are stacks and not a ring of cells.
 */
#define _GNU_SOURCE
#include "state/state.h"

/* One slot of so many is fault-around's, at the most, while the target frees none. */
#define TO_SPARE_SHARE 16
/* A run of the sweep is in few groups, and few other granules are. */
#ifndef GROUP_GRANULES
#define GROUP_GRANULES 16
#endif

void ldfs_ring_push(struct ldfs_ring *r, uint32_t slot)
{
	uint64_t seen = load_seq(&r->free), head;

	do {
		store_relaxed(&r->slots[slot].next, (uint32_t)seen);
		head = ((seen >> 32) + 1) << 32 | (slot + 1);
	} while (!cas_seq(&r->free, &seen, head));
}

uint32_t ldfs_ring_pop(struct ldfs_ring *r)
{
	uint64_t seen = load_seq(&r->free), head;
	uint32_t slot;

	do {
		if (!(uint32_t)seen)
			return NO_SLOT;
		slot = (uint32_t)seen - 1;
		head = ((seen >> 32) + 1) << 32 | load_relaxed(&r->slots[slot].next);
	} while (!cas_seq(&r->free, &seen, head));
	return slot;
}

bool ldfs_ring_can_grow(const struct ldfs_ring *r)
{
	return r->grows && load_seq(&r->made) < load_seq(&r->limit);
}

/* Stores go on while the keepers make more: fewer free ones than that are too few. */
uint64_t ldfs_ring_wanted(const struct ldfs_ring *r, uint32_t used)
{
	uint32_t ahead = load_seq(&r->ahead);

	return (uint64_t)used + (ahead > used / 4 ? ahead : used / 4);
}

uint32_t ldfs_ring_take(struct ldfs_ring *r)
{
	uint32_t slot = ldfs_ring_pop(r), used;

	if (slot == NO_SLOT)
		return NO_SLOT;
	used = add_seq(&r->in_use, 1) + 1;
	raise_u64(&r->peak, used);
	if (ldfs_ring_wanted(r, used) >= load_seq(&r->made) && ldfs_ring_can_grow(r))
		ldfs_event_notify(&r->low);
	return slot;
}

void ldfs_ring_give(struct ldfs_ring *r, uint32_t slot)
{
	sub_seq(&r->in_use, 1);
	ldfs_ring_push(r, slot);
	ldfs_event_notify_one(&r->freed);
}

bool ldfs_ring_has_free(struct ldfs_ring *r)
{
	return (load_seq(&r->free) & UINT32_MAX) != 0;
}

void ldfs_ring_pass_on(struct ldfs_ring *r)
{
	if (ldfs_ring_has_free(r))
		ldfs_event_notify_one(&r->freed);
}

/* Which waiters belong together: those for granules that are near each other. */
static uint32_t group_of(uint32_t granule)
{
	return 1u << (granule / GROUP_GRANULES % 32);
}

bool ldfs_ring_wait(struct ldfs_ring *r, uint32_t granule, uint32_t seen, uint64_t deadline_ns)
{
	return ldfs_event_wait_in(&r->freed, seen, deadline_ns, group_of(granule));
}

void ldfs_ring_need_none(struct ldfs_ring *r, uint32_t first, uint32_t end)
{
	uint32_t groups = 0;

	for (uint32_t g = first; g < end && groups != UINT32_MAX; g++)
		groups |= group_of(g);
	ldfs_event_notify_groups(&r->freed, groups);
}

/*
 * Each slot that the target frees is one that fault-around may take (to_spare), because a target
 * that frees none leaves every slot to stores. The sum is bounded: the target may stop at any time.
 */
void ldfs_ring_freed(struct ldfs_ring *r, uint32_t slot)
{
	if (load_relaxed(&r->to_spare) <= (int32_t)(load_relaxed(&r->made) / TO_SPARE_SHARE))
		add_relaxed(&r->to_spare, 1);
	ldfs_ring_give(r, slot);
}

void ldfs_ring_put(struct ldfs_ring *r, uint32_t slot)
{
	uint32_t seen = load_seq(&r->filled);

	do {
		store_relaxed(&r->slots[slot].next, seen);
	} while (!cas_seq(&r->filled, &seen, slot + 1));
	/* One thread is enough: it takes all there is. Others sleep, or look before they do. */
	ldfs_event_notify_one(&r->arrived);
}

uint32_t ldfs_ring_take_filled(struct ldfs_ring *r)
{
	return exchange_seq(&r->filled, 0);
}
