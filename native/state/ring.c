/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ring.c - the pool of slots: taken and put by handlers, taken by the writer, grown by the keeper.
 *
 * Two lock-free stacks of slot numbers. The free one is popped by many, so its head carries a tag
 * against ABA (Treiber 1986, with a counted pointer as in Michael and Scott 1996). The filled one
 * is pushed by many and only ever taken whole, which needs no tag. Neither can be blocked by a
 * thread that is preempted halfway, and that is why they are stacks and not a ring of cells.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "state/state.h"

/* One slot of so many is fault-around's, at the most, while the target frees none. */
#define TO_SPARE_SHARE 16
/* A run of the sweep is in few groups, and few other granules are. */
#ifndef GROUP_GRANULES
#define GROUP_GRANULES 16
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static void push_free(struct ldfs_ring *r, uint32_t slot)
{
	uint64_t seen = load_seq(&r->free), head;

	do {
		store_relaxed(&r->slots[slot].next, (uint32_t)seen);
		head = ((seen >> 32) + 1) << 32 | (slot + 1);
	} while (!cas_seq(&r->free, &seen, head));
}

static uint32_t pop_free(struct ldfs_ring *r)
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

uint32_t ldfs_ring_take(struct ldfs_ring *r)
{
	uint32_t slot = pop_free(r), used;

	if (slot == NO_SLOT)
		return NO_SLOT;
	used = add_seq(&r->in_use, 1) + 1;
	raise_u64(&r->peak, used);
	if (used + used / 4 >= load_relaxed(&r->made) && ldfs_ring_can_grow(r))
		ldfs_event_notify(&r->low);
	return slot;
}

void ldfs_ring_give(struct ldfs_ring *r, uint32_t slot)
{
	sub_seq(&r->in_use, 1);
	push_free(r, slot);
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
	/* One packer is enough: it takes all there is. Others sleep, or look before they do. */
	ldfs_event_notify_one(&r->arrived);
}

uint32_t ldfs_ring_take_filled(struct ldfs_ring *r)
{
	return exchange_seq(&r->filled, 0);
}

/* The pages are there afterwards, so that no handler waits for memory. */
int ldfs_ring_grow(struct ldfs_ring *r, uint32_t count)
{
	uint32_t made = load_seq(&r->made);

	if (madvise(ldfs_slot_bytes(r, made), (uint64_t)(count - made) * r->slot_size,
		    MADV_POPULATE_WRITE))
		return -errno;
	for (uint32_t slot = made; slot < count; slot++)
		push_free(r, slot);
	store_seq(&r->made, count);
	ldfs_event_notify_some(&r->freed, count - made);
	return 0;
}

/* Slots are copies of what its owner may keep out of core files and children. */
static int keep_private(const struct ldfs_ring *r)
{
	uint64_t size = r->reserved * r->slot_size;

	return madvise(r->bytes, size, MADV_DONTFORK) || madvise(r->bytes, size, MADV_DONTDUMP)
		       ? -errno
		       : 0;
}

int ldfs_ring_init(struct ldfs_ring *r, uint64_t slot_size, uint64_t made, uint64_t limit,
		   bool grows)
{
	int rc;

	if (made == 0 || limit < made || limit >= UINT32_MAX)
		return -EINVAL;
	r->slot_size = slot_size;
	r->grows = grows;
	r->reserved = (uint32_t)limit;
	r->slots = calloc(limit, sizeof(*r->slots));
	r->bytes = mmap(NULL, limit * slot_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!r->slots || r->bytes == MAP_FAILED) {
		r->bytes = r->bytes == MAP_FAILED ? NULL : r->bytes;
		ldfs_ring_destroy(r);
		return -ENOMEM;
	}
	store_seq(&r->limit, (uint32_t)limit);
	rc = keep_private(r);
	if (!rc)
		rc = ldfs_ring_grow(r, (uint32_t)made);
	if (rc)
		ldfs_ring_destroy(r);
	return rc == -EFAULT ? -ENOMEM : rc;
}

void ldfs_ring_destroy(struct ldfs_ring *r)
{
	if (r->bytes)
		munmap(r->bytes, r->reserved * r->slot_size);
	free(r->slots);
	r->bytes = NULL;
	r->slots = NULL;
}
