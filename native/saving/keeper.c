/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keeper.c - the thread that adds slots to the pool before the free ones run out; only under policy
 * spill.
 */
#include "saving/saving.h"

#define GROW_BYTES (4u << 20) /* bytes of slots added at once */

static bool grow(struct ldfs_dump *d)
{
	struct ldfs_ring *r = &d->ring;
	uint32_t made = load_seq(&r->made), limit = load_seq(&r->limit);
	uint32_t step = (uint32_t)(GROW_BYTES / r->slot_size) + 1;
	uint32_t count = limit - made < step ? limit : made + step;

	if (!ldfs_headroom((uint64_t)(count - made) * r->slot_size) || ldfs_ring_grow(r, count)) {
		/*
		 * No memory: the pool stays as large as it is. The waiting threads look again and
		 * see the limit.
		 */
		store_seq(&r->limit, made);
		ldfs_event_notify(&r->freed);
		return false;
	}
	add_relaxed(&d->spilled, count - made);
	return true;
}

static bool wants_more(const struct ldfs_ring *r)
{
	uint32_t used = load_seq(&r->in_use);

	return used + used / 4 >= load_seq(&r->made);
}

void *ldfs_keeper_main(void *dump)
{
	struct ldfs_dump *d = dump;
	struct ldfs_ring *r = &d->ring;

	while (!ldfs_released(d) && ldfs_ring_can_grow(r)) {
		uint32_t seen = ldfs_event_prepare(&r->low);

		if (wants_more(r) || ldfs_released(d)) {
			ldfs_event_cancel(&r->low);
			if (!ldfs_released(d))
				grow(d);
			continue;
		}
		ldfs_event_wait(&r->low, seen, UINT64_MAX);
	}
	ldfs_threads_ended(d);
	return NULL;
}
